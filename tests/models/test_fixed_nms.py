"""Suppression of fixed shape is Ultralytics' greedy one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models import fixed_nms as module
from models.detector_yolo import non_max_suppression
from models.fixed_nms import fixed_nms


def drawn(seed: int, batch: int, anchors: int, classes: int, side: float) -> torch.Tensor:
    """Decoded predictions (batch, 4 + classes, anchors) of boxes that crowd."""
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(batch, 4, anchors, generator=generator) * torch.tensor([80.0, 80.0, side, side])[:, None] + 4
    return torch.cat([boxes, torch.rand(batch, classes, anchors, generator=generator)], 1)


@given(
    seed=st.integers(0, 10**6),
    batch=st.integers(1, 3),
    anchors=st.integers(1, 120),
    classes=st.integers(1, 3),
    side=st.sampled_from([4.0, 20.0, 60.0]),
    conf=st.sampled_from([0.05, 0.5, 0.95, 1.0]),
    iou=st.sampled_from([0.1, 0.45, 0.7]),
    max_det=st.sampled_from([1, 5, 300]),
)
def test_it_is_the_greedy_one(seed, batch, anchors, classes, side, conf, iou, max_det):
    decoded = drawn(seed, batch, anchors, classes, side)
    expected = non_max_suppression(decoded.clone(), conf, iou, max_det=max_det, max_wh=7680)
    found = fixed_nms(decoded, conf, iou, max_det, 7680)
    assert found.sure.all()
    for boxes, number, greedy in zip(found.boxes, found.number.tolist(), expected, strict=True):
        assert number == len(greedy) and not boxes[number:].any()
        assert torch.equal(boxes[:number], greedy)


@pytest.mark.parametrize(("name", "limit"), [("CANDIDATES", 20), ("ROUNDS", 1)])
def test_it_tells_where_its_size_does_not_suffice(monkeypatch, name, limit):
    monkeypatch.setattr(module, name, limit)
    assert not fixed_nms(drawn(0, 1, 120, 1, 60.0), 0.05, 0.3, 300, 7680).sure.any()
