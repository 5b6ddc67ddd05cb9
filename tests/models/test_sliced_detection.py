"""Sliced inference: slices cover the image, boxes come back where they were, doubles are reported once."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.mask_policy import MaskPolicy
from models.sliced_detection import SlicedDetector, Slicer, merge_boxes, spans
from utils.resize import resize

LEARNED = MaskPolicy("learned")  # slices look at no policy
lengths, counts, overlaps = st.integers(1, 200), st.integers(1, 6), st.floats(0, 0.9)


class BrightObjects(nn.Module):
    """Finds the extents of bright squares, each of its own level of red; the larger a square, the surer it is."""

    stride, dtype = 32, None

    def __init__(self, levels: tuple[float, ...]):
        super().__init__()
        self.levels = levels
        self.seen: list[tuple[int, ...]] = []

    def predict(self, images, conf, iou, max_det):
        self.seen.append(tuple(images.shape))
        found = []
        for image in images:
            boxes = []
            for level in self.levels:
                rows, columns = ((image[0] - level).abs() < 0.1).nonzero().unbind(1)
                if len(rows):
                    ends = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                    boxes.append([*map(float, ends), 0.3 + len(rows) / image[0].numel() / 2, 0.0])
            found.append(torch.tensor(boxes).reshape(-1, 6))
        return found


@given(length=lengths, count=counts, overlap=overlaps)
def test_intervals_cover_everything_and_overlap_enough(length: int, count: int, overlap: float):
    starts, size = spans(length, count, overlap)
    assert len(starts) == count and starts[0] == 0 and starts[-1] + size <= length
    covered = {pixel for start in starts for pixel in range(start, start + size)}
    assert covered == set(range(length))
    for first, second in pairwise(starts):
        assert first + size - second >= overlap * size - 1e-6, "at least"
    if count > 1 and size > 1:  # one pixel less, and some neighbours have less in common
        smaller, longest = size - 1, math.ceil((length - size + 1) / (count - 1))
        assert smaller - longest < overlap * smaller + 1e-6


def test_three_slices_overlap_by_a_fifth():
    starts, size = spans(80, 3, 0.2)
    assert (starts, size) == ([0, 24, 48], 32), "31 pixels would leave 6 of 31 in common"
    assert spans(80, 2, 0.2) == ([0, 35], 45) and spans(64, 2, 0.2) == ([0, 28], 36), "as in the published tables"


@settings(max_examples=40)
@given(height=st.integers(8, 60), width=st.integers(8, 60), rows=counts, columns=counts, full=st.booleans())
def test_windows_cover_the_image(height: int, width: int, rows: int, columns: int, full: bool):
    slicer = Slicer(2, rows, columns, 0.2, full)
    windows, covered = slicer.windows(height, width), np.zeros((height, width), int)
    assert len(windows) == rows * columns + full and (not full or windows[-1] == (0, 0, height, width))
    for top, left, high, wide in windows[: rows * columns]:
        assert (high, wide) == windows[0][2:] and min(high, wide) >= 1
        covered[top : top + high, left : left + wide] += 1
    assert covered.min() >= 1
    assert slicer(torch.rand(2, 3, height, width)).shape == (2 * len(windows), 3, 2 * height, 2 * width)


def test_slices_are_bicubic_enlargements_in_order():
    lr, slicer = torch.rand(2, 3, 18, 24, generator=torch.Generator().manual_seed(0)), Slicer(2, 2, 2, 0.2, full=True)
    parts = slicer(lr).view(2, 5, 3, 36, 48)
    for image, shown in zip(lr, parts, strict=True):
        for (top, left, high, wide), part in zip(slicer.windows(18, 24), shown, strict=True):
            cut = image[:, top : top + high, left : left + wide].permute(1, 2, 0).numpy()
            expected = resize(np.ascontiguousarray(cut), 36, 48).clip(0, 1)
            torch.testing.assert_close(part.permute(1, 2, 0).numpy(), expected, atol=1e-5, rtol=0)


@given(
    height=st.integers(8, 60), width=st.integers(8, 60), rows=counts, columns=counts, scale=st.integers(2, 4),
    place=st.tuples(*[st.floats(0, 1)] * 4), which=st.integers(0, 35),
)  # fmt: skip
def test_boxes_map_back_exactly(height, width, rows, columns, scale, place, which):
    """A box of the canvas, seen in the enlarged window, comes back as it was."""
    sliced = SlicedDetector(Slicer(scale, rows, columns, 0.2, full=True), BrightObjects(()))
    windows = sliced.slicer.windows(height, width)
    top, left, high, wide = window = windows[which % len(windows)]
    box = torch.tensor([*place, 0.9, 1.0], dtype=torch.float64)
    canvas = box * torch.tensor([wide, high, wide, high, 1, 1]) + torch.tensor([left, top, left, top, 0, 0])
    canvas[:4] *= scale
    inside = box * torch.tensor([width * scale, height * scale, width * scale, height * scale, 1, 1])
    torch.testing.assert_close(sliced.to_canvas(inside[None], window, height, width)[0], canvas, atol=1e-6, rtol=0)


@settings(max_examples=60)
@given(y=st.integers(1, 29), x=st.integers(1, 41), side=st.integers(4, 6), full=st.booleans())
def test_an_object_in_several_slices_is_reported_once(y: int, x: int, side: int, full: bool):
    """LR 36x48 in slices of 22x29 that overlap by 8 and 10: any object of at most 6 is whole in one of them."""
    lr = torch.zeros(1, 3, 36, 48)
    lr[..., y : y + side, x : x + side] = 1.0
    detector = BrightObjects((1.0,))
    sliced = SlicedDetector(Slicer(2, 2, 2, 0.3, full), detector)
    (boxes,), _ = sliced.predict(lr, LEARNED, 0.25, 0.7, 300)
    assert detector.seen == [(4 + full, 3, 72, 96)], "one call"
    tops, high = spans(36, 2, 0.3)
    lefts, wide = spans(48, 2, 0.3)
    holders = [
        (top, left)
        for top in tops
        for left in lefts
        if top <= y and y + side <= top + high and left <= x and x + side <= left + wide
    ]
    assert holders, "no slice holds it: the premise of the test is wrong"
    assert len(boxes) == 1, "parts in other slices lie inside the whole box"
    expected = torch.tensor([2 * x, 2 * y, 2 * (x + side), 2 * (y + side)]).float()
    # An edge is found where interpolation leaves the level: about half an LR pixel away.
    assert (boxes[0, :4] - expected).abs().max() <= 1.5


def test_an_object_wholly_inside_two_slices_is_reported_once():
    lr = torch.zeros(1, 3, 32, 32)
    lr[..., 4:8, 14:18] = 1.0  # columns 14..17; the slices are 0..17 and 14..31
    sliced = SlicedDetector(Slicer(2, 1, 2, 0.2, full=False), BrightObjects((1.0,)))
    assert sliced.slicer.windows(32, 32) == [(0, 0, 32, 18), (0, 14, 32, 18)]
    (boxes,), _ = sliced.predict(lr, LEARNED, 0.25, 0.7, 300)
    assert len(boxes) == 1


def test_batch_equals_singles_and_the_best_are_kept():
    lr = torch.zeros(3, 3, 32, 32)
    for image, (y, x) in enumerate([(2, 2), (10, 20), (24, 8)]):
        lr[image, :, y : y + 6, x : x + 6] = 1.0
        lr[image, 0, 14:18, 14:18] = 0.5
    sliced = SlicedDetector(Slicer(4, 2, 3, 0.25, full=True), BrightObjects((1.0, 0.5)))
    together, _ = sliced.predict(lr, LEARNED, 0.25, 0.7, 300)
    for image in range(3):
        torch.testing.assert_close(
            together[image], sliced.predict(lr[image : image + 1], LEARNED, 0.25, 0.7, 300)[0][0]
        )
        assert (together[image][:-1, 4] >= together[image][1:, 4]).all()
    assert all(len(boxes) == 1 for boxes in sliced.predict(lr, LEARNED, 0.25, 0.7, 1)[0])


def test_one_slice_without_overlap_is_plain_enlargement():
    lr = torch.rand(1, 3, 16, 16)
    slicer = Slicer(2, 1, 1, 0.0, full=False)
    assert slicer.windows(16, 16) == [(0, 0, 16, 16)]
    expected = resize(lr[0].permute(1, 2, 0).numpy(), 32, 32).clip(0, 1)
    torch.testing.assert_close(slicer(lr)[0].permute(1, 2, 0).numpy(), expected, atol=1e-5, rtol=0)


# ------------------------------------------------------------------------------------------------------------ merging


@given(data=st.data(), count=st.integers(0, 25), match=st.sampled_from(["ios", "iou"]), threshold=st.floats(0.05, 0.95))
def test_merging_is_greedy_suppression(data, count: int, match: str, threshold: float):
    def boxes() -> list[float]:
        x, y, w, h = (data.draw(st.integers(0, 20)) for _ in range(4))
        return [x, y, x + w, y + h, data.draw(st.integers(0, 10)) / 10, data.draw(st.integers(0, 1))]

    given_boxes = torch.tensor([boxes() for _ in range(count)]).reshape(-1, 6).float()
    left = merge_boxes(given_boxes, match, threshold)
    assert left.tolist() == reference(given_boxes.tolist(), match, threshold)


def reference(boxes: list[list[float]], match: str, threshold: float) -> list[list[float]]:
    """Box by box, in the words of the definition."""
    kept = []
    for box in sorted(boxes, key=lambda box: -box[4]):
        if all(box[5] != other[5] or overlap(box, other, match) <= threshold for other in kept):
            kept.append(box)
    return kept


def overlap(a: list[float], b: list[float], match: str) -> float:
    shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    whole = min(areas) if match == "ios" else sum(areas) - shared
    return shared / whole if whole else 0.0


def test_agrees_with_torchvision_on_iou():
    torchvision = pytest.importorskip("torchvision")
    corners = torch.rand(200, 2) * 50
    boxes = torch.cat([corners, corners + torch.rand(200, 2) * 30 + 1, torch.rand(200, 1)], 1)
    boxes = torch.cat([boxes, torch.randint(0, 3, (200, 1)).float()], 1)
    kept = torchvision.ops.batched_nms(boxes[:, :4], boxes[:, 4], boxes[:, 5], 0.5)
    assert merge_boxes(boxes, "iou", 0.5).tolist() == boxes[kept].tolist()
