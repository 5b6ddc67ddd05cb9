"""Detections of overlapping windows -> detections of the image: every object once.

Unlike with non-maximum suppression over all windows, boxes in the middle of a core are final: two objects of one window
are never taken for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.tiling.detection_parts import Part, PartPlan

SAME = 0.5  # share of the smaller box that two boxes of one object have in common at least
CHUNK = 64  # boxes that are compared with all others at once


def merge_parts(found: Sequence[np.ndarray], parts: Sequence[Part], plan: PartPlan) -> np.ndarray:
    """Merge the detections of an image's parts.

    A window keeps the boxes whose centre is in its core, or at most `plan.margin` beyond. Of those, a box is unsure if
    its centre is as close to the core's border, or if the window's edge cuts it off. Boxes of one class in different
    windows, one of them unsure, are one object where they have half of the smaller one in common, or where two windows
    cut off the same object at edges that face each other; closest pairs first, and no object has two boxes in one
    window. Of an object's boxes the best one is taken that no edge cuts off, else the rectangle around all of them.

    Args:
        found: boxes (n, 6) of every part: x1, y1, x2, y2 in pixels of the whole image, score, class.
        parts: of the image, in the same order.
        plan: that they come from.

    Returns:
        Boxes (n, 6), best first.
    """
    boxes = _owned(found, parts, plan.margin)
    merged = [
        boxes.rows[group[0]] if len(group) == 1 else _one_box(boxes, np.array(group)) for group in _same_objects(boxes)
    ]
    rows = np.stack(merged) if merged else np.zeros((0, 6), np.float32)
    return rows[np.argsort(-rows[:, 4], kind="stable")]


@dataclass(frozen=True)
class _Boxes:
    """Boxes that their windows keep.

    Args:
        rows: (n, 6), see `merge_parts`.
        part: int (n,), which part each comes from.
        cut: bool (n, 4), which sides (left, top, right, bottom) an edge of the window cuts off.
        unsure: bool (n,), whether another window may have the same object.
    """

    rows: np.ndarray
    part: np.ndarray
    cut: np.ndarray
    unsure: np.ndarray


def _owned(found: Sequence[np.ndarray], parts: Sequence[Part], margin: int) -> _Boxes:
    """The boxes of every part whose centre is in its core, or at most `margin` beyond."""
    kept = []
    for number, (rows, part) in enumerate(zip(found, parts, strict=True)):
        near, cut, inside = np.zeros(len(rows), bool), np.zeros((len(rows), 4), bool), np.ones(len(rows), bool)
        for axis, span in enumerate((part.columns, part.rows)):
            low, high = rows[:, axis], rows[:, axis + 2]
            centre = (low + high) / 2
            if span.first > 0:
                cut[:, axis] = low < span.first + margin
                inside &= centre >= span.start - margin
                near |= centre < span.start + margin
            if span.last < span.length:
                cut[:, axis + 2] = high > span.last - margin
                inside &= centre < span.end + margin
                near |= centre >= span.end - margin
        kept.append((rows[inside], np.full(inside.sum(), number), cut[inside], (near | cut.any(1))[inside]))
    return _Boxes(*(np.concatenate(column) for column in zip(*kept, strict=True)))


def _same_objects(boxes: _Boxes) -> list[list[int]]:
    """Indices of boxes by object, every box in one group."""
    unsure = np.flatnonzero(boxes.unsure)
    pairs = [pair for at in range(0, len(unsure), CHUNK) for pair in _pairs(boxes, unsure[at : at + CHUNK])]
    group = {index: [index] for index in range(len(boxes.rows))}
    for _, first, second in sorted(pairs, key=lambda pair: -pair[0]):
        one, other = group[first], group[second]
        if one is not other and {*boxes.part[one]}.isdisjoint(boxes.part[other]):
            one += other
            group |= dict.fromkeys(other, one)
    return [members for index, members in group.items() if members[0] == index]


def _pairs(boxes: _Boxes, some: np.ndarray) -> list[tuple[float, int, int]]:
    """Boxes that may be the same object as one of `some`: intersection over union, and both indices."""
    rows, own, cut, own_cut = boxes.rows, boxes.rows[some, None], boxes.cut, boxes.cut[some, None]
    shared = np.minimum(rows[:, 2:4], own[..., 2:4]) - np.maximum(rows[:, :2], own[..., :2])  # (k, n, 2): x and y
    joined = np.maximum(rows[:, 2:4], own[..., 2:4]) - np.minimum(rows[:, :2], own[..., :2])
    area, own_area = ((r[..., 2] - r[..., 0]) * (r[..., 3] - r[..., 1]) for r in (rows, own))
    common = shared.clip(0).prod(2)
    alike = common > SAME * np.minimum(area, own_area)
    for axis, across in ((0, 1), (1, 0)):
        facing = (cut[:, axis] & own_cut[..., axis + 2]) | (cut[:, axis + 2] & own_cut[..., axis])
        alike |= facing & (common > 0) & (shared[..., across] > SAME * joined[..., across])
    alike &= (boxes.part != boxes.part[some, None]) & (rows[:, 5] == own[..., 5])
    overlap = common / np.maximum(area + own_area - common, np.finfo(rows.dtype).tiny)
    first, second = alike.nonzero()
    return [*zip(overlap[first, second].tolist(), some[first].tolist(), second.tolist(), strict=True)]


def _one_box(boxes: _Boxes, group: np.ndarray) -> np.ndarray:
    """The best of an object's boxes that no edge cuts off, else the rectangle around all, with the best score."""
    whole = group[~boxes.cut[group].any(1)]
    if len(whole):
        return boxes.rows[whole[boxes.rows[whole, 4].argmax()]]
    rows = boxes.rows[group]
    corners = [*rows[:, :2].min(0), *rows[:, 2:4].max(0)]
    return np.array([*corners, rows[:, 4].max(), rows[0, 5]], rows.dtype)
