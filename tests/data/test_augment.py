"""Augmentation moves pixels and boxes alike, and depends on its key alone."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.schema import AugmentConfig
from data.augment import (
    AugmentPlan,
    check_augment,
    draw_plan,
    image_rectangles,
    mosaic_origin,
    mosaic_places,
    recolour,
    still_there,
    view,
    view_boxes,
)
from data.letterbox import paste

FULL = AugmentConfig(mosaic=0.5, close_mosaic=2, scale=0.5, translate=0.2, flip_lr=0.5, flip_ud=0.5, hsv_v=0.4)


def test_plan_is_a_function_of_its_key():
    keys = [(seed, epoch, index) for seed in (0, 1) for epoch in (0, 1, 7) for index in (0, 5)]
    plans = [draw_plan(FULL, *key, length=9, epochs=10) for key in keys]
    assert plans == [draw_plan(FULL, *key, length=9, epochs=10) for key in keys]
    assert len(set(plans)) == len(plans)


def test_draws_do_not_depend_on_other_settings():
    full, plain = (draw_plan(c, 0, 3, 1, 9, 10) for c in (replace(FULL, mosaic=1.0), replace(FULL, mosaic=0.0)))
    assert full.mosaic and not plain.mosaic
    assert replace(full, indices=(1,)) == plain


def test_ranges():
    plans = [draw_plan(FULL, 0, 0, i, length=50, epochs=10) for i in range(2000)]
    assert 0.45 < np.mean([p.mosaic for p in plans]) < 0.55
    assert 0.45 < np.mean([p.flip_lr for p in plans]) < 0.55
    zooms, shifts = np.array([p.zoom for p in plans]), np.array([p.shift for p in plans])
    assert 0.5 <= zooms.min() < 0.51 and 1.49 < zooms.max() <= 1.5
    assert -0.2 <= shifts.min() < -0.19 and 0.19 < shifts.max() <= 0.2
    assert {i for p in plans if p.mosaic for i in p.indices[1:]} == set(range(50))


def test_nothing_configured_changes_nothing():
    nothing = AugmentConfig(flip_lr=0.0)
    for index in range(20):
        plan = draw_plan(nothing, 0, 0, index, 30, 10)
        assert not (plan.mosaic or plan.resamples or plan.flip_lr or plan.flip_ud)
        image = np.random.default_rng(index).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        assert recolour(image, plan.hsv) is image
        np.testing.assert_array_equal(view(image, plan, (8, 8), (0, 0)), image)
    assert draw_plan(None, 0, 0, 4, 30, 10) == AugmentPlan((4,))


def test_mosaic_ends_before_the_training_does():
    config = replace(FULL, mosaic=1.0)
    assert [draw_plan(config, 0, epoch, 0, 9, 10).mosaic for epoch in range(10)] == [True] * 8 + [False] * 2
    assert not draw_plan(replace(config, close_mosaic=20), 0, 0, 0, 9, 10).mosaic


@pytest.mark.parametrize(("key", "value"), [("mosaic", 1.5), ("flip_lr", -0.1), ("scale", 1.0), ("translate", 2.0)])
def test_meaningless_settings_are_refused(key, value):
    with pytest.raises(ValueError, match=rf"augment\.{key} must .* got {value}"):
        check_augment(replace(AugmentConfig(), **{key: value}))


def test_brightness_scales_grey_images():
    grey = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    np.testing.assert_array_equal(recolour(grey, (0.3, 1.5, 0.5)), grey // 2)
    assert recolour(grey, (0.0, 1.0, 2.0)).max() == 255


def test_hue_turns_colours():
    red = np.full((2, 2, 3), (200, 0, 0), np.uint8)
    np.testing.assert_array_equal(recolour(red, (1 / 3, 1.0, 1.0))[0, 0], (0, 200, 0))


plans = st.builds(
    AugmentPlan,
    indices=st.just((0,)),
    zoom=st.one_of(st.just(1.0), st.floats(0.5, 1.8)),
    shift=st.one_of(st.just((0.0, 0.0)), st.tuples(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3))),
    flip_lr=st.booleans(),
    flip_ud=st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(plans, st.sampled_from([(0, 0), (20, 12)]), st.integers(0, 60), st.integers(0, 60), st.integers(8, 30))
def test_box_follows_its_pixels_to_a_fraction(plan, origin, y, x, side):
    """The rectangle's edges, read from its blurred picture by area, agree with the moved box within half a pixel."""
    board = np.zeros((100, 120, 3), np.uint8)
    board[y : y + side, x : x + side] = 250
    canvas = (64, 96)
    seen = view(board, plan, canvas, origin)[:, :, 0].astype(float) / 250
    box = view_boxes(np.array([[x, y, x + side, y + side]], float), plan, canvas, origin)[0]
    inside = np.clip(box, 0, [96, 64, 96, 64])
    # Border grey from outside the board also shows; it is far from 250.
    seen = np.where(seen > 0.47, seen, 0) if plan.zoom < 1 or plan.resamples else seen
    columns, rows = np.flatnonzero(seen.max(axis=0) > 0.5), np.flatnonzero(seen.max(axis=1) > 0.5)
    if (inside[2:] - inside[:2]).min() < 1:
        return
    found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    assert np.abs(found - inside).max() <= 1.0


