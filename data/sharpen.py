"""Unsharp masking as Real-ESRGAN sharpens its ground truth (Wang et al. 2021, arXiv:2107.10833, section 3.3)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from utils.device import sent

SIDE = 51  # pixels of the Gaussian
SIGMA = 0.3 * ((SIDE - 1) / 2 - 1) + 0.8  # 8.0: OpenCV's deviation for a kernel of this side
WEIGHT = 0.5
THRESHOLD = 10 / 255


@lru_cache(maxsize=4)
def _line(device: torch.device) -> Tensor:
    place = np.arange(SIDE) - SIDE // 2
    kernel = np.exp(-(place**2) / (2 * SIGMA**2))
    return sent(torch.tensor(kernel / kernel.sum(), dtype=torch.float32), device)


def gaussian_blur(images: Tensor) -> Tensor:
    """Images (B, C, H, W) under a Gaussian of 51 pixels; mirrored at the border, which small images repeat."""
    kernel, channels = _line(images.device), images.shape[1]
    for axis in (2, 3):
        reach = SIDE // 2
        pad = (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0)
        wide = F.pad(images, pad, mode="reflect" if images.shape[axis] > reach else "replicate")
        shape = (channels, 1, SIDE, 1) if axis == 2 else (channels, 1, 1, SIDE)
        weight = (kernel[:, None] if axis == 2 else kernel).expand(shape)
        images = F.conv2d(wide, weight, groups=channels)
    return images


@torch.no_grad()
def sharpen(images: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] plus half of their detail, where it exceeds 10 of 255 levels, softly masked."""
    detail = images - gaussian_blur(images)
    mask = gaussian_blur((detail.abs() > THRESHOLD).float())
    sharp = (images + WEIGHT * detail).clamp(0, 1)
    return images + mask * (sharp - images)
