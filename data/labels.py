"""YOLO label files: one `class cx cy w h` line per object, box normalised to the image size (Ultralytics' format).

As Ultralytics does for detection, other kinds of lines become boxes: polygons (`class x1 y1 x2 y2 x3 y3 ...`, oriented
boxes among them) the smallest box around their points, pose labels the box before their keypoints.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import numpy as np

from utils.errors import UserError

TOLERANCE = 0.01
MAX_BYTES = 32_000_000
LARGEST_SHARE = 2.0  # a value above 1 and up to this is a share that is wrong; beyond, it counts pixels
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


def parse_label_file(path: str | os.PathLike, n_classes: int, keypoints: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Read the objects of one image. A missing or empty file is an image without objects; repeated lines count once.

    Values may lie up to 0.01 outside [0, 1]; boxes are cut to the image.

    Args:
        path: label file; a byte-order mark and any line ends are accepted.
        n_classes: number of class names; class ids lie in 0..n_classes - 1.
        keypoints: numbers behind the box on lines of pose labels, which are left out; without them such a line cannot
            be told from a polygon.

    Returns:
        classes int64 (n,), boxes float32 (n, 4) as cx, cy, w, h in shares of the image size, w and h > 0.

    Raises:
        LabelError: unreadable file, or a line that is not an object with a box inside the image.
    """
    try:
        size = os.path.getsize(path)
        if size > MAX_BYTES:
            reason = f"{size:,} bytes, more than the limit of {MAX_BYTES:,}"
            raise LabelError(path, None, reason, "this is no label file of one image: remove or correct it")
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
            rows[_parse_line(path, number, line, n_classes, keypoints)] = None
    table = np.array(list(rows), np.float64).reshape(-1, 5)
    return table[:, 0].astype(np.int64), table[:, 1:].astype(np.float32)


def _parse_line(path: str | os.PathLike, number: int, line: str, n_classes: int, keypoints: int) -> tuple[float, ...]:
    """One line as (class, cx, cy, w, h)."""
    fields = line.split()
    is_polygon = not keypoints and len(fields) >= 7 and len(fields) % 2 == 1
    if len(fields) != 5 and not is_polygon and len(fields) != 5 + keypoints:
        raise LabelError(path, number, f"{len(fields)} columns", _expected(len(fields), keypoints))
    for field in fields:
        if not NUMBER.fullmatch(field) or not math.isfinite(float(field)):
            raise LabelError(path, number, f"`{field[:40]}` is not a finite number", "expected `class cx cy w h`")
    label, *values = (float(field) for field in fields)
    if not label.is_integer() or label < 0:
        raise LabelError(path, number, f"class id `{fields[0][:40]}` is not a whole number from 0", "correct the line")
    if label >= n_classes:
        reason = f"class id {fields[0][:40]}, but the data set names {n_classes} classes (0..{n_classes - 1})"
        raise LabelError(path, number, reason, "correct the line, or add the name to `names` in the data-set YAML")
    box = values if is_polygon else values[:4]
    _check_range(path, number, box, is_polygon)
    if is_polygon:
        box = _around(box)
    if min(box[2:]) <= 0:
        reason = f"{'polygon' if is_polygon else 'box'} of width {box[2]:g} and height {box[3]:g}"
        raise LabelError(path, number, reason, "remove the line, or give the object its size")
    return label, *_cut(path, number, box)


def _expected(columns: int, keypoints: int) -> str:
    """What a line with another number of columns should have held."""
    if keypoints:
        return f"expected `class cx cy w h`, alone or with the {keypoints} numbers of kpt_shape in the data-set YAML"
    if columns == 6:
        return "expected `class cx cy w h`; this looks like a detection with a score: remove the last column"
    if columns >= 8:
        return "expected `class cx cy w h` or a polygon; of pose labels, kpt_shape must stand in the data-set YAML"
    return "expected `class cx cy w h`"


def _check_range(path: str | os.PathLike, number: int, values: list[float], is_polygon: bool) -> None:
    """Refuse values outside [0, 1] beyond the tolerance: pixels, wrong shares, keypoints."""
    low, high = min(values), max(values)
    kind = "polygon" if is_polygon else "box"
    if high > LARGEST_SHARE:
        reason = f"{kind} value {high:g} is above 1; {kind} values must be normalised, these look like pixels"
        x, y = ("x", "y") if is_polygon else ("cx and w", "cy and h")
        remedy = f"divide {x} by the image width, {y} by the image height"
        raise LabelError(path, number, reason, remedy)
    if high > 1 + TOLERANCE:
        reason = f"{kind} value {high:g} is above 1, so the {kind} is larger than its image or lies outside"
        remedy = "; of pose labels, kpt_shape must stand in the data-set YAML" if is_polygon else ""
        raise LabelError(path, number, reason, f"correct or remove the line{remedy}")
    if low < -TOLERANCE:
        remedy = "expected shares of the image size, 0..1: correct or remove the line"
        raise LabelError(path, number, f"{kind} value {low:g} is below 0", remedy)


def _around(points: list[float]) -> list[float]:
    """cx, cy, w, h of the smallest box around x1, y1, x2, y2, ..., within the image."""
    sides = [[min(max(value, 0.0), 1.0) for value in points[axis::2]] for axis in (0, 1)]
    lows, highs = [min(side) for side in sides], [max(side) for side in sides]
    return [(low + high) / 2 for low, high in zip(lows, highs)] + [high - low for low, high in zip(lows, highs)]


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
