"""Windows that fade into each other, for networks whose output in one window does not fit that in the next.

Every tile is computed in a window of its own, at its place in the image, whatever else is computed: no windows are
merged. Across a border between tiles the weights of both run linearly from 0 to 1 and add up to 1 everywhere, so

    sr = base + sum over the selected tiles of weight * (output - base).

What a tile adds does not depend on the others: the same seed gives the same image whatever the mask selects. With all
tiles the base is gone; where a neighbour is not selected, the tile fades into the base.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from models.arbitrary_scale import super_resolve
from models.sr_network import SRNetwork
from models.tiling.windows import Tile, axis_tiles


@dataclass(frozen=True)
class FadingTile:
    """A tile along one axis.

    Args:
        start: LR pixel where its window begins.
        window: LR pixels that are computed.
        length: HR pixels that come out.
        inside: those of them that are used, the zone where the tile fades out included.
        target: where these go in the HR image.
        weight: float32, one number per HR pixel of `target`.
    """

    start: int
    window: slice
    length: int
    inside: slice
    target: slice
    weight: Tensor


def fading_tiles(length: int, hr_length: int, tile: int, halo: int, blend: int) -> list[FadingTile]:
    """Tiles along an axis of `length` LR and `hr_length` HR pixels, in windows of equal length.

    Args:
        tile, halo: see `axis_windows`; a halo shorter than `blend` is made as long.
        blend: LR pixels on each side of a border between tiles over which they fade into each other; at most half a
            tile.

    Raises:
        UserError: a scale without tiles, see `axis_tiles`.
    """
    blend = min(blend, tile // 2)
    tiles = axis_tiles(length, hr_length, tile, max(halo, blend), equal=True)
    whole, last = (t.target.stop - t.target.start for t in (tiles[0], tiles[-1]))
    margin = min(blend * hr_length // length, whole // 2, last)  # HR pixels; no three tiles at one place
    return [fading(t, margin, hr_length) for t in tiles]


def fading(tile: Tile, margin: int, hr_length: int) -> FadingTile:
    """The tile with `margin` more HR pixels on each side on which there is a neighbour."""
    before, after = (margin if tile.target.start else 0), (margin if tile.target.stop < hr_length else 0)
    target = slice(tile.target.start - before, tile.target.stop + after)
    inside = slice(tile.inside.start - before, tile.inside.stop + after)
    weight = torch.ones(target.stop - target.start)
    ramp = (torch.arange(2 * margin) + 0.5) / (2 * margin) if margin else weight[:0]
    if before:
        weight[: 2 * margin] *= ramp
    if after:
        weight[len(weight) - 2 * margin :] *= ramp.flip(0)
    return FadingTile(tile.window.start, tile.window, tile.length, inside, target, weight)


def continued(lr: Tensor, size: tuple[int, int], tile: int) -> tuple[Tensor, tuple[int, int]]:
    """LR images made larger below and on the right, by their border, so that tiles fit a fractional scale.

    At x2.6, 512 LR pixels become 1331, and only the last LR pixel ends on a whole HR pixel. 515 become 1339 by 13 / 5,
    where every fifth does, and no pixel is moved by more than half a pixel.

    Args:
        lr: LR images (B, 3, h, w).
        size: height and width of the result.
        tile: side of a tile in LR pixels.

    Returns:
        Images, and the size of their result, of which `size` is a part; as they were where nothing is to be gained.
    """
    sides = [grown(*lengths, tile) for lengths in zip(lr.shape[-2:], size, strict=True)]
    (height, hr_height), (width, hr_width) = sides
    missing = (0, width - lr.shape[-1], 0, height - lr.shape[-2])
    return F.pad(lr, missing, mode="replicate") if any(missing) else lr, (hr_height, hr_width)


def grown(length: int, hr_length: int, tile: int) -> tuple[int, int]:
    """LR and HR pixels of an axis that is continued, see `continued`."""
    for step in range(1, tile + 1) if length > tile else ():
        more = round(Fraction(hr_length * step, length))  # HR pixels of `step` LR pixels
        if abs(2 * (more * length - hr_length * step)) <= step:  # half a pixel at the far end
            steps = max(-(-length // step), -(-hr_length // more))
            return steps * step, steps * more
    return length, hr_length


def run_blended(
    network: SRNetwork,
    lr: Tensor,
    size: tuple[int, int],
    tile: int,
    halo: int | None,
    max_pixels: int,
    mask: Tensor | None = None,
    base: Tensor | None = None,
) -> Tensor:
    """SR images out of windows that fade into each other.

    Args:
        network: SR network.
        lr: LR images (B, 3, h, w).
        size: height and width of the result.
        tile: side of a tile in LR pixels.
        halo: LR pixels of real neighbours around a tile; None takes that of the network's capabilities.
        max_pixels: most LR pixels in one call.
        mask: bool (B, ceil(h / tile), ceil(w / tile)), which tiles; None: all.
        base: images (B, 3, *size) where there is no tile; may be None where all are selected.

    Returns:
        Images (B, 3, *size), in float32, or in the type of `base`.

    Raises:
        UserError: a scale without tiles, see `axis_tiles`.
    """
    can = network.capabilities
    halo = can.halo if halo is None else halo
    rows, columns = (fading_tiles(*lengths, tile, halo, can.blend) for lengths in zip(lr.shape[-2:], size, strict=True))
    if mask is None:
        mask = torch.ones(len(lr), len(rows), len(columns), dtype=torch.bool)
    sr = lr.new_zeros(len(lr), 3, *size, dtype=torch.float32) if base is None else base.float().clone()
    places = mask.nonzero().tolist()
    window = (rows[0].window.stop - rows[0].window.start) * (columns[0].window.stop - columns[0].window.start)
    most = max(1, max_pixels // window)
    for first in range(0, len(places), most):
        part = places[first : first + most]
        for (image, row, column), output in zip(part, _outputs(network, lr, part, rows, columns), strict=True):
            area = (image, slice(None), rows[row].target, columns[column].target)
            weight = torch.outer(rows[row].weight, columns[column].weight).to(sr.device)
            own = output[:, rows[row].inside, columns[column].inside].float()
            sr[area] += weight * (own if base is None else own - base[area].float())
    return sr if base is None else sr.to(base.dtype)


def _outputs(
    network: SRNetwork,
    lr: Tensor,
    places: Sequence[Sequence[int]],
    rows: Sequence[FadingTile],
    columns: Sequence[FadingTile],
) -> Tensor:
    """The network's output (n, 3, H, W) in the windows of the tiles at (image, row, column), in one call."""
    windows = torch.stack([lr[i, :, rows[r].window, columns[c].window] for i, r, c in places])
    origin = torch.tensor([[rows[r].start, columns[c].start] for _, r, c in places], device=lr.device)
    return super_resolve(network, windows, (rows[0].length, columns[0].length), origin)
