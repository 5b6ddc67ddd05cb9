"""YOLO label files: one `class cx cy w h` line per object, box normalised to the image size (Ultralytics' format)."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import numpy as np

from utils.errors import UserError

TOLERANCE = 0.01
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class LabelError(UserError):
    """A label line that cannot be trusted: file and line, what is wrong, and what to do."""

    def __init__(self, path: str | os.PathLike, line: int | None, reason: str, remedy: str):
        where = f"{path}:{line}" if line else f"{path}"
        super().__init__(f"{where}: {reason}; {remedy}")
        self.path, self.line, self.reason, self.remedy = Path(path), line, reason, remedy

    def __reduce__(self):
        """Errors travel from data-loading processes by pickle, which needs the four arguments."""
        return type(self), (self.path, self.line, self.reason, self.remedy)


def label_path(image: str | os.PathLike) -> Path:
    """Label file of an image by Ultralytics' rule: the last `/images/` becomes `/labels/`, the suffix `.txt`."""
    head, found, tail = str(image).rpartition(f"{os.sep}images{os.sep}")
    return Path(f"{head}{os.sep}labels{os.sep}{tail}" if found else tail).with_suffix(".txt")


def parse_label_file(path: str | os.PathLike, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Read the objects of one image. A missing or empty file is an image without objects; repeated lines count once.

    Values may lie up to 0.01 outside [0, 1]; boxes are cut to the image.

    Args:
        path: label file; a byte-order mark and any line ends are accepted.
        n_classes: number of class names; class ids lie in 0..n_classes - 1.

    Returns:
        classes int64 (n,), boxes float32 (n, 4) as cx, cy, w, h in shares of the image size, w and h > 0.

    Raises:
        LabelError: unreadable file, or a line that is not an object with a box inside the image.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        text = ""
    except UnicodeDecodeError:
        raise LabelError(path, None, "not UTF-8 text", "save the labels as plain text") from None
    except OSError as error:
        reason = f"cannot be read ({error.strerror or error})"
        raise LabelError(path, None, reason, "check the file and its permissions") from error
    rows: dict[tuple[float, ...], None] = {}
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1):
        if line.strip():
            rows[_parse_line(path, number, line, n_classes)] = None
    table = np.array(list(rows), np.float64).reshape(-1, 5)
    return table[:, 0].astype(np.int64), table[:, 1:].astype(np.float32)


def _parse_line(path: str | os.PathLike, number: int, line: str, n_classes: int) -> tuple[float, ...]:
    """One line as (class, cx, cy, w, h)."""
    fields = line.split()
    if len(fields) != 5:
        remedy = "expected `class cx cy w h`"
        if len(fields) >= 7 and len(fields) % 2:
            remedy += "; this looks like a polygon: replace it by its bounding box"
        elif len(fields) == 6:
            remedy += "; this looks like a detection with a score: remove the last column"
        raise LabelError(path, number, f"{len(fields)} columns", remedy)
    for field in fields:
        if not NUMBER.fullmatch(field) or not math.isfinite(float(field)):
            raise LabelError(path, number, f"`{field[:40]}` is not a finite number", "expected `class cx cy w h`")
    label, *box = (float(field) for field in fields)
    if not label.is_integer() or label < 0:
        raise LabelError(path, number, f"class id `{fields[0]}` is not a whole number from 0", "correct the line")
    if label >= n_classes:
        reason = f"class id {fields[0]}, but the data set names {n_classes} classes (0..{n_classes - 1})"
        raise LabelError(path, number, reason, "correct the line, or add the name to `names` in the data-set YAML")
    if max(box) > 1 + TOLERANCE:
        reason = f"box value {max(box):g} is above 1; boxes must be normalised, these look like pixels"
        remedy = "divide cx and w by the image width, cy and h by the image height"
        raise LabelError(path, number, reason, remedy)
    if min(box) < -TOLERANCE:
        remedy = "expected cx cy w h in shares of the image size, 0..1"
        raise LabelError(path, number, f"box value {min(box):g} is below 0", remedy)
    if min(box[2:]) <= 0:
        reason = f"box of width {box[2]:g} and height {box[3]:g}"
        raise LabelError(path, number, reason, "remove the line, or give the object its size")
    return label, *_cut(path, number, box)


def _cut(path: str | os.PathLike, number: int, box: list[float]) -> list[float]:
    """Cut a box at the image border; one inside is returned digit by digit."""
    cut = list(box)
    for axis in (0, 1):
        centre, size = box[axis], box[axis + 2]
        low, high = centre - size / 2, centre + size / 2
        if low < 0 or high > 1:
            low, high = max(low, 0.0), min(high, 1.0)
            cut[axis], cut[axis + 2] = (low + high) / 2, high - low
        # float32 is what the caller gets, so a box that vanishes there must be refused here.
        if np.float32(cut[axis + 2]) <= 0:
            raise LabelError(path, number, "the box lies outside the image or is empty", "remove or correct the line")
    return cut
