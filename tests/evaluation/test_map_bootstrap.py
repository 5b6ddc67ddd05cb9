"""mAP of drawn images: equal to pycocotools on the images that were drawn, and the same draws for everybody."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluation.map_bootstrap import class_matches, image_draws, interval, weighted_map
from utils.metrics import coco_map

NAMES = ("a", "b", "c")


def drawn_set(seed: int, images: int = 5):
    """Ground truth, and detections near it, missing, doubled and of wrong classes; class c has no object."""
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for _ in range(images):
        count = int(rng.integers(0, 5))
        corner, size = rng.uniform(0, 60, (count, 2)), rng.uniform(14, 30, (count, 2))
        boxes = np.concatenate([corner, corner + size], 1)
        classes = rng.integers(0, 2, count)
        truth.append((boxes, classes, (100, 100)))
        near = np.repeat(boxes, 2, 0) + rng.normal(0, 2, (2 * count, 4))
        labels = np.where(rng.random(2 * count) < 0.2, 2 - np.repeat(classes, 2), np.repeat(classes, 2))
        rows = np.column_stack([near, rng.random(2 * count), labels])
        found.append(rows[rng.random(2 * count) < 0.7])
    return truth, found


@pytest.mark.parametrize("seed", range(4))
def test_every_image_once_is_the_map_of_pycocotools(seed: int):
    truth, found = drawn_set(seed)
    expected = coco_map(truth, found, NAMES)["map50_95"]
    (figure,) = weighted_map(class_matches(truth, found, NAMES), torch.ones(1, 5, dtype=torch.float64))
    assert figure.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_a_drawn_image_counts_as_often_as_it_was_drawn(seed: int):
    truth, found = drawn_set(seed)
    draws = image_draws(5, 3, seed)
    figures = weighted_map(class_matches(truth, found, NAMES), draws)
    for draw, figure in zip(draws.int().tolist(), figures.tolist(), strict=True):
        chosen = [index for index, times in enumerate(draw) for _ in range(times)]
        expected = coco_map([truth[i] for i in chosen], [found[i] for i in chosen], NAMES)["map50_95"]
        assert np.isnan(figure) if expected is None else figure == pytest.approx(expected, abs=1e-9)


def test_many_draws_are_computed_in_parts(monkeypatch):
    truth, found = drawn_set(1)
    matches, draws = class_matches(truth, found, NAMES), image_draws(5, 40, 0)
    whole = weighted_map(matches, draws)
    monkeypatch.setattr("evaluation.map_bootstrap.CELLS", 200)
    torch.testing.assert_close(weighted_map(matches, draws), whole, rtol=0, atol=1e-12, equal_nan=True)


def test_nothing_found_is_zero_and_no_object_is_unknown():
    truth = [(np.array([[0.0, 0, 9, 9]]), np.array([0]), (20, 20)), (np.zeros((0, 4)), np.zeros(0, int), (20, 20))]
    matches = class_matches(truth, [np.zeros((0, 6))] * 2, NAMES)
    figures = weighted_map(matches, torch.tensor([[1.0, 1], [0, 2]], dtype=torch.float64))
    assert figures[0] == 0 and figures[1].isnan()


def test_draws():
    draws = image_draws(7, 50, seed=3)
    assert draws.shape == (50, 7) and (draws.sum(1) == 7).all()
    assert torch.equal(draws, image_draws(7, 50, seed=3)) and not torch.equal(draws, image_draws(7, 50, seed=4))
    assert interval(np.array([np.nan, *range(101)])) == (2.5, 97.5)
