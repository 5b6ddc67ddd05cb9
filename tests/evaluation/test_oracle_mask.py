"""The oracle keeps exactly its share, objects first, and is nothing that a user can choose."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.detection_batch import DetectionBatch
from data.letterbox import fit_letterbox
from evaluation.oracle_mask import OracleMask, patch_coverage
from models.mask_policy import POLICIES, MaskPolicy, parse_policy
from models.masker import patch_grid


def make_batch(boxes: list[list[tuple]], size: tuple[int, int], scale: int = 2) -> DetectionBatch:
    """Boxes per image as x1, y1, x2, y2 in HR canvas pixels; LR images of `size`."""
    height, width = (side * scale for side in size)
    rows = [(x1, y1, x2, y2, image) for image, found in enumerate(boxes) for x1, y1, x2, y2 in found]
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 5)
    centred = torch.stack(
        [table[:, [0, 2]].mean(1), table[:, [1, 3]].mean(1), table[:, 2] - table[:, 0], table[:, 3] - table[:, 1]], 1
    )
    n = len(boxes)
    return DetectionBatch(
        torch.rand(n, 3, *size), None, (centred / torch.tensor([width, height, width, height])).float(),
        torch.zeros(len(rows), dtype=torch.int64), table[:, 4].long(), torch.ones(n, dtype=torch.bool),
        torch.arange(n), -1, [""] * n, [fit_letterbox(height, width, (height, width), scale)] * n, scale,
    )  # fmt: skip


def logits_of(score: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.zeros_like(score), score], 1)


@st.composite
def cases(draw):
    size = draw(st.integers(5, 40)), draw(st.integers(5, 40))
    patch, scale = draw(st.sampled_from([4, 8, 16])), draw(st.integers(2, 4))
    boxes = []
    for _ in range(draw(st.integers(1, 3))):
        found = []
        for _ in range(draw(st.integers(0, 4))):
            x1, y1 = (draw(st.integers(0, side * scale - 2)) for side in size[::-1])
            x2, y2 = draw(st.integers(x1 + 1, size[1] * scale)), draw(st.integers(y1 + 1, size[0] * scale))
            found.append((x1, y1, x2, y2))
        boxes.append(found)
    return make_batch(boxes, size, scale), boxes, patch


@given(case=cases(), share=st.floats(0, 1), seed=st.integers(0, 100))
def test_exactly_the_share_objects_first_then_the_score(case, share: float, seed: int):
    batch, _, patch = case
    grid = patch_grid(*batch.lr.shape[-2:], patch)
    score = torch.randint(0, 4, (len(batch.lr), *grid), generator=torch.Generator().manual_seed(seed)).float()
    oracle = OracleMask(share).for_batch(batch, patch)
    mask = oracle.select(batch.lr, logits_of(score), patch)
    assert mask.dtype == torch.bool and mask.shape == score.shape
    for chosen, covered, own in zip(mask.flatten(1), oracle.coverage.flatten(1), score.flatten(1), strict=True):
        assert chosen.sum() == round(share * chosen.numel())
        ranks = list(zip(covered.tolist(), own.tolist(), [-i for i in range(chosen.numel())], strict=True))
        kept = [rank for rank, is_kept in zip(ranks, chosen.tolist(), strict=True) if is_kept]
        assert sorted(kept) == sorted(ranks)[len(ranks) - len(kept) :]


@given(case=cases())
def test_coverage_is_the_share_of_the_patch_under_boxes(case):
    batch, boxes, patch = case
    height, width = batch.canvas
    side, covered = patch * batch.scale, patch_coverage(batch, patch)
    for image, found in enumerate(boxes):
        pixels = torch.zeros(height, width)
        for x1, y1, x2, y2 in found:
            pixels[y1:y2, x1:x2] = 1
        for row in range(covered.shape[1]):
            for column in range(covered.shape[2]):
                part = pixels[row * side : (row + 1) * side, column * side : (column + 1) * side]
                assert covered[image, row, column] == pytest.approx(part.mean().item(), abs=1e-6)


def test_small_objects_count_and_each_image_has_its_own():
    batch = make_batch([[(33, 1, 33.4, 1.3)], [(0, 40, 64, 64)]], (32, 32))
    mask = OracleMask(0.25).for_batch(batch, 16).select(batch.lr, torch.zeros(2, 2, 2, 2), 16)
    assert mask.tolist() == [[[False, True], [False, False]], [[False, False], [True, False]]]


def test_without_ground_truth_it_is_the_budget_of_the_masker():
    batch, logits = make_batch([[], []], (40, 40)), torch.randn(2, 2, 5, 5)
    mask = OracleMask(0.3).for_batch(batch, 8).select(batch.lr, logits, 8)
    assert torch.equal(mask, MaskPolicy("budget", 0.3).select(batch.lr, logits, 8))


def test_it_has_to_be_told():
    batch = make_batch([[]], (16, 16))
    with pytest.raises(ValueError, match="call for_batch"):
        OracleMask(0.5).select(batch.lr, torch.zeros(1, 2, 2, 2), 8)
    with pytest.raises(ValueError, match="call for_batch"):
        OracleMask(0.5).for_batch(batch, 16).select(batch.lr, torch.zeros(1, 2, 2, 2), 8)
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        OracleMask(1.5)


def test_users_cannot_choose_it():
    assert "oracle" not in POLICIES
    with pytest.raises(ValueError, match="unknown kind 'oracle'"):
        parse_policy("oracle=0.25")
