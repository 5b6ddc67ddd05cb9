"""Gaussian noise that is a pure function of a seed and of the place in the image.

A window of an image gets the noise that it has within the whole image, whatever is computed beside it and in which
order: tiles fit together, and a mask decides which patches are made, never what is in them. No state is kept, nothing
of the image's size is allocated, and CPUs and GPUs draw the same numbers up to rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

WORD = 0xFFFFFFFF


def mix(x: Tensor) -> Tensor:
    """A bijection of the 32-bit integers (in int64) that spreads every bit over all others ("lowbias32")."""
    x = (x ^ (x >> 16)) * 0x7FEB352D & WORD
    x = (x ^ (x >> 15)) * 0x846CA68B & WORD
    return x ^ (x >> 16)


def normal_field(
    seed: int, draw: int, channels: int, origin: Tensor, size: tuple[int, int], device: torch.device | str = "cpu"
) -> Tensor:
    """Standard normal numbers at `size` cells from `origin` on.

    Args:
        seed: from 0; another one gives another field.
        draw: number of the draw, from 0: the steps of a diffusion draw one each.
        channels: of the field.
        origin: int64 (B, 2), row and column of every image's first cell in the field, from 0.
        size: rows and columns.
        device: of the result.

    Returns:
        float32 (B, channels, *size), by the transform of Box and Muller (1958).
    """
    channel = torch.arange(channels, device=device)
    origin = origin.to(device)
    key = torch.zeros((), dtype=torch.int64, device=device)
    for word in (seed & WORD, seed >> 32 & WORD, draw):
        key = mix(key + word & WORD)
    channel = mix(key ^ mix(channel + 1))  # (C,)
    rows = origin[:, :1] + torch.arange(size[0], device=device)  # (B, H)
    columns = origin[:, 1:] + torch.arange(size[1], device=device)  # (B, W)
    # Rows and columns are mixed before they meet: no row is another one shifted.
    lines = mix(channel[:, None] ^ mix(rows & WORD)[:, None])  # (B, C, H)
    first = mix(lines[..., None] ^ mix((columns + 0x5BD1E995) & WORD)[:, None, None])  # (B, C, H, W)
    second = mix(first ^ 0x3C6EF372)
    radius = (-2 * ((first.double() + 0.5) / (WORD + 1)).log()).sqrt()
    return (radius * (second.double() * (2 * torch.pi / (WORD + 1))).cos()).float()
