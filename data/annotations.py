"""Annotated images of any format as boxes in pixels (`prepare_detection_data.py` writes them as YOLO)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from utils.errors import UserError

Box = tuple[float, float, float, float]
UNREADABLE = "annotation that cannot be read"
NO_BOX = "object without a box"
NO_AREA = "box without area"
OUTSIDE = "box outside its image"


class AnnotationError(UserError):
    """An annotation that cannot be converted: file, reason, remedy; `cause` is what it is counted under."""

    def __init__(self, message: str, cause: str = UNREADABLE):
        super().__init__(message)
        self.cause = cause


@dataclass(frozen=True)
class Annotated:
    """One annotated image.

    Args:
        source: annotation file, for messages.
        split: train, val, test, ...
        stem: path of the image below its split's folder, without suffix.
        names: file names under which the image may be found, the best first; see `data.image_finder.Name`.
        size: (height, width) in pixels as annotated, None where it is not stated.
        objects: (class name, (x1, y1, x2, y2) edges in pixels from the top left corner).
        dropped: why each object that is left out already is.
    """

    source: Path
    split: str
    stem: str
    names: tuple[tuple[str, bool], ...]
    size: tuple[int, int] | None
    objects: tuple[tuple[str, Box], ...] = field(default=())
    dropped: tuple[str, ...] = ()


def around(points: list[float]) -> Box:
    """Edges of the smallest box around x1, y1, x2, y2, ...

    Raises:
        ValueError: fewer than three points, or an odd number of values.
    """
    if len(points) < 6 or len(points) % 2:
        raise ValueError(f"{len(points)} values are no polygon")
    return min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2])


def fault(box: Box, height: int, width: int) -> str:
    """Why a box stands for no object of its image: without area or outside; empty where it does."""
    if box[2] <= box[0] or box[3] <= box[1]:
        return NO_AREA
    inside = box[0] < width and box[1] < height and box[2] > 0 and box[3] > 0
    return "" if inside else OUTSIDE


def normalise(box: Box, height: int, width: int) -> Box:
    """Edges in pixels -> cx, cy, w, h in shares of the image size; cut at the image border.

    Raises:
        ValueError: not finite, or nothing of the box lies inside the image.
    """
    if not all(map(math.isfinite, box)):
        raise UserError(f"box {box} is not complete")
    x1, x2 = (min(max(value, 0.0), width) / width for value in (box[0], box[2]))
    y1, y2 = (min(max(value, 0.0), height) / height for value in (box[1], box[3]))
    if x2 <= x1 or y2 <= y1:
        raise UserError(f"box x {box[0]:g}..{box[2]:g}, y {box[1]:g}..{box[3]:g} is empty or outside {width}x{height}")
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
