"""data/degradation.py: LR from HR."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.degradation import LR_PROTOCOLS, degrade_bicubic
from data.images import read_rgb
from tests.drawn import photograph
from tests.imresize import imresize
from utils.resize import resize


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_size_is_rounded_up_and_the_rest_is_padding(height: int, width: int, scale: int) -> None:
    hr = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    before = hr.copy()
    lr = degrade_bicubic(hr, scale)
    h, w = -(-height // scale), -(-width // scale)
    assert lr.shape == (h, w, 3) and lr.dtype == np.uint8
    padded = np.pad(hr, ((0, h * scale - height), (0, w * scale - width), (0, 0)), mode="edge")
    np.testing.assert_array_equal(lr, resize(padded, h, w))
    np.testing.assert_array_equal(hr, before)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_agrees_with_matlab(shared_data, scale: int) -> None:
    """The shipped LR images are MATLAB's, which rounds after each axis: one level apart away from the border."""
    folder = shared_data("sr_bench") / "Set5"
    for file in sorted((folder / "HR").iterdir()):
        hr = read_rgb(file, 10**8)
        height, width = (size // scale * scale for size in hr.shape[:2])
        ours = degrade_bicubic(hr[:height, :width], scale).astype(int)
        theirs = read_rgb(folder / "LR_bicubic" / f"X{scale}" / f"{file.stem}x{scale}.png", 10**8)
        # Where MATLAB clips overshoot between its two passes, the difference is larger.
        difference = np.abs(ours - theirs)[3:-3, 3:-3]
        assert np.mean(difference > 0) < 0.2 and np.mean(difference > 1) < 1e-3


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(72, 96), (73, 95)])
def test_agrees_with_imresize_written_from_its_description(size: tuple[int, int], scale: int) -> None:
    """Where the scale does not divide the size, MATLAB mirrors the border that is repeated here."""
    hr = photograph(*size)
    ours, theirs = degrade_bicubic(hr, scale).astype(int), imresize(hr, 1 / scale)
    assert ours.shape == theirs.shape
    whole = all(side % scale == 0 for side in size)
    difference = np.abs(ours - theirs)[() if whole else np.s_[:-3, :-3]]
    assert np.mean(difference > 0) < 0.006 and difference.max() <= 1  # all but ties


def test_protocols_cover_the_config() -> None:
    assert set(LR_PROTOCOLS) == {"bicubic", "folder", "native"}
    assert all(LR_PROTOCOLS.values())


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="scale"):
        degrade_bicubic(np.zeros((4, 4, 3), np.uint8), 0)
    with pytest.raises(ValueError, match="uint8"):
        degrade_bicubic(np.zeros((4, 4, 3), np.float32), 2)
