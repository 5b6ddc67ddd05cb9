"""Unsharp masking agrees with OpenCV's operations, and leaves smooth images alone."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from data.sharpen import sharpen


def by_opencv(image: np.ndarray) -> np.ndarray:
    """Gaussian 51, weight 0.5, threshold 10, softly masked; float32 (H, W, 3) in [0, 1]."""

    def smooth(x: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(x, (51, 51), 0)

    detail = image - smooth(image)
    mask = smooth((np.abs(detail) * 255 > 10).astype(np.float32))
    return mask * np.clip(image + 0.5 * detail, 0, 1) + (1 - mask) * image


def test_it_is_that_of_opencv():
    image = np.random.default_rng(0).random((60, 70, 3), np.float32)
    image[20:40, 10:30] = 0.9
    found = sharpen(torch.from_numpy(image).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    expected = by_opencv(image)
    assert np.abs(expected - image).max() > 0.05
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_smooth_and_small_images():
    slope = torch.linspace(0.3, 0.6, 64).expand(1, 3, 64, 64)
    torch.testing.assert_close(sharpen(slope), slope, atol=1e-6, rtol=0)
    small = torch.rand(2, 3, 8, 9)
    assert sharpen(small).shape == small.shape and 0 <= sharpen(small).min() <= sharpen(small).max() <= 1
