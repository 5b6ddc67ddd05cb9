"""Runs an SR network on whole images: in one call, or in tiles where an image is too large for one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from models.arbitrary_scale import super_resolve
from models.sr_network import SRNetwork
from models.tiling.blended import continued, run_blended
from models.tiling.windows import Tile, axis_tiles

LEAST_SIDE = 16  # LR pixels of a tile, however little memory there is


def run_tiles(network: SRNetwork, lr: Tensor, size: tuple[int, int], tile: int, halo: int | None = None) -> Tensor:
    """SR images (B, 3, *size) computed tile by tile; the memory that the network takes depends on the tile only.

    Windows end at the border of the image, so the network's own padding acts there as in a run on the whole image.

    Args:
        network: SR network; one with its own tiling does it itself.
        lr: LR images (B, 3, h, w).
        size: height and width of the result.
        tile: side of a tile in LR pixels.
        halo: LR pixels of real neighbours around a tile; None takes that of the network's capabilities.

    Raises:
        UserError: a scale without tiles, see `axis_tiles`, or a size that the network cannot make.
    """
    halo = network.capabilities.halo if halo is None else halo
    if network.capabilities.tiling == "own":
        return network.tiled(lr, size, tile, halo)
    if network.capabilities.blend:
        if max(lr.shape[-2:]) <= tile + 2 * halo:  # every window would be the whole image
            return super_resolve(network, lr, size)
        grown, grown_size = continued(lr, size, tile)
        return run_blended(network, grown, grown_size, tile, halo, max_pixels=1)[..., : size[0], : size[1]]
    rows, columns = (axis_tiles(*lengths, tile, halo) for lengths in zip(lr.shape[-2:], size, strict=True))
    return compose(network, lr, rows, columns, size)


def run_whole(network: SRNetwork, lr: Tensor, max_pixels: int, patch: int | None = None) -> Tensor:
    """The network's output on whole images, with at most about `max_pixels` LR pixels in one call.

    Images that are larger are computed in tiles with the exact halo, which takes more time and gives the same, or by
    the network's own tiling.

    Args:
        network: SR network with a whole `scale`; one with neither a finite receptive radius nor its own tiling
            gets every image in one call. One whose windows fade into each other is not the same in parts, only close.
        lr: LR images (B, 3, h, w).
        max_pixels: see TileOptions.
        patch: LR pixels; the result of a large image may be made up to whole patches, with arbitrary content, so that
            `run_on_tiles` need not copy it.

    Returns:
        HR images (B, 3, scale * h, scale * w), see `patch`.
    """
    height, width = lr.shape[-2:]
    can = network.capabilities
    if height * width <= max_pixels or (can.tiling == "overlap" and not can.blend):
        calls = lr.split(max(1, max_pixels // (height * width)))
        return network(lr) if len(calls) == 1 else torch.cat([network(part) for part in calls])
    # Where the halo alone fills the window, small parts would waste most of the time: they may be as large as it.
    side = max(int(max_pixels**0.5) - 2 * can.halo, 2 * can.halo, LEAST_SIDE)
    size = (height * network.scale, width * network.scale)
    if can.blend and can.tiling == "overlap":
        return run_blended(network, lr, size, side, can.halo, max_pixels)
    if can.tiling == "own":
        return torch.cat([network.tiled(image, size, side, can.halo) for image in lr.split(1)])
    # Equal windows: on a GPU every other size would cost the preparation of all kernels.
    rows, columns = (axis_tiles(*lengths, side, can.halo, equal=True) for lengths in zip(lr.shape[-2:], size))
    unit = (patch or 1) * network.scale
    room = (-(-size[0] // unit) * unit, -(-size[1] // unit) * unit)
    sr: Tensor | None = None
    for number, image in enumerate(lr.split(1)):
        part = compose(network, image, rows, columns, room)
        if len(lr) == 1:
            return part
        sr = part.new_empty(len(lr), *part.shape[1:]) if sr is None else sr
        sr[number] = part[0]
    assert sr is not None  # a batch has images
    return sr


def compose(
    network: SRNetwork, lr: Tensor, rows: Sequence[Tile], columns: Sequence[Tile], room: tuple[int, int]
) -> Tensor:
    """HR images (B, 3, *room) out of tiles, one call for each; beyond the tiles their content is arbitrary."""
    sr: Tensor | None = None
    for row in rows:
        for column in columns:
            part = super_resolve(network, lr[..., row.window, column.window], (row.length, column.length))
            sr = part.new_empty(*part.shape[:2], *room) if sr is None else sr
            sr[..., row.target, column.target] = part[..., row.inside, column.inside]
    assert sr is not None  # an image has tiles
    return sr
