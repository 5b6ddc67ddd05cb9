"""Tiles along one axis of an image: which pixels each of them owns, and which are computed for it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from utils.errors import UserError


@dataclass(frozen=True)
class Window:
    """One tile along one axis, in LR pixels.

    Args:
        start, end: of the tile.
        first, last: of what is computed for it, inside the image.
    """

    start: int
    end: int
    first: int
    last: int


def axis_windows(length: int, tile: int, halo: int, equal: bool = False) -> list[Window]:
    """Tiles that cover an axis, with up to `halo` real neighbours on each side.

    Args:
        length: LR pixels of the axis.
        tile: of a tile; the last one may be shorter.
        halo: neighbours; there are none beyond the border of the image.
        equal: all windows are equally long: those at the border reach further into the image.
    """
    size, windows = min(length, tile + 2 * halo), []
    for start in range(0, length, tile):
        end = min(start + tile, length)
        first, last = max(0, start - halo), min(length, end + halo)
        if equal:
            first = min(first, length - size)
            last = first + size
        windows.append(Window(start, end, first, last))
    return windows


@dataclass(frozen=True)
class Tile:
    """A window along one axis, and what becomes of it.

    Args:
        window: LR pixels that are computed.
        length: HR pixels that come out.
        inside: those of them that belong to the tile.
        target: where these go in the HR image.
    """

    window: slice
    length: int
    inside: slice
    target: slice


def axis_tiles(length: int, hr_length: int, tile: int, halo: int, equal: bool = False) -> list[Tile]:
    """Tiles along an axis of `length` LR and `hr_length` HR pixels.

    For a fractional scale tile and halo are rounded to LR pixels whose HR borders are whole pixels.

    Args:
        tile, halo, equal: see `axis_windows`.

    Raises:
        UserError: a scale without such tiles.
    """
    common = math.gcd(length, hr_length)
    step, grown = length // common, hr_length // common  # `step` LR pixels give `grown` HR pixels
    if step > tile:
        raise UserError(
            f"tiles of {tile} LR pixels do not fit {length} -> {hr_length} pixels, where only every {step}th LR pixel "
            "ends on a whole HR pixel; set tile to 0, or take a whole scale"
        )

    def scaled(pixels: int) -> int:
        return pixels // step * grown

    tiles = []
    for w in axis_windows(length, tile // step * step, -(-halo // step) * step, equal):
        inside = slice(scaled(w.start - w.first), scaled(w.end - w.first))
        target = slice(scaled(w.start), scaled(w.end))
        tiles.append(Tile(slice(w.first, w.last), scaled(w.last - w.first), inside, target))
    return tiles
