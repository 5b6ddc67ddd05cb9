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
import statistics
import sys
from pathlib import Path

SHARES = (0.05, 0.15, 0.3, 0.45, 0.7)
ANCHOR = "all_quality"
FRACTIONS = (0.2, 0.4, 0.6)  # of the way from no patch to half of them, as limits for latency_ms


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)

    import torch

    from deployment.latency_measurement import measure_profile
    from deployment.prepare import prepare_system
    from loading.system_to_measure import system_to_measure
    from models.mask_policy import MaskPolicy
    from utils.atomic_file import replace_text
    from utils.device import choose_device, compute_type
    from utils.logger import environment
    from utils.timing import measure_interleaved

    # 1. Profile, and the anchor before and after it
    device = choose_device("auto")
    dtype = compute_type(device, options.half)
    system = system_to_measure(options.weights, options.config)
    size = tuple(side // system.scale for side in options.imgsz)
    anchor = {ANCHOR: predict_call(prepare_system(system, device, dtype), (*size, 1), MaskPolicy(ANCHOR), device)}

    def timed(calls: dict) -> dict:
        with torch.inference_mode():
            return measure_interleaved(calls, options.rounds, 2, device)

    anchors = [timed(anchor)[ANCHOR].median_ms]
    profile = measure_profile(system, device, dtype, size, options.batch, options.rounds)
    anchors.append(timed(anchor)[ANCHOR].median_ms)

    # 2. What the profile has not measured
    prepared = prepare_system(system.with_execution(latency=profile), device, dtype)  # runs patches as the profile did
    cases = share_cases(prepared, profile, size, device) | limit_cases(prepared, profile, size, device)
    timings = timed(anchor | {name: call for name, (call, _) in cases.items()})

    # 3. Predicted against measured
    drift = timings.pop(ANCHOR).median_ms / (sum(anchors) / len(anchors))
    predicted = {name: ms for name, (_, ms) in cases.items()}
    results = compared({name: timing.median_ms for name, timing in timings.items()}, predicted, drift)
    print(f"drift of the machine {drift:.3f} (anchor {anchors[0]:.1f}, {anchors[1]:.1f} ms around the profile)")
    results |= {"drift": drift, "anchor_ms": anchors, "environment": environment()}
    results["command"] = "python -m benchmarks.latency_predictor " + " ".join(argv or sys.argv[1:])
    replace_text(options.json, json.dumps(results, indent=1) + "\n")
    return 0


def parse(argv: list[str] | None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--weights", help="stage-3 checkpoint")
    source.add_argument("--config", help="stage-3 YAML; networks without trained weights")
    parser.add_argument("--imgsz", type=int, nargs=2, default=[512, 640], help="SR height and width of the profile")
    parser.add_argument("--batch", type=int, default=4, help="largest batch of the profile")
    parser.add_argument("--half", action="store_true", help="16 bit")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, required=True)
    return parser.parse_args(argv)


def predict_call(system, shape: tuple[int, int, int], policy, device):
    """Calls a prepared system on photographs of (height, width, batch)."""
    from deployment.latency_measurement import CONF

    lr = photographs(*shape).to(device)
    return lambda: system.predict(lr, policy, CONF)


def share_cases(system, profile, size: tuple[int, int], device) -> dict[str, tuple]:
    """Call and predicted milliseconds by name: other image sizes and batches, several kept shares."""
    from models.mask_policy import MaskPolicy
    from models.masker import patch_grid

    cases, stride = {}, system.detector.stride // math.gcd(system.detector.stride, system.scale)
    shapes = [(size[0] - stride, size[1] - 2 * stride, 1), (size[0] + stride, size[1], 1), (*size, 3)]
    for height, width, batch in shapes:
        rows, columns = patch_grid(height, width, profile.patch)
        for share in SHARES:
            call = predict_call(system, (height, width, batch), MaskPolicy("budget", share), device)
            ms = profile.total_ms(height, width, batch, round(share * rows * columns))
            cases[f"{width}x{height} batch {batch} share {share}"] = call, ms
    return cases


def limit_cases(system, profile, size: tuple[int, int], device) -> dict[str, tuple]:
    """Call and predicted milliseconds by name: limits in milliseconds, which predict themselves."""
    from models.mask_policy import MaskPolicy
    from models.masker import patch_grid

    cases, (rows, columns) = {}, patch_grid(*size, profile.patch)
    least, most = (profile.total_ms(*size, 1, kept) for kept in (0, rows * columns // 2))
    for fraction in FRACTIONS:
        limit = least + fraction * (most - least)
        call = predict_call(system, (*size, 1), MaskPolicy("latency_ms", limit), device)
        cases[f"latency_ms={limit:.1f}"] = call, limit
    return cases


def compared(measured: dict[str, float], predicted: dict[str, float], drift: float) -> dict:
    """The rows and their median absolute error, limits apart; prints both."""
    table, errors, own_errors = [], [], []
    for name, ms in measured.items():
        row = {"case": name, "predicted_ms": predicted[name], "measured_ms": ms, "error": predicted[name] / ms - 1}
        table.append(row)
        print(f"{name:40} {row['predicted_ms']:8.1f} predicted {ms:8.1f} ms {row['error']:+.1%}")
        if "latency" not in name:
            errors.append(abs(row["error"]))
            own_errors.append(abs(drift * predicted[name] / ms - 1))
    median, own = statistics.median(errors), statistics.median(own_errors)
    print(f"median absolute error {median:.1%} over {len(errors)} configurations, without the drift {own:.1%}")
    return {"rows": table, "median_absolute_error": median, "median_absolute_error_without_drift": own}


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
