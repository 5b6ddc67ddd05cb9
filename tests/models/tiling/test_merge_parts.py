"""Parts of large images and their detections, with a detector that finds exactly what was drawn."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from models.tiling.detection_parts import PartPlan, plan_parts
from models.tiling.merge_parts import merge_parts

PLAN = PartPlan(tile=56, objects=16, margin=2, unit=8)


def seen(objects: np.ndarray, plan: PartPlan, height: int, width: int, jitter=None):
    """What an exact detector finds in the parts: every object as far as its window shows it, if more than a line."""
    parts = [part for row in plan.rows(height, width) for part in row]
    found = []
    for part in parts:
        low, high = (np.array([getattr(s, end) for s in (part.columns, part.rows)]) for end in ("first", "last"))
        boxes = objects.copy()
        boxes[:, :2], boxes[:, 2:4] = boxes[:, :2].clip(low, high), boxes[:, 2:4].clip(low, high)
        boxes = boxes[((boxes[:, 2:4] - boxes[:, :2]) > 1).all(1)]
        if jitter is not None:
            boxes[:, :4] += jitter.uniform(-0.4, 0.4, (len(boxes), 4))
            boxes[:, 4] = jitter.uniform(0.3, 0.9, len(boxes))
        found.append(boxes)
    return found, parts


def layout(rng: np.random.Generator, height: int, width: int, largest: int, count: int) -> np.ndarray:
    """Objects of up to `largest` pixels, some touching each other and the image's border, none over another."""
    objects = np.zeros((0, 6))
    for number in range(count):
        sides = rng.uniform(2, largest, 2)
        place = rng.uniform(-4, (width, height)).clip(0, np.maximum((width, height) - sides, 0))
        box = np.array([*place, *np.minimum(place + sides, (width, height)), 0.9 - 0.001 * number, number % 2])
        apart = (box[2:4] <= objects[:, :2]) | (objects[:, 2:4] <= box[:2])
        if apart.any(1).all():
            objects = np.vstack([objects, box])
    return objects


@pytest.mark.parametrize("length", [1, 55, 56, 57, 64, 80, 81, 88, 500, 1003])
def test_spans_cover_an_axis(length):
    spans = PLAN.spans(length)
    assert [span.start for span in spans] == [0, *(span.end for span in spans[:-1])] and spans[-1].end == length
    for span in spans:
        assert span.first % PLAN.unit == 0 and span.first <= span.start < span.end <= span.last <= length
        assert span.last - span.first <= PLAN.tile
    for one, other in pairwise(spans):
        assert other.first > one.first and one.last - other.first >= PLAN.overlap


def test_every_object_up_to_the_size_is_found_exactly_once():
    """1,000 drawn layouts; the boxes themselves, nothing lost, doubled, cut or joined."""
    rng = np.random.default_rng(0)
    for _ in range(1000):
        height, width = rng.integers(30, 200, 2)
        objects = layout(rng, height, width, PLAN.objects, 25)
        merged = merge_parts(*seen(objects, PLAN, height, width), PLAN)
        np.testing.assert_array_equal(merged, objects)  # both are in the order of their scores


def test_boxes_that_differ_between_windows_are_one_object():
    """A detector whose boxes and scores are a little different in every window."""
    rng = np.random.default_rng(1)
    for _ in range(300):
        height, width = rng.integers(30, 200, 2)
        objects = layout(rng, height, width, PLAN.objects - 1, 25)
        objects = objects[((objects[:, 2:4] - objects[:, :2]) >= 4).all(1)]
        merged = merge_parts(*seen(objects, PLAN, height, width, jitter=rng), PLAN)
        assert len(merged) == len(objects)
        gap = np.abs(merged[:, None, :4] - objects[:, :4]).max(2) + 99 * (merged[:, None, 5] != objects[:, 5])
        assert sorted(gap.argmin(1)) == list(range(len(objects))) and (gap.min(1) <= 0.4).all()


