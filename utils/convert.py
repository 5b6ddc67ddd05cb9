"""Images between NumPy and PyTorch: uint8 (H, W, 3) RGB, and float tensors in [0, 1]."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from utils.errors import UserError

GREY = 114  # of 255; the colour that Ultralytics pads with, which detectors know from training


def to_tensor(image: np.ndarray, device: torch.device | str) -> Tensor:
    """uint8 (h, w, 3) -> float32 (1, 3, h, w) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].to(device).float() / 255


def to_uint8(image: Tensor) -> np.ndarray:
    """(3, H, W), clamped to [0, 1] -> uint8 (H, W, 3)."""
    return (image.float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()


def to_image(sr: Tensor) -> np.ndarray:
    """(1, 3, H, W), clamped to [0, 1] -> uint8 (H, W, 3).

    Raises:
        UserError: a value is NaN, which would become black.
    """
    if sr.isnan().any():
        raise UserError("the network gives NaN; compute in fp32, or use other weights")
    return to_uint8(sr[0])
