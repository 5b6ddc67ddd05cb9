"""Bulk inference against the plain loop: images per second for some numbers of workers, and growth of memory.

    python -m benchmarks.bulk_throughput --images 100000 --folder runs/bulk --json bulk.json
    python -m benchmarks.bulk_throughput --detector yolo11n.pt --source images/ --folder runs/bulk --json bulk.json

Without --detector the images are drawn (32 x 24) and the detector is one line of NumPy: what is left is the cost of
files, tables and Ray. `start_s` is the time to the first finished chunk, `rate` counts from there. Memory: resident set
of each worker after every chunk; `growth_mb` is the median of its last tenth minus that of its second tenth.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Noted:
    """Makes what `make` makes, and notes time and memory after every chunk, a file for each process.

    Args:
        make: None stands for the one line of NumPy.
        folder: of the notes.
    """

    make: Any
    folder: str

    def __call__(self):
        inner = bright_spot if self.make is None else self.make()

        def find(paths):
            results = list(inner(paths))
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            with Path(self.folder, str(os.getpid())).open("a") as file:
                file.write(f"{time.time()} {len(paths)} {pages * resource.getpagesize() / 1e6}\n")
            return results

        return find


def bright_spot(paths):
    import numpy as np
    from PIL import Image

    from apps.bulk.tables import FileResult

    for path in paths:
        with Image.open(path) as image:
            y, x = (np.asarray(image.convert("L")) > 200).nonzero()
        box = (None, 0, "spot", 1.0, *map(float, (x.min(), y.min(), x.max() + 1, y.max() + 1)))
        yield FileResult(str(path), frames=1, width=32, height=24, boxes=[box])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", help="a real system: this detector behind bicubic x4")
    parser.add_argument("--source", help="images for --detector")
    parser.add_argument("--images", type=int, default=10_000, help="drawn images")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="0: the plain loop")
    parser.add_argument("--chunk", type=int, default=100)
    parser.add_argument("--folder", type=Path, required=True, help="for images and tables")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args(argv)

    from apps.bulk.file_list import list_files
    from apps.bulk.finder import System
    from utils.atomic_file import replace_text
    from utils.logger import environment

    make, source = None, str(options.folder / "images")
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.detector:
        model = {"detector": os.path.abspath(options.detector), "sr": "bicubic", "scale": 4, "device": "cpu"}
        make, source = System(model), options.source
    else:
        draw(Path(source), options.images)
    paths, _ = list_files(source)
    rows = []
    for workers in options.workers:
        rows.append(measure(paths, workers, make, options))
        print(json.dumps(rows[-1]), flush=True)
    replace_text(options.json, json.dumps({"environment": environment(), "rows": rows}, indent=1))
    return 0


def draw(folder: Path, count: int) -> None:
    """Small images with one bright spot, those that are not there yet."""
    import numpy as np
    from PIL import Image

    for number in range(count):
        file = folder / f"{number // 1000:03d}" / f"{number:06d}.png"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            image = np.zeros((24, 32), np.uint8)
            image[number % 20 : number % 20 + 3, number % 28 : number % 28 + 3] = 255
            Image.fromarray(image).save(file, compress_level=1)


def measure(paths: list[Path], workers: int, make: Any, options: argparse.Namespace) -> dict:
    """One run over all images."""
    import statistics
    import tempfile

    from apps.bulk.plan import make_plan
    from apps.bulk.run import Workers, compute, run_plan
    from apps.bulk.tables import finished

    out = Path(tempfile.mkdtemp(prefix=f"workers{workers}-", dir=options.folder))
    notes, began = out / "notes", time.time()
    notes.mkdir()
    plan = make_plan(out, paths, {}, options.chunk)
    if workers:
        run_plan(plan, out, Noted(make, str(notes)), Workers(workers))
    else:
        find = Noted(make, str(notes))()
        for number, chunk in enumerate(plan.chunks):
            compute(find, out, chunk, number)
    assert len(finished(out)) == len(plan.chunks)
    growth, largest, lines = [], [], []
    for file in notes.iterdir():
        own = [[*map(float, line.split())] for line in file.read_text().splitlines()]
        lines += own
        megabytes, tenth = [line[2] for line in own], max(1, len(own) // 10)
        early = megabytes[tenth : 2 * tenth] or megabytes
        growth.append(statistics.median(megabytes[-tenth:]) - statistics.median(early))
        largest.append(max(megabytes))
    lines.sort()
    spent = max(lines[-1][0] - lines[0][0], 1e-9)
    return {
        "workers": workers, "images": len(paths), "start_s": round(lines[0][0] - began, 1),
        "total_s": round(lines[-1][0] - began, 1), "rate": round(sum(line[1] for line in lines[1:]) / spent, 1),
        "largest_mb": [round(value) for value in largest], "growth_mb": [round(value, 1) for value in growth],
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
