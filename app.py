"""Conditional super-resolution before a detector, in the browser of this machine.

    python app.py --detector yolo11n.pt --sr shipped --scale 4
    python app.py --weights runs/stage3/conditional_sr_yolo_jointly_tuned.pth --profile latency.json

Without either, the demo's system is taken where `make demo` has trained it; else there is SR alone. Serves on 127.0.0.1
only, fetches nothing, and keeps what is uploaded until it ends, an hour at most. Needs requirements-app.txt.
"""

from __future__ import annotations

import argparse
from pathlib import Path

LARGEST_SCALE = 30
DEMO = Path("runs/demo/stage3/conditional_sr_yolo_jointly_tuned.pth")


def main(argv: list[str] | None = None, ready=None) -> int:
    """Serve until interrupted; `ready` is called with the address instead of waiting, for tests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--detector", help="deployed detector: Ultralytics .pt, state dict, or checkpoint of stage 1")
    what.add_argument("--weights", help="checkpoint of stage 3")
    parser.add_argument("--sr", help="SR networks before --detector: shipped (default), FAST,QUALITY, or one")
    parser.add_argument("--scale", type=int, default=4, help="factor of SR networks")
    parser.add_argument("--profile", help="latency profile of --weights: a slider of milliseconds (tools/latency.py)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--half", action="store_true", help="16 bit: fp16 on CUDA, bf16 on CPUs")
    parser.add_argument("--max-pixels", type=int, default=1_000_000, help="largest image, height x width")
    parser.add_argument("--max-upload-mb", type=int, default=20, help="largest file")
    parser.add_argument("--port", type=int, default=7860, help="0 takes any free one")
    options = parser.parse_args(argv)
    if not 1 <= options.scale <= LARGEST_SCALE:
        parser.error(f"--scale is {options.scale}; give a whole number from 1 to {LARGEST_SCALE}")
    if options.max_pixels < 1 or options.max_upload_mb < 1:
        parser.error("--max-pixels and --max-upload-mb take whole numbers, 1 or more")

    from apps.serving import serve

    return serve(options, DEMO, ready)


if __name__ == "__main__":
    from utils.cli import run

    run(main, "stopped")
