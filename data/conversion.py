"""What a conversion wrote and what it left out, and the folder that appears only when all is written."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from data.annotations import AnnotationError
from data.image_files import ImageError

EXAMPLES = 3
BAD_IMAGE = "image that cannot be used"


class Conversion:
    """Counts of one run: files listed, images and boxes written by split; files and objects left out by cause."""

    def __init__(self):
        self.listed, self.images, self.boxes = Counter(), Counter(), Counter()
        self.files, self.objects = Counter(), Counter()
        self.examples: dict[str, list[str]] = {}
        self.notes: list[str] = []

    def leave_out(self, error: AnnotationError | ImageError) -> None:
        """Name a file that is not converted, and count it."""
        self.files[error.cause if isinstance(error, AnnotationError) else BAD_IMAGE] += 1
        print(f"left out: {error}", file=sys.stderr)

    def drop(self, cause: str, where: str) -> None:
        """Count an object that is not converted."""
        self.objects[cause] += 1
        examples = self.examples.setdefault(cause, [])
        if len(examples) < EXAMPLES and where not in examples:
            examples.append(where)

    def why(self) -> str:
        """ "2 x no such image, 5 x box without area": all that was left out."""
        return ", ".join(f"{count} x {cause}" for cause, count in (self.files + self.objects).most_common())

    def finish(self, out: Path, partial: Path) -> int:
        """Give the new folder its name and print the summary; returns the exit status.

        Raises:
            AnnotationError: nothing is left of a split, or no object of all; the folder is removed.
        """
        empty = next((split for split in self.listed if not self.images[split]), None)
        if empty is not None or not self.images:
            shutil.rmtree(partial)
            split = f" of split {empty}" if len(self.listed) > 1 else ""
            count = self.listed[empty] if empty is not None else 0
            raise AnnotationError(
                f"none of the {counted(count, 'file')}{split} could be used ({self.why()}); nothing was written"
            )
        if self.objects and not sum(self.boxes.values()):
            shutil.rmtree(partial)
            crowd = "; --keep-crowd takes crowd regions as objects" if any("crowd" in c for c in self.objects) else ""
            raise AnnotationError(f"no object is left ({self.why()}); nothing was written{crowd}")
        partial.rename(out)
        for split, number in self.images.items():
            print(f"{split}: {number} images, {self.boxes[split]} boxes")
        for cause, number in self.files.most_common():
            print(f"left out: {counted(number, 'file')}: {cause}")
        for cause, number in self.objects.most_common():
            print(f"left out: {counted(number, 'object')}: {cause} ({', '.join(self.examples[cause])}, ...)")
        for note in self.notes:
            print(f"note: {note}")
        left = sum(self.files.values())
        print(f"{out}: {sum(self.images.values())} images written, {left} files left out")
        return 1 if left else 0


def counted(number: int, noun: str) -> str:
    """ "1 file", "2 files"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def write_lr(hr: np.ndarray, path: Path, scale: int) -> None:
    """Write the antialiased bicubic reduction of an image as PNG."""
    # Here and not above: it brings SciPy, which --help need not wait for.
    from data.degradation import degrade_bicubic

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(degrade_bicubic(hr, scale)).save(path)


def claim(out: Path, sources: list[Path]) -> Path:
    """A new folder beside `out` that becomes `out` when all is written. Raises AnnotationError if `out` is taken."""
    if out.exists() or out.is_symlink():
        raise AnnotationError(f"{out}: exists already and is never overwritten; choose another --out")
    for source in {Path(os.path.realpath(source)) for source in sources}:
        if Path(os.path.realpath(out)).is_relative_to(source):
            raise AnnotationError(f"{out}: lies inside the source {source}; choose --out elsewhere")
    partial = out.with_name(f"{out.name}.partial")
    try:
        partial.mkdir(parents=True)
    except FileExistsError:
        raise AnnotationError(f"{partial}: left by an interrupted run, or another is at work; delete it") from None
    return partial
