"""Noise by place: standard normal, and the same for a place whatever is computed beside it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.noise import normal_field

WHOLE = torch.zeros(1, 2, dtype=torch.long)


def field(**changes):
    return normal_field(**({"seed": 3, "draw": 0, "channels": 4, "origin": WHOLE, "size": (96, 128)} | changes))


def test_numbers_are_standard_normal():
    x = field().double()
    assert x.shape == (1, 4, 96, 128) and abs(x.mean()) < 0.015
    assert x.std() == pytest.approx(1, abs=0.015)
    assert (x**3).mean() == pytest.approx(0, abs=0.04) and (x**4).mean() == pytest.approx(3, abs=0.1)
    for side, share in ((1.0, 0.6827), (2.0, 0.9545), (3.0, 0.9973)):
        assert (x.abs() < side).double().mean() == pytest.approx(share, abs=0.005)


def test_neighbours_channels_draws_and_seeds_have_nothing_to_do_with_each_other():
    x, pairs = field(), []
    pairs += [(x[..., 1:], x[..., :-1]), (x[..., 1:, :], x[..., :-1, :]), (x[..., 1:, 1:], x[..., :-1, :-1])]
    pairs += [(x[:, 1:], x[:, :-1]), (x, field(draw=1)), (x, field(seed=4)), (x, field(seed=3 + (1 << 32)))]
    for a, b in pairs:
        assert abs(np.corrcoef(a.flatten(), b.flatten())[0, 1]) < 0.02
        assert not torch.equal(a, b)


def test_no_row_is_another_one_shifted():
    x = normal_field(0, 0, 1, WHOLE, (64, 64))[0, 0]
    assert len(x.flatten().unique()) == 64 * 64


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 70)), min_size=1, max_size=4), st.integers(1, 20), st.data()
)
def test_a_window_has_the_noise_of_the_whole(places, height, data):
    width = data.draw(st.integers(1, 20))
    whole = field()[0]
    windows = field(origin=torch.tensor(places), size=(height, width))
    for (row, column), window in zip(places, windows, strict=True):
        assert torch.equal(window, whole[:, row : row + height, column : column + width])


def test_the_result_is_a_constant_of_the_project():
    """Another formula would change every published image of a seed."""
    found = normal_field(7, 2, 2, torch.tensor([[5, 9]]), (1, 2))
    assert found.flatten().tolist() == pytest.approx([1.3491911, 0.6214892, 0.6712120, 0.2258591], abs=1e-5)
