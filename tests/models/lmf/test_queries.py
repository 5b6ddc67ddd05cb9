"""Positions of HR pixels between LR pixels, against LIIF's coordinates in [-1, 1] and `grid_sample`."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from models.lmf.queries import grid, place, place_all, relative_cell, target_size

LIKE = torch.zeros(1, dtype=torch.double)


@given(st.integers(1, 40), st.floats(1, 30))
def test_neighbours_and_distances_are_those_of_liif(lr_size, scale):
    size = max(lr_size, int(lr_size * scale))
    coordinate = (torch.arange(size, dtype=torch.double) * 2 + 1) / size - 1
    centres = (torch.arange(lr_size, dtype=torch.double) * 2 + 1) / lr_size - 1
    axis = place_all(size, lr_size, LIKE)
    for side, shift in ((0, -1), (1, 1)):
        looked_up = (coordinate + shift / lr_size + 1e-9).clamp(-1 + 1e-9, 1 - 1e-9)
        expected = ((looked_up + 1) * lr_size / 2).floor().long()
        index, distance = axis.neighbour(side, lr_size)
        assert torch.equal(index, expected)
        assert torch.allclose(distance, (coordinate - centres[expected]) * lr_size, atol=1e-9)


@given(st.integers(1, 30), st.integers(1, 30), st.floats(1, 9), st.floats(1, 9))
def test_nearest_and_offsets_agree_with_grid_sample(height, width, down, across):
    size = max(height, int(height * down)), max(width, int(width * across))
    image = torch.rand(1, 1, height, width, dtype=torch.double)
    rows, columns = place_all(size[0], height, LIKE), place_all(size[1], width, LIKE)
    nearest = image[..., rows.nearest()[:, None], columns.nearest()]
    assert torch.equal(nearest, F.interpolate(image, size, mode="nearest-exact"))
    bilinear = 0
    for i in (0, 1):
        for j in (0, 1):
            row, column = rows.neighbour(i, height)[0], columns.neighbour(j, width)[0]
            weight = (rows.offset if i else 1 - rows.offset)[:, None] * (columns.offset if j else 1 - columns.offset)
            bilinear = bilinear + weight * image[..., row[:, None], column]
    assert torch.allclose(bilinear, F.interpolate(image, size, mode="bilinear"), atol=1e-12)


@given(st.integers(2, 50), st.integers(1, 8), st.data())
def test_a_window_has_the_positions_of_the_image(lr_size, scale, data):
    first = data.draw(st.integers(0, lr_size - 1))
    last = data.draw(st.integers(first + 1, lr_size))
    whole = place_all(scale * lr_size, lr_size, LIKE)[scale * first : scale * last]
    window = place_all(scale * (last - first), last - first, LIKE)
    assert torch.equal(window.lower, whole.moved(-first).lower)
    assert torch.equal(window.offset, whole.offset)


def test_single_pixels_have_the_positions_of_the_whole_axis():
    sizes = torch.tensor([[13], [22]])
    pixels = torch.tensor([[0, 5, 12], [21, 3, 8]])
    axis = place(pixels, sizes, 6, torch.double)
    for i, size in enumerate((13, 22)):
        whole = place_all(size, 6, LIKE)[pixels[i]]
        assert torch.equal(axis.lower[i], whole.lower) and torch.equal(axis.offset[i], whole.offset)


def test_grid_is_in_reading_order():
    rows, columns = grid(place_all(4, 2, LIKE), place_all(3, 3, LIKE))
    assert rows.lower.shape == columns.offset.shape == (1, 12)
    assert rows.lower[0].tolist() == [-1] * 3 + [0] * 6 + [1] * 3
    assert columns.lower[0].tolist() == [0, 1, 2] * 4


@pytest.mark.parametrize(
    ("size", "expected"),
    [((10, 20), (2, 1)), ((15, 25), (4 / 3, 0.8)), ((40, 40), (0.5, 0.5)), ((300, 300), (0.5, 0.5))],
)
def test_cell_is_two_over_the_scale_and_stops_at_the_scale_of_the_training(size, expected):
    assert relative_cell(size, (10, 10), LIKE).tolist() == [pytest.approx(expected)]
    several = relative_cell(torch.tensor([size, (10, 10)]), (10, 10), LIKE)
    assert several[0].tolist() == pytest.approx(expected) and several[1].tolist() == [2, 2]


def test_target_size():
    assert target_size((7, 9), 2.5, None) == (round(17.5), round(22.5))
    assert target_size((7, 9), 2, (7, 270)) == (7, 270)
    for size, message in (((6, 20), "height 6 for 7 LR pixels.*7 to 210"), ((20, 271), "width 271.*9 to 270")):
        with pytest.raises(ValueError, match=message):
            target_size((7, 9), 2, size)
