"""MATLAB's `imresize` (bicubic, antialiased) once more from its description, sample by sample: what utils/resize.py is
held to where no image of MATLAB's own is at hand.

For output sample j = 1, 2, ... of an axis of n samples, scaled by s: u = j / s + (1 - 1 / s) / 2 is its place among the
input samples 1 ... n; where s < 1 the kernel k(x) becomes s k(s x), 4 / s wide. The ceil(width) + 2 samples from
floor(u - width / 2) on are weighted by k(u - sample), divided by their sum. Beyond its ends the axis is mirrored, the
first and last sample repeated. The axis with the smaller factor comes first; 8-bit images are rounded after each axis.
"""

from __future__ import annotations

import math

import numpy as np


def keys(x: float) -> float:
    """Keys' cubic kernel with a = -1/2 (IEEE Transactions on Acoustics 29, 1981)."""
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0


def imresize(image: np.ndarray, scale: float) -> np.ndarray:
    """uint8 (H, W, C) -> uint8 (ceil(scale * H), ceil(scale * W), C)."""
    for axis in (0, 1):  # equal factors: rows first
        image = np.moveaxis(resize_lines(np.moveaxis(image, axis, 0), scale), 0, axis)
    return image


def resize_lines(lines: np.ndarray, scale: float) -> np.ndarray:
    """uint8 (n, ...) -> uint8 (ceil(scale * n), ...), see above."""
    n, shrink = len(lines), min(1.0, scale)
    mirror = [*range(n), *reversed(range(n))]
    width, result = 4 / shrink, []
    for j in range(1, math.ceil(scale * n - 1e-9) + 1):
        u = j / scale + (1 - 1 / scale) / 2
        samples = [math.floor(u - width / 2) + k for k in range(math.ceil(width) + 2)]
        weights = [shrink * keys(shrink * (u - sample)) for sample in samples]
        total = sum(
            weight * lines[mirror[(sample - 1) % (2 * n)]].astype(np.float64)
            for sample, weight in zip(samples, weights, strict=True)
        ) / sum(weights)
        # Half up; ties are common, and sums of floating-point numbers miss them by a hair.
        result.append(np.clip(np.floor(total + 0.5 + 1e-9), 0, 255).astype(np.uint8))
    return np.stack(result)
