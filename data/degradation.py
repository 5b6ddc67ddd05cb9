"""How low-resolution images are made from high-resolution ones."""

from __future__ import annotations

import numpy as np

from utils.errors import UserError
from utils.resize import resize

LR_PROTOCOLS = {
    "bicubic": "LR = HR shrunk by antialiased bicubic interpolation (MATLAB imresize, a = -0.5), rounded to 8 bit",
    "folder": "LR = images read from a separate folder, as they are",
    "native": "LR = the images of the data set themselves; no HR exists",
}


def degrade_bicubic(hr: np.ndarray, scale: int) -> np.ndarray:
    """Shrink an image by an integer factor, as MATLAB's `imresize(hr, 1 / scale)` does.

    A height or width that is no multiple of `scale` is first padded at the bottom and the right by repeating the edge.

    Args:
        hr: uint8 (H, W, C).
        scale: reduction factor, at least 1.

    Returns:
        uint8 (ceil(H / scale), ceil(W / scale), C), a new array.

    Raises:
        ValueError: scale below 1, or not an 8-bit image.
    """
    if scale < 1:
        raise UserError(f"scale must be at least 1, got {scale}")
    if hr.dtype != np.uint8 or hr.ndim != 3:
        raise UserError(f"expected uint8 (H, W, C), got {hr.dtype} {hr.shape}")
    height, width = -(-hr.shape[0] // scale), -(-hr.shape[1] // scale)
    bottom, right = height * scale - hr.shape[0], width * scale - hr.shape[1]
    if bottom or right:
        hr = np.pad(hr, ((0, bottom), (0, right), (0, 0)), mode="edge")
    return resize(hr, height, width)