def test_larger_objects_are_joined_from_their_parts():
    rng = np.random.default_rng(2)
    for _ in range(300):
        height, width = rng.integers(60, 250, 2)
        sides = rng.uniform(PLAN.overlap, (width, height))
        corner = rng.uniform(0, np.array((width, height)) - sides)
        objects = np.array([[*corner, *(corner + sides), 0.5, 1]])
        merged = merge_parts(*seen(objects, PLAN, height, width), PLAN)
        np.testing.assert_array_equal(merged, objects)


def test_overlapping_objects_of_one_window_stay_two():
    """Two boxes of one class, at a seam and everywhere else, that non-maximum suppression let through."""
    for x in np.arange(0, 180, 0.5):
        objects = np.array(
            [[x, 20, x + 12, 44, 0.9, 0], [x + 3, 20, x + 15, 44, 0.8, 0], [x + 3, 25, x + 11, 40, 0.7, 0]]
        )
        np.testing.assert_array_equal(merge_parts(*seen(objects, PLAN, 60, 200), PLAN), objects)


def test_classes_are_not_mixed_and_nothing_gives_nothing():
    objects = np.array([[60, 20, 80, 44, 0.9, 0], [60, 20, 80, 44, 0.8, 1]], float)
    np.testing.assert_array_equal(merge_parts(*seen(objects, PLAN, 60, 200), PLAN), objects)
    assert merge_parts(*seen(objects[:0], PLAN, 60, 200), PLAN).shape == (0, 6)


@pytest.mark.parametrize(("scale", "stride", "unit"), [(4, 32, 8), (4, 32, 32), (2, 32, 16), (1, 64, 64), (3, 32, 96)])
def test_planned_parts_fit_the_pixels(scale, stride, unit):
    for pixels in (100, 10_000, 700_000):
        plan = plan_parts(pixels, scale, stride, unit)
        assert plan.tile**2 <= max(pixels, (2 * (4 * plan.margin + unit) + unit) ** 2) and plan.tile % unit == 0
        assert plan.margin * scale >= stride / 2 and plan.objects == plan.tile // 8
        assert plan.whole(plan.tile, plan.tile) and not plan.whole(plan.tile, plan.tile + 1)


@pytest.mark.parametrize(("shift", "objects"), [(0, 1), (4, 1), (5, 1), (6, 2), (7, 2), (10, 2)])
def test_half_of_the_smaller_box_makes_two_boxes_one_object(shift, objects):
    """Each window finds one box, 11 pixels wide, at the seam (44): what the other one missed, or another object."""
    (parts,) = PLAN.rows(56, 88)
    left = np.array([[37.0, 20, 48, 40, 0.9, 0]])
    right = left + np.array([shift, 0, shift, 0, -0.1, 0])
    merged = merge_parts([left, right], parts, PLAN)
    np.testing.assert_array_equal(merged, np.concatenate([left, right])[:objects])


@pytest.mark.parametrize(
    "plan", [PLAN, PartPlan(57, 16, 2, 1), PartPlan(64, 16, 4, 8), PartPlan(100, 12, 3, 1)], ids=str
)
def test_what_a_window_answers_for_is_away_from_its_edges(plan):
    """An object whose centre is in a core, or `margin` beyond, ends `margin` before an edge that may cut it off."""
    reach = plan.margin + plan.objects / 2
    for length in range(plan.tile + 1, 4 * plan.tile, 7):
        for span in plan.spans(length):
            assert span.first == 0 or span.start - reach >= span.first + plan.margin
            assert span.last == length or span.end + reach <= span.last - plan.margin


def test_the_closest_boxes_are_one_object():
    """One window finds a box, the other two that both may be the same."""
    (parts,) = PLAN.rows(56, 88)
    left = np.array([[37.0, 20, 48, 40, 0.9, 0]])
    right = np.array([[41.0, 20, 52, 40, 0.8, 0], [38, 20, 49, 40, 0.7, 0]])
    for order in ([0, 1], [1, 0]):
        np.testing.assert_array_equal(merge_parts([left, right[order]], parts, PLAN), [left[0], right[0]])
