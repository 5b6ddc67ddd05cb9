"""How well a latency profile predicts what it has not measured, and whether `latency_ms=T` keeps T.

    python -m benchmarks.latency_predictor --weights conditional_sr_yolo_jointly_tuned.pth --imgsz 512 640 --half \\
        --json results.json

Measures a profile, then other image sizes, batches and kept shares (masks of the masker's own scores, on photographs),
and prints predicted and measured milliseconds, LR image to boxes. Times are medians, measured interleaved.

The speed of a shared machine changes between profile and measurement. One call, the anchor, is therefore timed before
and after the profile and among the measurements; `drift` is how much slower it became, and the median error is given
both as measured and with predictions multiplied by the drift, which leaves the predictor's own error.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

SHARES = (0.05, 0.15, 0.3, 0.45, 0.7)
ANCHOR = "all_quality"
FRACTIONS = (0.2, 0.4, 0.6)  # of the way from no patch to half of them, as limits for latency_ms


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--weights", help="stage-3 checkpoint")
    source.add_argument("--config", help="stage-3 YAML; networks without trained weights")
    parser.add_argument("--imgsz", type=int, nargs=2, default=[512, 640], help="SR height and width of the profile")
    parser.add_argument("--batch", type=int, default=4, help="largest batch of the profile")
    parser.add_argument("--half", action="store_true", help="16 bit")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args(argv)

    import numpy as np
    import torch

    from deployment.latency_measurement import CONF, measure_profile
    from deployment.prepare import prepare_system
    from loading.system_to_measure import system_to_measure
    from models.mask_policy import MaskPolicy
    from models.masker import patch_grid
    from utils.atomic_file import replace_text
    from utils.device import choose_device, compute_type
    from utils.logger import environment
    from utils.timing import measure_interleaved

    device = choose_device("auto")
    dtype = compute_type(device, options.half)
    system = system_to_measure(options.weights, options.config)
    size = tuple(side // system.scale for side in options.imgsz)
    base, reference = photographs(*size, 1).to(device), prepare_system(system, device, dtype)
    anchor = {ANCHOR: lambda: reference.predict(base, MaskPolicy("all_quality"), CONF)}

    def anchor_ms() -> float:
        with torch.inference_mode():
            return measure_interleaved(anchor, options.rounds, 2, device)[ANCHOR].median_ms

    anchors = [anchor_ms()]
    profile = measure_profile(system, device, dtype, size, options.batch, options.rounds)
    anchors.append(anchor_ms())
    prepared = prepare_system(system.with_execution(latency=profile), device, dtype)  # runs patches as the profile did
    stride = system.detector.stride // math.gcd(system.detector.stride, system.scale)
    unseen = [(size[0] - stride, size[1] - 2 * stride, 1), (size[0] + stride, size[1], 1), (*size, 3)]
    calls, predicted = {}, {}
    for height, width, batch in unseen:
        lr = photographs(height, width, batch).to(device)
        rows, columns = patch_grid(height, width, profile.patch)
        for share in SHARES:
            policy = MaskPolicy("budget", share)
            name = f"{width}x{height} batch {batch} share {share}"
            calls[name] = lambda lr=lr, policy=policy: prepared.predict(lr, policy, CONF)
            predicted[name] = profile.total_ms(height, width, batch, round(share * rows * columns))
    patches = int(np.prod(patch_grid(*size, profile.patch)))
    least, most = (profile.total_ms(*size, 1, kept) for kept in (0, patches // 2))
    for fraction in FRACTIONS:
        limit = least + fraction * (most - least)
        policy = MaskPolicy("latency_ms", limit)
        calls[f"latency_ms={limit:.1f}"] = lambda policy=policy: prepared.predict(base, policy, CONF)
        predicted[f"latency_ms={limit:.1f}"] = limit
    with torch.inference_mode():
        timings = measure_interleaved(anchor | calls, options.rounds, 2, device)
    drift = timings.pop(ANCHOR).median_ms / float(np.mean(anchors))
    table, errors, own_errors = [], [], []
    for name, timing in timings.items():
        row = {"case": name, "predicted_ms": predicted[name], "measured_ms": timing.median_ms}
        row["error"] = predicted[name] / timing.median_ms - 1
        table.append(row)
        print(f"{name:40} {row['predicted_ms']:8.1f} predicted {row['measured_ms']:8.1f} ms {row['error']:+.1%}")
        if "latency" not in name:
            errors.append(abs(row["error"]))
            own_errors.append(abs(drift * predicted[name] / timing.median_ms - 1))
    median, own = float(np.median(errors)), float(np.median(own_errors))
    print(f"drift of the machine {drift:.3f} (anchor {anchors[0]:.1f}, {anchors[1]:.1f} ms around the profile)")
    print(f"median absolute error {median:.1%} over {len(errors)} configurations, without the drift {own:.1%}")
    results = {"rows": table, "median_absolute_error": median, "drift": drift, "anchor_ms": anchors}
    results |= {"median_absolute_error_without_drift": own, "environment": environment()}
    results["command"] = "python -m benchmarks.latency_predictor " + " ".join(argv or sys.argv[1:])
    replace_text(options.json, json.dumps(results, indent=1) + "\n")
    return 0


def photographs(height: int, width: int, batch: int):
    """(B, 3, h, w) in [0, 1], parts of a photograph."""
    import numpy as np
    import torch
    from skimage.data import astronaut

    grown = np.pad(astronaut(), ((0, max(0, height - 512)), (0, max(0, width - 512)), (0, 0)), mode="symmetric")
    parts = [np.roll(grown, 97 * number, axis=(0, 1))[:height, :width] for number in range(batch)]
    return torch.from_numpy(np.stack(parts).transpose(0, 3, 1, 2).copy()).float() / 255


if __name__ == "__main__":
    from utils.cli import run

    run(main)