@pytest.mark.parametrize("zoom", [1.0, 1.5, 1.8])
@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.08, -0.11)])
def test_the_middle_of_a_box_is_that_of_its_pixels(zoom, shift):
    """By its centre of mass, which half a pixel more or less would show."""
    board = np.zeros((64, 96, 3), np.uint8)
    board[24:36, 40:60] = 240
    plan = AugmentPlan((0,), zoom=zoom, shift=shift)
    shown = view(board, plan, (64, 96), (0, 0))[..., 0]
    x1, y1, x2, y2 = view_boxes(np.array([[40.0, 24, 60, 36]]), plan, (64, 96), (0, 0))[0]
    near = np.s_[int(y1) - 3 : int(y2) + 4, int(x1) - 3 : int(x2) + 4]  # without the grey beyond the board
    seen = np.zeros((64, 96))
    seen[near] = shown[near]
    y, x = np.mgrid[:64, :96] + 0.5
    middle = (seen * x).sum() / seen.sum(), (seen * y).sum() / seen.sum()
    assert middle == pytest.approx(((x1 + x2) / 2, (y1 + y2) / 2), abs=0.09)


def test_what_is_hardly_there_is_dropped():
    before = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 3, 3], [0, 0, 1.9, 3]], float)
    after = np.array([[0, 0, 10, 10], [0, 0, 10, 0.9], [0, 0, 4, 2.4], [0, 0, 3, 3], [0, 0, 1.9, 3]], float)
    assert still_there(before, after).tolist() == [True, False, False, True, False]


@given(
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    canvas=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    index=st.integers(0, 500),
)
@settings(deadline=None, max_examples=200)
def test_rectangles_hold_every_pixel_of_the_image_and_hardly_more(size, canvas, index):
    plan = draw_plan(FULL, 0, 0, index, length=9, epochs=10)
    sizes = [size] * len(plan.indices)
    places = mosaic_places(sizes, plan, canvas) if plan.mosaic else [(canvas[0] // 3, canvas[1] // 3)]
    board = np.zeros((*(n * (1 + plan.mosaic) for n in canvas), 3), np.uint8)
    for place in places:
        paste(board, np.full((*size, 3), 255, np.uint8), *place)
    # OpenCV fills what lies outside of the board with grey: without light on it, image is what is lighter than that.
    shown = view(board, plan, canvas, mosaic_origin(canvas, plan.mosaic))[..., 0]
    inside = np.zeros(canvas, bool)
    for top, left, bottom, right in image_rectangles(sizes, places, plan, canvas):
        inside[top:bottom, left:right] = True
    assert inside[shown > 128].all(), "image"
    if not plan.resamples:
        assert np.array_equal(inside, shown > 0)
    else:
        grown = cv2.dilate((shown > 0).astype(np.uint8), np.ones((5, 5))) > 0
        assert not (inside & ~grown).any() or not shown.any(), "padding"
