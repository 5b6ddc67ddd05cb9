"""The masker on images of any size: its logits are few, what it computes on the way is not."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.tiling.windows import axis_windows

RADIUS = 16  # LR pixels that the masker's convolutions (7) and a shared stem see beyond a patch, and some to spare


def masker_logits(masker: nn.Module, lr: Tensor, patch: int, max_pixels: int) -> Tensor:
    """Logits (B, 2, gh, gw) of LR images (B, 3, h, w), with about `max_pixels` LR pixels in one call.

    The same as in one call, up to rounding: windows begin where patches do, with one more patch on each side for the
    masker's look at the neighbours, and what its convolutions see beyond that. (Where 4 does not divide the side of a
    patch, its features are pooled over cells that lie a little differently.)

    Args:
        masker: (B, 3, h, w) -> logits.
        patch: side of a patch in LR pixels.
    """
    height, width = lr.shape[-2:]
    if height * width <= max_pixels:
        return masker(lr)
    halo = 1 + -(-RADIUS // patch)  # in patches, as all below
    side = max(int(max_pixels**0.5) // patch - 2 * halo, 1)
    rows, columns = (axis_windows(-(-length // patch), side, halo) for length in (height, width))
    strips = []
    for row in rows:
        cells = []
        for column in columns:
            window = lr[..., row.first * patch : row.last * patch, column.first * patch : column.last * patch]
            inside = slice(row.start - row.first, row.end - row.first)
            across = slice(column.start - column.first, column.end - column.first)
            cells.append(masker(window)[:, :, inside, across])
        strips.append(torch.cat(cells, -1))
    return torch.cat(strips, -2)
