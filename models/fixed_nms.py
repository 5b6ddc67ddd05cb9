"""Non-maximum suppression of constant shape: nothing waits for the device, and a CUDA graph can hold it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CANDIDATES = 1024  # boxes above the lowest score, of an image
ROUNDS = 24  # longest chain of boxes each of which overlaps the next


@dataclass(frozen=True)
class FixedBoxes:
    """What `fixed_nms` finds.

    Args:
        boxes: float32 (B, max_det, 6), best first, filled up with zeros: x1, y1, x2, y2, score, class.
        number: int64 (B,), how many there are.
        sure: bool (B,), false where CANDIDATES or ROUNDS did not suffice and the boxes may differ from greedy ones.
    """

    boxes: Tensor
    number: Tensor
    sure: Tensor


def fixed_nms(decoded: Tensor, conf: float, iou: float, max_det: int, max_wh: float) -> FixedBoxes:
    """Greedy suppression class by class, exact: what Ultralytics' `non_max_suppression` gives with one label a box.

    A box is kept if no better kept box of its class overlaps it. Repeating this rule, from "all are kept", reaches the
    greedy result after as many rounds as the longest chain of overlaps has boxes.

    Args:
        decoded: float32 (B, 4 + classes, A): cx, cy, w, h in pixels, and class scores.
        conf, iou, max_det: see `YoloDetector.predict`.
        max_wh: pixels by which classes are shifted apart, as Ultralytics does.
    """
    best, label = decoded[:, 4:].max(1)  # (B, A)
    best = torch.where(best > conf, best, 0.0)
    score, place = best.sort(dim=1, descending=True, stable=True)
    score, place = score[:, :CANDIDATES], place[:, :CANDIDATES]
    xywh = decoded[:, :4].transpose(1, 2).gather(1, place[..., None].expand(-1, -1, 4))
    kind = label.gather(1, place)[..., None].to(xywh.dtype)
    half = xywh[..., 2:] / 2
    corners = torch.cat((xywh[..., :2] - half, xywh[..., :2] + half), -1)
    valid = score > 0
    over = (overlaps(corners + kind * max_wh) > iou).triu(1)  # [b, i, j]: i is better than j and overlaps it
    before = keep = valid
    for _ in range(ROUNDS):
        before, keep = keep, valid & ~(over & keep[:, :, None]).any(1)
    sure = ((best > 0).sum(1) <= CANDIDATES) & (before == keep).all(1)
    # The last row takes what is suppressed or too much.
    slot = torch.where(keep, (keep.cumsum(1) - 1).clamp(max=max_det), max_det)
    rows = torch.cat((corners, score[..., None], kind), -1)
    found = rows.new_zeros(len(rows), max_det + 1, 6).scatter_(1, slot[..., None].expand(-1, -1, 6), rows)
    return FixedBoxes(found[:, :max_det], keep.sum(1).clamp(max=max_det), sure)


def overlaps(boxes: Tensor) -> Tensor:
    """Intersection over union of all pairs of boxes (B, N, 4), corners -> (B, N, N), in torchvision's order of sums."""
    low = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    sides = (torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:]) - low).clamp(min=0)
    shared = sides[..., 0] * sides[..., 1]
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    return shared / (area[:, :, None] + area[:, None] - shared)
