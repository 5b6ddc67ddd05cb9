"""Sliced inference (SAHI, Akyon et al. 2022, arXiv 2202.06934): overlapping slices of an image, each enlarged to the
detector's input size, all in one batched call; boxes are mapped back and merged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor, nn

from models.detector_input import resized
from models.front_end import ConditionalOutput, Policy, Preparation
from models.method import Boxes, Detector, Network
from utils.flops_counter import count_macs_at

Window = tuple[int, int, int, int]  # top, left, height, width in LR pixels


def spans(length: int, count: int, overlap: float) -> tuple[list[int], int]:
    """Starts of `count` intervals of equal size that cover range(length), evenly spread, and their size.

    Args:
        length: pixels.
        count: intervals.
        overlap: least share of an interval that it has in common with the next, in [0, 1).

    The intervals are the shortest that whole pixels allow; where the steps between them differ, the longest one counts.
    """
    least = Fraction(overlap).limit_denominator(10**9)  # 0.2 is meant, not the nearest binary number
    gaps = max(1, count - 1)
    size = min(length, math.ceil(length / (1 + (count - 1) * (1 - least))))
    while size + (size - length) // gaps < least * size:  # what neighbours at the longest step have in common
        size += 1
    return [index * (length - size) // max(1, count - 1) for index in range(count)], size


class Slicer(nn.Module):
    """LR images -> their slices and, last, the whole image, all enlarged to the HR canvas by bicubic interpolation.

    Args:
        scale: HR canvas pixels per LR pixel.
        rows, columns: slices from top to bottom and from left to right.
        overlap: least share of a slice's side that it has in common with its neighbour, in [0, 1).
        full: add the whole image.
    """

    def __init__(self, scale: int, rows: int, columns: int, overlap: float, full: bool):
        super().__init__()
        self.scale, self.rows, self.columns, self.overlap, self.full = scale, rows, columns, overlap, full

    def windows(self, height: int, width: int) -> list[Window]:
        """Everything that `forward` cuts out, in its order; slices are of one size."""
        tops, high = spans(height, self.rows, self.overlap)
        lefts, wide = spans(width, self.columns, self.overlap)
        windows = [(top, left, high, wide) for top in tops for left in lefts]
        return windows + [(0, 0, height, width)] * self.full

    def forward(self, lr: Tensor) -> Tensor:
        """(B, 3, h, w) in [0, 1] -> (B * n, 3, scale * h, scale * w) in [0, 1], the n windows of an image together."""
        return self.cut(lr, self.windows(*lr.shape[-2:]))

    def cut(self, lr: Tensor, windows: Sequence[Window]) -> Tensor:
        """As `forward`, of windows as from `windows` at places of one's own."""
        height, width = lr.shape[-2:]
        cut = windows[: len(windows) - self.full]
        slices = torch.stack([lr[..., y : y + h, x : x + w] for y, x, h, w in cut], dim=1)  # (B, n, 3, sh, sw)
        parts = [slices] + [lr[:, None]] * self.full
        enlarged = torch.cat([resized(part, self.scale * height, self.scale * width) for part in parts], dim=1)
        return enlarged.flatten(0, 1).clamp_(0, 1)


