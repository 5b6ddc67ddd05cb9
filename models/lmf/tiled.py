"""Arbitrary-scale SR of large images, tile by tile."""

from __future__ import annotations

import torch
from torch import Tensor

from models.lmf.network import LMF
from models.lmf.queries import Axis, place_all, relative_cell, target_size
from utils.errors import UserError


@torch.no_grad()
def super_resolve_tiled(
    network: LMF, lr: Tensor, size: tuple[int, int] | None = None, tile: int = 128, halo: int | None = None
) -> Tensor:
    """SR images (B, 3, H, W), encoded and rendered in tiles; CMSR tables are not used.

    Every tile is computed with `halo` LR pixels of real neighbours and renders the HR pixels that lie in it. With a
    halo of at least network.radius the result is that of the whole image.

    Args:
        network: LMF in evaluation mode.
        lr: LR images (B, 3, h, w) in [0, 1].
        size: (H, W); None is (round(scale * h), round(scale * w)).
        tile: side of a tile in LR pixels; rounded up to the encoder's multiple.
        halo: LR pixels around a tile, rounded up likewise; None takes network.radius.

    Raises:
        ValueError: a size beyond x1 to x30, or no halo for a network of unbounded reach.
    """
    halo = network.radius if halo is None else halo
    if halo is None:
        raise UserError("tiled SR: this network's reach is unbounded; give halo in LR pixels, for example 16")
    lr_size = lr.shape[-2:]
    size = target_size(lr_size, network.scale, size)
    cell = relative_cell(size, lr_size, lr)
    multiple = network.encoder.multiple  # windows of attention stay where they are in the whole image
    tile, halo = (-(-length // multiple) * multiple for length in (tile, halo))
    sr = lr.new_empty(len(lr), 3, *size)
    rows, columns = (place_all(side, length, lr) for side, length in zip(size, lr_size))
    for top in range(0, lr_size[0], tile):
        first_row, own_rows, (y, down) = cut(rows, top, tile, halo)
        for left in range(0, lr_size[1], tile):
            first_column, own_columns, (x, across) = cut(columns, left, tile, halo)
            window = lr[:, :, first_row : top + tile + halo, first_column : left + tile + halo]
            latent = network.encode(window, cell)
            sr[:, :, y:down, x:across] = network.render_raster(latent, own_rows, own_columns, cell)
    return sr


def cut(axis: Axis, start: int, tile: int, halo: int) -> tuple[int, Axis, tuple[int, int]]:
    """The part of an axis in the tile that begins at LR pixel `start`.

    Returns:
        First LR pixel of the tile's window, the tile's positions in the window, and their range in the SR image.
    """
    nearest = axis.nearest()
    begin, end = (int((nearest < edge).sum()) for edge in (start, start + tile))
    first = max(0, start - halo)
    return first, axis[begin:end].moved(-first), (begin, end)
