"""Peak memory of detection in one large image, and of saving its super-resolved image: memory, not time.

    python -m benchmarks.large_images --detector yolo11n.pt --image street.jpg --folder runs/large --json large.json

The large image is --image repeated over the whole area. Every policy runs inference.py in a process of its own, first
on --image: what that leaves in memory (libraries, weights) is start-up, `beyond_mb` the peak of the large image on top.
"""

from __future__ import annotations

import argparse
import json
import resource
import runpy
import subprocess
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", required=True, help="Ultralytics .pt, state dict or stage-1 checkpoint")
    parser.add_argument("--image", type=Path, required=True, help="picture that is repeated")
    parser.add_argument("--lr", default="7680x4320", help="width x height in LR pixels")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--policies", nargs="+", default=["all_fast"])
    parser.add_argument("--memory-mb", type=int, default=1024)
    parser.add_argument("--save-sr", action="store_true", help="write the super-resolved image too")
    parser.add_argument("--folder", type=Path, required=True, help="for the large image and what is made of it")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # in a process of its own
    options = parser.parse_args(argv)
    if options.one:
        print(json.dumps(measure(options)))
        return 0

    from utils.atomic_file import replace_text
    from utils.logger import environment

    draw(options)
    rows = []
    for policy in options.policies:
        command = [sys.executable, "-m", "benchmarks.large_images", *(sys.argv[1:] if argv is None else argv)]
        done = subprocess.run([*command, "--policies", policy, "--one"], stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(json.dumps(rows[-1]), flush=True)
    replace_text(options.json, json.dumps({"environment": environment(), "rows": rows}, indent=1))
    return 0


def large_picture(options: argparse.Namespace) -> Path:
    return options.folder / f"{options.lr}.png"


def draw(options: argparse.Namespace) -> None:
    """The small picture, repeated."""
    import numpy as np
    from PIL import Image

    width, height = map(int, options.lr.split("x"))
    small = np.asarray(Image.open(options.image).convert("RGB"))
    times = (-(-height // small.shape[0]), -(-width // small.shape[1]), 1)
    options.folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.tile(small, times)[:height, :width]).save(large_picture(options), compress_level=1)


def measure(options: argparse.Namespace) -> dict:
    """Megabytes (10^6 bytes) that inference.py takes for the large image beyond what it took for a small one."""
    import torch

    from utils.timing import peak_memory_mb

    script = runpy.run_path(str(Path(__file__).resolve().parents[1] / "inference.py"))["main"]  # as users run it
    (policy,) = options.policies
    words = ["--detector", options.detector, "--scale", str(options.scale), "--policy", policy, "--device", "cpu"]
    words += ["--memory-mb", str(options.memory_mb), "--threads", "1", "--save-json", "true"]
    out = ["--out", str(options.folder / "small")]
    if script([*words, *out, "--source", str(options.image)]):
        raise SystemExit("inference.py failed on the small image")
    start_up = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
    words += ["--out", str(options.folder / "large"), "--save-sr", str(options.save_sr)]
    peak = peak_memory_mb(lambda: script([*words, "--source", str(large_picture(options))]), "cpu")
    row = {"lr": options.lr, "scale": options.scale, "policy": policy, "memory_mb": options.memory_mb}
    return row | {"save_sr": options.save_sr, "start_up_mb": round(start_up), "beyond_mb": peak and round(peak),
                  "torch": torch.__version__}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