class SlicedDetector(nn.Module):
    """Sliced inference around a detector.

    Detections of all slices are merged class by class by greedy non-maximum suppression. As in the sahi package by
    default, two boxes match where their intersection exceeds half of the smaller one (IoS), which also drops the part
    of an object that a slice's edge cut off; unlike there by default (GREEDYNMM), matching boxes are not joined, as
    with its postprocess_type NMS: with the many weak boxes that a mAP counts, joined boxes would grow beyond objects.

    Args:
        slicer: cuts and enlarges.
        detector: of what the slicer makes.
        match: "ios" or "iou".
        threshold: overlap above which the weaker of two boxes is dropped.
    """

    sees_hr = False
    patch = None

    def __init__(self, slicer: Slicer, detector: Detector, match: str = "ios", threshold: float = 0.5):
        super().__init__()
        self.slicer, self.detector, self.match, self.threshold = slicer, detector, match, threshold

    @property
    def front(self) -> Slicer:
        return self.slicer

    def super_resolve(self, lr: Tensor, policy: Policy, content: Tensor | None = None) -> ConditionalOutput:
        """What the detector gets, see `Slicer.forward`, in its type; only the images are looked at."""
        return ConditionalOutput(self.slicer(lr if self.detector.dtype is None else lr.to(self.detector.dtype)))

    @torch.no_grad()
    def predict(
        self,
        lr: Tensor,
        policy: Policy,
        conf: float = 0.25,
        iou: float = 0.7,
        max_det: int = 300,
        content: Tensor | None = None,
    ) -> tuple[Boxes, None]:
        """Boxes per image, best first, (n, 6) on the CPU: x1, y1, x2, y2 in HR canvas pixels, score, class.

        Args:
            lr: LR images (B, 3, h, w) in [0, 1].
            policy, content: not looked at.
            conf, iou: see YoloDetector.predict; for each slice.
            max_det: most detections per slice, and per image.
        """
        height, width = lr.shape[-2:]
        windows = self.slicer.windows(height, width)
        found = self.detector.predict(self.super_resolve(lr, policy).sr, conf=conf, iou=iou, max_det=max_det)
        found = torch.cat(found).cpu().split([len(part) for part in found])  # at once; merging waits for nothing more
        merged = []
        for first in range(0, len(found), len(windows)):
            parts = zip(found[first : first + len(windows)], windows, strict=True)
            boxes = torch.cat([self.to_canvas(part, window, height, width) for part, window in parts])
            merged.append(merge_boxes(boxes, self.match, self.threshold)[:max_det])
        return merged, None

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the detector's input for an image of height x width."""
        return height * self.slicer.scale, width * self.slicer.scale

    def detector_inputs(self, height: int, width: int) -> int:
        """Slices of one image, and the whole of it."""
        return len(self.slicer.windows(height, width))

    def front_macs(self, height: int, width: int, patches: int, masker: bool = True) -> int:
        """MACs of cutting and enlarging."""
        return count_macs_at(self.slicer, height, width)

    def networks_run(self, height: int, width: int, patches: Sequence[int], masker: bool = True) -> list[Network]:
        return [self.detector]

    def with_detector(self, detector: Detector, preparation: Preparation) -> SlicedDetector:
        """Inference copy around the inference copy of the detector."""
        return SlicedDetector(self.slicer, detector, self.match, self.threshold).eval()

    def to_canvas(self, boxes: Tensor, window: tuple[int, int, int, int], height: int, width: int) -> Tensor:
        """Boxes (n, 6) in pixels of an enlarged window of an LR image of height x width -> HR canvas pixels."""
        y, x, h, w = window
        factor = boxes.new_tensor([w / width, h / height, w / width, h / height, 1, 1])
        return boxes * factor + boxes.new_tensor([x, y, x, y, 0, 0]) * self.slicer.scale


def merge_boxes(boxes: Tensor, match: str, threshold: float) -> Tensor:
    """Greedy non-maximum suppression class by class.

    Args:
        boxes: (n, 6) x1, y1, x2, y2, score, class, on the CPU.
        match: "ios", intersection over the smaller box, or "iou", intersection over union.
        threshold: overlap above which the weaker of two boxes is dropped.

    Returns:
        The boxes that are left, best first, ties in the order given.
    """
    boxes = boxes[boxes[:, 4].argsort(descending=True, stable=True)]
    corners, classes = boxes[:, :4], boxes[:, 5]
    sides = torch.minimum(corners[:, None, 2:], corners[:, 2:]) - torch.maximum(corners[:, None, :2], corners[:, :2])
    shared = sides.clamp(min=0).prod(2)  # (n, n)
    area = (corners[:, 2:] - corners[:, :2]).clamp(min=0).prod(1)
    whole = torch.minimum(area[:, None], area) if match == "ios" else area[:, None] + area - shared
    matches = ((shared > threshold * whole) & (classes[:, None] == classes)).numpy()
    dropped = matches.diagonal() & False
    for index, row in enumerate(matches):
        if not dropped[index]:
            dropped[index + 1 :] |= row[index + 1 :]
    return boxes[torch.from_numpy(~dropped)]
