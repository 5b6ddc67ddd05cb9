"""Rectangles cover the selected patches exactly once, at a cost that merging never raises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.tiling.tile_plan import SHAPES, Geometry, choose_halo, choose_patch, plan_tiles


@st.composite
def cases(draw):
    patch, halo = draw(st.integers(4, 32)), draw(st.integers(0, 8))
    height, width, batch = draw(st.integers(1, 150)), draw(st.integers(1, 150)), draw(st.integers(1, 3))
    geometry = Geometry(height, width, patch, halo)
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    share = draw(st.sampled_from([0, 0.05, 0.3, 0.6, 0.95, 1]))
    return geometry, generator.random((batch, *geometry.grid)) < share


def covered(plan, mask):
    """How often each patch is computed in a rectangle."""
    count = np.zeros(mask.shape, int)
    for group in plan.groups:
        for image, row, column in group.index:
            assert row + group.rows <= mask.shape[1] and column + group.columns <= mask.shape[2]
            count[image, row : row + group.rows, column : column + group.columns] += 1
    return count


def cost(plan, geometry, overhead):
    area = sum(len(group.index) * geometry.area(group.rows, group.columns) for group in plan.groups)
    return area + overhead * len(plan.groups) + plan.dense.sum() * geometry.height * geometry.width


@given(cases(), st.sampled_from([0.0, 100.0, 1e6]), st.booleans())
@settings(deadline=None, max_examples=150)
def test_each_selected_patch_once_and_no_other(case, overhead, merge):
    geometry, mask = case
    plan = plan_tiles(mask.copy(), geometry, overhead, merge)
    expected = mask & ~plan.dense[:, None, None]
    assert (covered(plan, mask) == expected).all()
    assert all(len(group.index) and (merge or (group.rows, group.columns) == (1, 1)) for group in plan.groups)


@given(cases())
@settings(deadline=None, max_examples=100)
def test_batches_are_planned_image_by_image(case):
    geometry, mask = case
    whole = plan_tiles(mask, geometry, 100.0)
    for image in range(len(mask)):
        alone = plan_tiles(mask[image : image + 1], geometry, 100.0)
        assert alone.dense[0] == whole.dense[image]
        rectangles = {
            (g.rows, g.columns, *place[1:].tolist()) for g in whole.groups for place in g.index if place[0] == image
        }
        assert rectangles == {(g.rows, g.columns, *place[1:].tolist()) for g in alone.groups for place in g.index}


@given(cases())
@settings(deadline=None, max_examples=100)
def test_merging_never_costs_more(case):
    geometry, mask = case
    merged, single = (plan_tiles(mask[:1], geometry, 50.0, merge) for merge in (True, False))
    assert cost(merged, geometry, 50.0) <= cost(single, geometry, 50.0) + 50


def test_a_block_becomes_one_rectangle():
    mask = np.zeros((1, 6, 6), bool)
    mask[0, 1:3, 2:5] = True
    plan = plan_tiles(mask, Geometry(96, 96, 16, 2), 10.0)
    assert [(g.rows, g.columns, g.index.tolist()) for g in plan.groups] == [(2, 3, [[0, 1, 2]])]


def test_a_call_that_costs_too_much_is_not_made():
    mask = np.zeros((1, 6, 6), bool)
    mask[0, 0, 0] = mask[0, 0, 1] = mask[0, 4, 4] = True
    few, many = (plan_tiles(mask, Geometry(96, 96, 16, 2), overhead) for overhead in (1e3, 1.0))
    assert [(g.rows, g.columns) for g in few.groups] == [(1, 1)]
    assert [(g.rows, g.columns) for g in many.groups] == [(1, 2), (1, 1)]


def test_full_and_nearly_full_images_run_as_a_whole():
    mask = np.ones((3, 4, 4), bool)
    mask[1, 0, 0] = False
    mask[2] = False
    plan = plan_tiles(mask, Geometry(64, 64, 16, 8), 0.0)
    assert plan.dense.tolist() == [True, True, False] and not plan.groups


def test_a_mask_of_another_grid_is_refused():
    with pytest.raises(ValueError, match=r"\(3, 4\) patches, but the image has \(4, 4\)"):
        plan_tiles(np.ones((1, 3, 4), bool), Geometry(64, 64, 16, 2), 0.0)


def test_windows_stay_inside_the_image():
    geometry = Geometry(40, 100, 32, 4)
    assert geometry.grid == (2, 4)
    assert geometry.window(1, 1) == (40, 40) and geometry.window(2, 3) == (40, 100)
    assert SHAPES[-1] == (1, 1), "what nothing else covers is covered by single patches"


def test_default_tiling():
    assert [choose_patch(*size) for size in ((128, 160), (127, 500), (64, 64), (40, 900))] == [32, 16, 16, 8]
    assert [choose_halo(patch) for patch in (4, 8, 16, 32, 64)] == [4, 2, 2, 1, 1]
