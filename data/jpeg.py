"""JPEG compression of a batch on its device: baseline coding losses (ITU-T T.81), 4:2:0 chroma, a quality an image."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.device import sent

# Quantisation tables of ITU-T T.81, annex K.
LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
# JFIF: full-range YCbCr, here without the offset of 128 that level shift and Cb, Cr share.
TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


@lru_cache(maxsize=8)
def _constants(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """DCT matrix (8, 8), both tables (2, 8, 8), colour matrices (3, 3)."""
    position = torch.arange(8, dtype=torch.float64)
    dct = torch.cos((2 * position + 1) * position[:, None] * math.pi / 16) / 2
    dct[0] /= math.sqrt(2)
    tables = torch.tensor((LUMA, CHROMA))
    return tuple(sent(x.float(), device) for x in (dct, tables, torch.tensor(TO_YCC), torch.tensor(TO_RGB)))


def quantisation(quality: Tensor, device: torch.device) -> Tensor:
    """Tables (B, 2, 8, 8) of luma and chroma for qualities (B,) in 1..100, scaled as the IJG's library does."""
    quality = sent(quality.float(), device).round().clamp(1, 100)[:, None, None, None]
    factor = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    return ((_constants(device)[1] * factor + 50) / 100).floor().clamp(1, 255)


@torch.no_grad()
def jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """What a JPEG file of each image would decode to.

    Args:
        images: float32 (B, 3, H, W) in [0, 1], of any size.
        quality: (B,) in 1..100, as Pillow and libjpeg count it.

    Returns:
        float32 (B, 3, H, W) in [0, 1]; not rounded to 8 bit.
    """
    height, width = images.shape[-2:]
    _, _, to_ycc, to_rgb = _constants(images.device)
    tables = quantisation(quality, images.device)
    levels = (images.clamp(0, 1) * 255).round()
    levels = F.pad(levels, (0, -width % 16, 0, -height % 16), mode="replicate")
    ycc = torch.einsum("cd,bdhw->bchw", to_ycc, levels)
    luma = _quantise_blocks(ycc[:, :1] - 128, tables[:, :1]) + 128
    chroma = _quantise_blocks(F.avg_pool2d(ycc[:, 1:], 2), tables[:, 1:])
    # The triangle filter with which libjpeg enlarges chroma.
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear")
    rgb = torch.einsum("cd,bdhw->bchw", to_rgb, torch.cat([luma, chroma], 1))
    return rgb[..., :height, :width].clamp(0, 255) / 255


def _quantise_blocks(planes: Tensor, tables: Tensor) -> Tensor:
    """DCT of 8x8 blocks, rounding to multiples of the table, and back; planes (B, c, H, W), tables (B, 1, 8, 8)."""
    batch, channels, height, width = planes.shape
    dct = _constants(planes.device)[0]
    blocks = planes.reshape(batch, channels, height // 8, 8, width // 8, 8).transpose(3, 4)  # (B, c, rows, cols, 8, 8)
    table = tables[:, :, None, None]
    blocks = ((dct @ blocks @ dct.T) / table).round() * table
    return (dct.T @ blocks @ dct).transpose(3, 4).reshape(batch, channels, height, width)
