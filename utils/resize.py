"""Bicubic resizing by the convention of MATLAB's `imresize` (Keys 1981, a = -0.5), as two matrix products."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.sparse import coo_array, csr_array


def cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -0.5, support [-2, 2]."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def _taps(in_size: int, out_size: int, antialias: bool) -> tuple[np.ndarray, np.ndarray]:
    """Input samples and weights behind each output sample, both (out_size, taps); a sample may occur twice."""
    if in_size < 1 or out_size < 1:
        raise ValueError(f"cannot resize {in_size} to {out_size} pixels: both sizes must be at least 1")
    scale = out_size / in_size
    shrink = min(scale, 1.0) if antialias else 1.0
    width = 4.0 / shrink
    centre = (np.arange(out_size) + 0.5) / scale - 0.5
    first = np.floor(centre - width / 2).astype(np.int64)
    taps = first[:, None] + np.arange(int(np.ceil(width)) + 2)
    weights = cubic(shrink * (centre[:, None] - taps))
    weights /= weights.sum(axis=1, keepdims=True)
    mirrored = taps % (2 * in_size)
    return np.where(mirrored < in_size, mirrored, 2 * in_size - 1 - mirrored), weights


@lru_cache(maxsize=64)
def cubic_matrix(in_size: int, out_size: int, antialias: bool = True) -> np.ndarray:
    """Matrix that resizes one axis: `out = cubic_matrix(n, m) @ signal`.

    Args:
        in_size: samples before, in pixels.
        out_size: samples after, in pixels.
        antialias: widen the kernel by the reduction factor when shrinking (MATLAB's default).

    Returns:
        float32 (out_size, in_size), read-only, rows sum to 1. Beyond the border the signal is mirrored, the edge sample
        repeated.

    Raises:
        ValueError: a size is below 1.
    """
    samples, weights = _taps(in_size, out_size, antialias)
    matrix = np.zeros((out_size, in_size))
    np.add.at(matrix, (np.arange(out_size)[:, None], samples), weights)
    matrix = matrix.astype(np.float32)
    matrix.setflags(write=False)
    return matrix


@lru_cache(maxsize=64)
def _sparse_matrix(in_size: int, out_size: int, antialias: bool) -> csr_array:
    """`cubic_matrix` without its zeros."""
    samples, weights = _taps(in_size, out_size, antialias)
    rows = np.repeat(np.arange(out_size), samples.shape[1])
    matrix = coo_array((weights.ravel(), (rows, samples.ravel())), shape=(out_size, in_size)).tocsr()
    matrix.eliminate_zeros()
    return matrix.astype(np.float32)


def _resize_axis(image: np.ndarray, axis: int, out_size: int, antialias: bool) -> np.ndarray:
    """Resize one of the first two axes of (H, W, C) to `out_size`; uint8 is rounded half up and clipped."""
    if image.shape[axis] == out_size:
        return image
    lines = np.moveaxis(image, axis, 0)
    flat = np.ascontiguousarray(lines, np.float64 if image.dtype == np.float64 else np.float32).reshape(len(lines), -1)
    # Sparse, not BLAS: one thread gives the same bits in every process, and many stall on a busy machine.
    out = _sparse_matrix(len(lines), out_size, antialias) @ flat
    if image.dtype == np.uint8:
        # Exact ties are common and float32 sums miss them by about 1e-4 either way, so the half lies a hair lower;
        # after clipping the cast rounds down.
        out = np.clip(out + np.float32(0.5 + 2**-10), 0, 255)
    return np.moveaxis(out.astype(image.dtype).reshape(out_size, *lines.shape[1:]), 0, axis)


def resize(image: np.ndarray, height: int, width: int, antialias: bool = True) -> np.ndarray:
    """Resize an image by bicubic interpolation.

    Args:
        image: (H, W, C), uint8 or floating point of any range.
        height: height of the result in pixels.
        width: width of the result in pixels.
        antialias: low-pass filter while shrinking (MATLAB's default).

    Returns:
        (height, width, C) of the same dtype, always a new array. As in MATLAB, the axis that shrinks most comes first
        (rows, where both do alike), and uint8 is rounded half up and clipped to 0..255 after each axis; floating point
        is left as it is and may overshoot the range of the input.

    Raises:
        ValueError: not three axes, an empty image, a size below 1, or another dtype.
    """
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"expected an image (H, W, C) that is not empty, got shape {image.shape}")
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"expected uint8 or floating point, got {image.dtype}; convert the image first")
    if height < 1 or width < 1:
        raise ValueError(f"cannot resize to {height}x{width}: height and width must be at least 1")
    if image.shape[:2] == (height, width):
        return image.copy()
    sizes = (height, width)
    for axis in sorted((0, 1), key=lambda axis: sizes[axis] / image.shape[axis]):
        image = _resize_axis(image, axis, sizes[axis], antialias)
    return np.ascontiguousarray(image)
