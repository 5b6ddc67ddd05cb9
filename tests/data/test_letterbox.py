"""Geometry of the letterbox: nothing moves that should not, boxes find their way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from data.degradation import degrade_bicubic
from data.letterbox import Letterbox, blank, fit_letterbox, paste, resample, resample_lr
from utils.resize import resize

sizes = st.integers(1, 900)


@settings(max_examples=150, deadline=None)
@given(sizes, sizes, st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 2, 3, 4]), st.booleans())
def test_fits_the_grid_of_lr_pixels(height, width, rows, columns, scale, native):
    canvas = (rows * scale * 8, columns * scale * 8)
    box = fit_letterbox(height, width, canvas, scale, native)
    for whole, start, content in zip(canvas, (box.top, box.left), box.content, strict=True):
        cells = -(-content // scale)
        assert start % scale == 0 and start >= 0 and start // scale + cells <= whole // scale
        assert abs(start - (whole - start - content)) < 2 * scale
        if native:
            assert content % scale == 0
    assert any(content > whole - scale for whole, content in zip(canvas, box.content, strict=True))


@settings(max_examples=150, deadline=None)
@given(sizes, sizes, st.sampled_from([1, 2, 3, 4]), st.booleans(), st.integers(0, 2**32 - 1))
def test_round_trip(height, width, scale, native, seed):
    box = fit_letterbox(height, width, (96, 192), scale, native)
    low = np.random.default_rng(seed).random((5, 2))
    high = low + np.random.default_rng(seed + 1).random((5, 2)) * (1 - low)
    normalised = np.concatenate([(low + high) / 2, high - low], axis=1)
    canvas = box.to_canvas(normalised)
    expected = np.concatenate([low, high], axis=1) * [width, height, width, height]
    np.testing.assert_allclose(box.to_original(canvas), expected, atol=1e-9 * max(height, width))
    back = box.to_original(torch.tensor(canvas, dtype=torch.float32))
    assert back.dtype == torch.float32
    np.testing.assert_allclose(back, expected, atol=1e-4 * max(height, width))


def test_boxes_are_cut_at_the_original_border():
    box = Letterbox(100, 200, ratio=2.0, top=10, left=20)
    assert box.content == (200, 400)
    found = box.to_original(np.array([[0, 0, 1000, 1000], [20, 10, 40, 30]]))
    np.testing.assert_array_equal(found, [[0, 0, 200, 100], [0, 0, 10, 10]])
    assert box.to_original(np.zeros((0, 4), np.float32)).shape == (0, 4)


def test_image_of_canvas_size_is_untouched():
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    box = fit_letterbox(64, 96, (64, 96), 4)
    assert (box.ratio, box.top, box.left, box.content) == (1.0, 0, 0, (64, 96))
    assert resample(image, *box.content) is image
    assert resample_lr(image, Letterbox(256, 384, 1.0, 0, 0), 4) is image


@pytest.mark.parametrize(("top", "left"), [(0, 0), (-3, 5), (7, -4), (-20, 0), (3, 90)])
def test_paste_cuts_what_lies_outside(top, left):
    image = np.random.default_rng(0).integers(0, 100, (10, 12, 3), dtype=np.uint8)
    canvas = blank(16, 14)
    paste(canvas, image, top, left)
    for y in range(16):
        for x in range(14):
            inside = 0 <= y - top < 10 and 0 <= x - left < 12
            np.testing.assert_array_equal(canvas[y, x], image[y - top, x - left] if inside else 114)


@pytest.mark.parametrize("size", [(90, 122), (89, 121), (40, 55), (60, 200), (161, 63)])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_resized_lr_stays_in_register_with_resized_hr(size, scale):
    """Against LR made from the resized HR image: far closer than when shifted by half an LR pixel."""
    y, x = np.mgrid[: size[0], : size[1]] / max(size)
    hr = np.stack([127 + 100 * np.sin(9 * x + 4 * y), 255 * x, 255 * y], axis=-1).astype(np.uint8)
    box = fit_letterbox(*size, (96, 96), scale)
    found = resample_lr(degrade_bicubic(hr, scale), box, scale).astype(float)
    expected = degrade_bicubic(resample(hr, *box.content), scale).astype(float)
    assert found.shape == expected.shape
    inner = np.s_[2:-2, 2:-2]
    error = np.abs(found - expected)[inner].mean()
    shifted = np.abs((expected + np.roll(expected, 1, 1)) / 2 - expected)[inner].mean()
    assert error < 0.6 and error < 0.5 * shifted


@pytest.mark.parametrize("size", [(40, 50), (25, 77), (150, 130), (97, 240)])
def test_images_are_resized_by_antialiased_bicubic(size):
    """Against two other implementations, away from the border; what is not antialiased, or bilinear, lies far off."""
    image = 60 + np.random.default_rng(0).integers(0, 120, (120, 160, 3), dtype=np.uint8)
    found, inner = resample(image, *size).astype(float), np.s_[4:-4, 4:-4]
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].double()

    def by_torch(mode: str, antialias: bool) -> np.ndarray:
        resized = F.interpolate(pixels, size, mode=mode, antialias=antialias)[0].permute(1, 2, 0)
        return resized.clamp(0, 255).numpy()

    for expected in (by_torch("bicubic", True), resize(image.astype(float), *size).clip(0, 255)):
        assert np.abs(found - expected)[inner].max() <= 1.6  # 8 bit after each axis
    assert np.abs(found - by_torch("bilinear", True))[inner].mean() > 1
    if size[0] < 120:
        assert np.abs(found - by_torch("bicubic", False))[inner].mean() > 4
