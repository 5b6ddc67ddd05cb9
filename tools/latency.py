"""Latency profile of a system on a device: measured once, it predicts milliseconds for any image size and kept share.

    python -m tools.latency --weights conditional_sr_yolo_jointly_tuned.pth --imgsz 640 --out latency.json

Then `inference.py --policy latency_ms=40 --profile latency.json` keeps the largest share of patches that fits, and
stage 3 with `losses.sparsity: latency` trains towards a number of milliseconds. Times are end to end: LR image in
memory to boxes after non-maximum suppression. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def halo(text: str) -> int | str:
    """Halo from the command line. Raises ValueError, which argparse reports."""
    if text != "exact" and int(text) < 0:
        raise ValueError(text)
    return text if text == "exact" else int(text)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--weights", help="stage-3 checkpoint")
    source.add_argument("--config", help="stage-3 YAML: measured before training, with its networks")
    parser.add_argument("--imgsz", type=int, nargs="+", default=[640], help="SR pixels: one side, or height and width")
    parser.add_argument("--halo", type=halo, help="another than the system's: LR pixels, or exact")
    parser.add_argument("--batch", type=int, default=8, help="largest batch that will be asked for")
    parser.add_argument("--half", action="store_true", help="16 bit: fp16 on CUDA, bf16 on CPUs")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0 keeps PyTorch's choice")
    parser.add_argument("--rounds", type=int, default=7, help="timed calls of each measured point")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT")
    options = parser.parse_args(argv)
    if options.out.exists() and not options.overwrite:
        parser.error(f"--out {options.out} exists: choose another name or add --overwrite")
    if len(options.imgsz) > 2 or min(options.imgsz) < 32 or options.batch < 1 or options.rounds < 1:
        parser.error("--imgsz takes one or two sides of at least 32, --batch and --rounds at least 1")

    import torch

    from deployment.latency_measurement import measure_profile
    from deployment.latency_profile import save_profile
    from loading.system_to_measure import system_to_measure
    from models.tiling.tile_plan import Geometry
    from utils.device import choose_device, set_threads

    set_threads(options.threads)
    device = choose_device(options.device)
    dtype = torch.float32 if not options.half else torch.float16 if device.type == "cuda" else torch.bfloat16
    system = system_to_measure(options.weights, options.config, options.halo)
    height, width = options.imgsz if len(options.imgsz) == 2 else options.imgsz * 2
    size = (height // system.scale, width // system.scale)
    profile = measure_profile(system, device, dtype, size, options.batch, options.rounds)
    save_profile(profile, options.out)
    rows, columns = Geometry(*size, profile.patch, profile.halo).grid
    print(f"LR {size[1]}x{size[0]}, batch 1, milliseconds from LR image to boxes:")
    for share in (0, 0.1, 0.25, 0.5, 1):
        kept = round(share * rows * columns)
        total, front = profile.total_ms(*size, 1, kept), profile.sr_ms(*size, 1, kept)
        print(f"  kept share {kept / (rows * columns):4.2f}: {total:8.1f}, of these super-resolution {front:8.1f}")
    print(f"profile: {options.out}")
    return 0


if __name__ == "__main__":
    from utils.cli import run

    run(main)
