"""Arbitrary-scale SR of large images, tile by tile."""

from __future__ import annotations

import torch
from torch import Tensor

from models.lmf.latent import Renderer
from models.lmf.queries import Axis, place_all, relative_cell, target_size
from models.tiling.windows import Window, axis_windows


@torch.no_grad()
def super_resolve_tiled(network: Renderer, lr: Tensor, size: tuple[int, int] | None, tile: int, halo: int) -> Tensor:
    """SR images (B, 3, H, W), encoded and rendered in tiles; CMSR tables are not used.

    Every tile is computed with `halo` LR pixels of real neighbours and renders the HR pixels that lie in it, so tiles
    need no whole HR pixels at their borders. With a halo of at least the network's radius the result is that of the
    whole image.

    Args:
        network: LMF in evaluation mode.
        lr: LR images (B, 3, h, w) in [0, 1].
        size: (H, W); None is (round(scale * h), round(scale * w)).
        tile: side of a tile in LR pixels; rounded up to the encoder's multiple.
        halo: LR pixels around a tile, rounded up likewise.

    Raises:
        ValueError: a size beyond x1 to x30.
    """
    lr_size = (lr.shape[-2], lr.shape[-1])
    size = target_size(lr_size, network.scale, size)
    cell = relative_cell(size, lr_size, lr)
    multiple = network.encoder.multiple  # windows of attention stay where they are in the whole image
    tile, halo = (-(-length // multiple) * multiple for length in (tile, halo))
    sr = lr.new_empty(len(lr), 3, *size)
    rows, columns = (place_all(side, length, lr) for side, length in zip(size, lr_size))
    # Where tiles begin is asked on the CPU: no tile waits for the device.
    places = [place_all(side, length, torch.empty(0, dtype=lr.dtype)).nearest() for side, length in zip(size, lr_size)]
    down, across = (axis_windows(length, tile, halo) for length in lr_size)
    for high in down:
        own_rows, (top, bottom) = cut(rows, places[0], high)
        for wide in across:
            own_columns, (left, right) = cut(columns, places[1], wide)
            latent = network.encode(lr[..., high.first : high.last, wide.first : wide.last], cell)
            sr[..., top:bottom, left:right] = network.render_raster(latent, own_rows, own_columns, cell)
    return sr


def cut(axis: Axis, nearest: Tensor, window: Window) -> tuple[Axis, tuple[int, int]]:
    """The positions of an axis that lie in a tile, seen from its window, and their range in the SR image; `nearest` are
    the LR pixels in which they lie, on the CPU."""
    begin, end = (int((nearest < edge).sum()) for edge in (window.start, window.end))
    return axis[begin:end].moved(-window.first), (begin, end)
