"""Milliseconds from LR image to boxes, by kept share: super-resolution, detector and everything between.

    python -m benchmarks.whole_call --half --json results.json

EDSR 16 x 64 with one and with staged PixelShuffle tails, x4, before a YOLO; masks of clustered patches, all calls
interleaved. Networks are untrained: only times are looked at. "Gather and scatter" is that of tiles; where the native
kernel runs, it is part of the kernel. LR sides are made up to multiples of 8, as in inference.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path

SHARES = (0.0, 0.1, 0.25, 0.5, 1.0)
TAILS = ("single", "staged")
DRAWS = 2


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lr", nargs="+", default=["160x128"], help="width x height in LR pixels")
    parser.add_argument("--batches", type=int, nargs="+", default=[1])
    parser.add_argument("--detector", default="yolo11n.yaml")
    parser.add_argument("--half", action="store_true", help="16 bit: fp16 on CUDA, bf16 on CPUs")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args(argv)

    import numpy as np
    import torch

    from utils.atomic_file import replace_text
    from utils.device import choose_device, compute_type, dtype_name
    from utils.logger import environment
    from utils.timing import measure_interleaved

    device = choose_device("auto")
    dtype = compute_type(device, options.half)
    rows = []
    for lr, batch in itertools.product(options.lr, options.batches):
        width, height = map(int, lr.split("x"))
        calls = {}
        for tail in TAILS:
            calls |= calls_of(tail, height, width, batch, options, device, dtype)
        with torch.inference_mode():
            timings = measure_interleaved(calls, options.rounds, 2, device)
        samples = {name: np.array(timing.samples) for name, timing in timings.items()}
        for tail, share in itertools.product(TAILS, SHARES):
            took = samples[tail, share]
            row = {"tail": tail, "lr": lr, "batch": batch, "dtype": dtype_name(dtype), "r": share}
            row |= {"total_ms": float(np.median(took)), "p10": float(np.percentile(took, 10))}
            row |= {"p90": float(np.percentile(took, 90))}
            row |= {"ratio_to_all_quality": float(np.median(took / samples[tail, 1.0]))}
            row |= {f"{part}_ms": float(np.median(samples[tail, part])) for part in ("front_none", "detector")}
            row |= {"gather_scatter_ms": float(np.median(samples[tail, "gather", share]))}
            rows.append(row)
            print(
                f"{tail:7} LR {lr} batch {batch} r {share:4.2f}: {row['total_ms']:8.1f} ms, "
                f"{row['ratio_to_all_quality']:.3f} of all-quality; SR_Fast and Masker {row['front_none_ms']:.1f}, "
                f"gather and scatter {row['gather_scatter_ms']:.1f}, detector {row['detector_ms']:.1f}",
                flush=True,
            )
    results = {"rows": rows, "environment": environment() | {"threads": torch.get_num_threads()}}
    if device.type == "cuda":
        results["environment"]["gpu"] = torch.cuda.get_device_name(device)
    results["command"] = "python -m benchmarks.whole_call " + " ".join(argv or sys.argv[1:])
    replace_text(options.json, json.dumps(results, indent=1) + "\n")
    return 0


def calls_of(tail: str, height: int, width: int, batch: int, options, device, dtype) -> dict:
    """(tail, share) -> the whole call; besides, the front end without patches, gathering, and the detector alone."""
    import numpy as np
    import torch

    from benchmarks.conditional_execution import assembly, draw_mask, grid_of
    from deployment.prepare import prepare_system
    from models import build_sr
    from models.conditional_sr import ConditionalSR
    from models.detector_yolo import YoloDetector
    from models.execution import Execution
    from models.mask_policy import GivenMask
    from models.masker import Masker
    from models.system import ConditionalSRDetector
    from models.tiling.tile_plan import choose_halo, choose_patch

    torch.manual_seed(options.seed)
    height, width = (-(-side // 8) * 8 for side in (height, width))  # SR sides are multiples of the detector's stride
    patch = choose_patch(height, width)
    quality = build_sr("edsr", 4, {"n_blocks": 16, "n_feats": 64, "tail": tail})
    front = ConditionalSR(
        Masker(patch), build_sr("espcn", 4, {"n_feats": 8}), quality, Execution(halo=choose_halo(patch))
    )
    detector = YoloDetector(options.detector, [f"class {number}" for number in range(5)])
    system = prepare_system(ConditionalSRDetector(front, detector).eval(), device, dtype)
    lr = torch.rand(batch, 3, height, width, device=device)
    sr = system.front.sr_fast(lr).detach().clamp(0, 1)
    generator = np.random.default_rng(options.seed)
    calls = {}
    for share in SHARES:
        masks = [draw_mask(generator, grid_of(front, lr), share, "clustered") for _ in range(DRAWS)]
        policies = itertools.cycle([GivenMask(mask.to(device)) for mask in masks])
        calls[tail, share] = lambda policies=policies: system.predict(lr, next(policies))
        calls[tail, "gather", share] = assembly(system.front, lr, masks[0].to(device))
    nothing = GivenMask(masks[0].new_zeros(masks[0].shape).to(device))
    calls[tail, "front_none"] = lambda: system.front.infer(lr, nothing)
    calls[tail, "detector"] = lambda: system.detector.predict(sr)
    return calls


if __name__ == "__main__":
    from utils.cli import run

    run(main)
