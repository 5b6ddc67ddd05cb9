"""A trivially small detector for bulk runs: the bright pixels of an image as one box; and a program that runs it."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from apps.bulk.plan import make_plan
from apps.bulk.run import Workers, run_plan
from apps.bulk.tables import SKIPPED, FileResult


def find(paths):
    for path in paths:
        time.sleep(0.05)  # so that kills meet files
        try:
            pixels = np.asarray(Image.open(path).convert("L"))
        except OSError as error:
            yield FileResult(str(path), SKIPPED, f"{type(error).__name__}")
            continue
        y, x = (pixels > 200).nonzero()
        boxes = [(None, 0, "spot", 0.5, *map(float, (x.min(), y.min(), x.max() + 1, y.max() + 1)))] if len(x) else []
        yield FileResult(str(path), frames=1, width=pixels.shape[1], height=pixels.shape[0], boxes=boxes)


@dataclass(frozen=True)
class BrightSpots:
    """Makes `find`; a worker dies of `deadly.png` always, of `die.png` unless the file `cured` is beside it."""

    def __call__(self):
        def careful(paths):
            for path in paths:
                if path.name == "die.png" and not path.with_name("cured").exists():
                    path.with_name("cured").touch()
                    os._exit(1)
                if path.name == "deadly.png":
                    os._exit(1)
                if path.name == "defect.png":
                    raise ZeroDivisionError("a defect")
            return find(paths)

        return careful


def run(folder: Path, out: Path, chunk: int, workers: int):
    plan = make_plan(out, sorted(folder.glob("*.png")), {"detector": "bright spots"}, chunk)
    return run_plan(plan, out, BrightSpots(), Workers(workers))


if __name__ == "__main__":
    from tests.apps import bright_spots  # under its own name, so that workers find it

    print(bright_spots.run(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
