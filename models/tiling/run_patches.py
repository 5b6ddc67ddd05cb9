"""Runs an SR network on selected patches only: gather windows, few batched calls, crop, scatter into the HR image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.device_constants import on_device
from models.sr_network import SRNetwork
from models.tiling.tile_plan import Geometry, Group, plan_tiles
from models.tiling.whole import run_whole
from utils.device import sent


@dataclass(frozen=True)
class TileOptions:
    """How tiles are run; none of it changes which patches are computed.

    Args:
        overhead: cost of one more call of the network, in LR pixels of computing time; merging trades it against halos.
        merge: join neighbouring patches to rectangles with one halo.
        max_pixels: most LR pixels in one call of the network, bounds the memory. Larger images are computed in parts.
    """

    overhead: float = 256.0
    merge: bool = True
    max_pixels: int = 1 << 18


DEFAULT = TileOptions()


def expand_mask(mask: Tensor, cell: int, height: int, width: int) -> Tensor:
    """Nearest upsampling of a patch mask (B, gh, gw) to pixels (B, 1, height, width), `cell` pixels a patch."""
    batch, rows, columns = mask.shape
    pixels = mask[:, None, :, None, :, None].expand(batch, 1, rows, cell, columns, cell)
    return pixels.reshape(batch, 1, rows * cell, columns * cell)[..., :height, :width]


def geometry_of(network: SRNetwork, lr: Tensor, patch: int, halo: int | None) -> Geometry:
    """Sizes of the tiling; halo None takes that of the network's capabilities."""
    height, width = lr.shape[-2:]
    return Geometry(height, width, patch, network.capabilities.halo if halo is None else halo)


def run_on_tiles(
    network: SRNetwork,
    lr: Tensor,
    mask: Tensor,
    patch: int,
    halo: int | None,
    canvas: Tensor,
    options: TileOptions = DEFAULT,
) -> Tensor:
    """Replace the selected patches of `canvas` by the network's output.

    A window never leaves the image: at the image border the network's own padding acts, exactly as in a dense run.
    With a halo of at least the network's radius the result is that of the dense network; one whose radius is None gives
    local semantics, see `Capabilities.halo`. An image whose windows would cost more than the image is run densely. All
    images share the calls, but what is merged or run densely is decided image by image, hence a batch gives what its
    images give one by one.

    Args:
        network: SR network with a whole `scale`.
        lr: LR images (B, 3, h, w).
        mask: bool (B, ceil(h / patch), ceil(w / patch)), true where the network shall run.
        patch: side of a patch in LR pixels.
        halo: LR pixels of real neighbours around a rectangle of patches; None takes that of its capabilities.
        canvas: HR images (B, 3, scale * h, scale * w), or larger where the last patches are whole (see `run_whole`).
            Its memory is reused for the result: pass a tensor you own.
        options: see TileOptions.

    Returns:
        HR images (B, 3, scale * h, scale * w) of the canvas' type.
    """
    geometry, scale = geometry_of(network, lr, patch, halo), network.scale
    image_part = (..., slice(geometry.height * scale), slice(geometry.width * scale))
    plan = plan_tiles(mask.cpu().numpy(), geometry, options.overhead, options.merge)
    if plan.dense.any():
        dense = sent(torch.from_numpy(plan.dense.nonzero()[0]), lr.device)
        sr = run_whole(network, lr[dense], options.max_pixels).to(canvas.dtype)
        pixels = expand_mask(mask[dense], patch * scale, sr.shape[-2], sr.shape[-1])
        if plan.dense.all():
            return torch.where(pixels, sr, canvas[image_part])
        canvas[image_part][dense] = torch.where(pixels, sr, canvas[image_part][dense])
    if not plan.groups:
        return canvas[image_part]
    padded = pad_to_patches(canvas, geometry, scale)
    cells = padded.unfold(2, patch * scale, patch * scale).unfold(3, patch * scale, patch * scale)
    for index, own in tile_outputs(network, lr, plan.groups, geometry, options.max_pixels):
        image, row, column = index.unbind(1)
        cells[image, :, row, column] = own.to(canvas.dtype)  # a view (B, 3, gh, gw, cell, cell)
    return padded[image_part]


def run_everywhere(
    network: SRNetwork, lr: Tensor, mask: Tensor, patch: int, halo: int | None, options: TileOptions = DEFAULT
) -> Tensor:
    """The network's output on every patch, as execution on tiles makes it; differentiable, for training.

    The selected patches are computed in the windows that `run_on_tiles` would use for this mask, the others in windows
    of their own kind: what they would have looked like, had the mask been the opposite.

    Args:
        network, lr, mask, patch, halo, options: as in `run_on_tiles`; max_pixels is not looked at.

    Returns:
        HR images (B, 3, scale * h, scale * w).
    """
    geometry = geometry_of(network, lr, patch, halo)
    rows, columns = geometry.grid
    host = mask.cpu()  # the one wait
    plans = [plan_tiles(part.numpy(), geometry, options.overhead, options.merge) for part in (host, ~host)]
    parts, order = [], []
    for plan, selected in zip(plans, (host, ~host), strict=True):
        for index, own in tile_outputs(network, lr, plan.groups, geometry, lr.numel()):
            parts.append(own)
            order.append(index)
        dense = torch.from_numpy(plan.dense.nonzero()[0])
        if len(dense):
            images = lr[sent(dense, lr.device)]
            own = to_cells(pad_to_patches(network(images), geometry, network.scale), patch * network.scale)
            index = selected[dense].nonzero()  # (n, 3), the image counted within `dense`
            place = sent(index, lr.device)
            parts.append(own[place[:, 0], place[:, 1], place[:, 2]])
            order.append(sent(torch.cat([dense[index[:, :1]], index[:, 1:]], 1), lr.device))
    image, row, column = torch.cat(order).unbind(1)
    place = torch.empty(len(lr) * rows * columns, dtype=torch.long, device=lr.device)
    place[(image * rows + row) * columns + column] = torch.arange(len(place), device=lr.device)
    cells = torch.cat(parts)[place]  # every patch once: (B * gh * gw, 3, cell, cell)
    cell = patch * network.scale
    sr = cells.view(len(lr), rows, columns, -1, cell, cell).permute(0, 3, 1, 4, 2, 5)
    sr = sr.reshape(len(lr), -1, rows * cell, columns * cell)
    return sr[..., : geometry.height * network.scale, : geometry.width * network.scale]


def tile_outputs(
    network: SRNetwork, lr: Tensor, groups: list[Group], geometry: Geometry, max_pixels: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Run the network on rectangles of patches, a few calls per shape.

    Yields:
        index (n, 3): image, row and column of n patches; and their HR cells (n, 3, cell, cell).
    """
    for group in groups:
        window = geometry.window(group.rows, group.columns)
        most = max(1, max_pixels // (window[0] * window[1]))
        index = sent(torch.from_numpy(group.index), lr.device)
        for part in index.split(chunk_sizes(len(index), most)):
            yield run_rectangles(network, lr, part, (group.rows, group.columns), geometry)


def chunk_sizes(count: int, most: int) -> list[int]:
    """`count` as a sum of few sizes, each at most `most`, out of 1, 2, ... 8, 12, 16, 24, 32, 48, ...

    Every new batch size costs the preparation of all kernels (on CPUs milliseconds, on GPUs a new graph), so sizes
    that depend on the image are composed of a small set.
    """
    sizes = []
    while count:
        size = min(count, most)
        if size > 8:
            power = 1 << (size.bit_length() - 1)
            size = power + power // 2 if size >= power + power // 2 else power
        sizes.append(size)
        count -= size
    return sizes


def run_rectangles(
    network: SRNetwork, lr: Tensor, tiles: Tensor, shape: tuple[int, int], geometry: Geometry
) -> tuple[Tensor, Tensor]:
    """One call of the network on rectangles `tiles` (n, 3) of rows x columns patches -> their (n * rows * columns, 3)
    patches and HR cells."""
    patch, scale, (rows, columns), window = geometry.patch, network.scale, shape, geometry.window(*shape)
    image, row, column = tiles.unbind(1)
    top = (row * patch - geometry.halo).clamp(0, geometry.height - window[0])
    left = (column * patch - geometry.halo).clamp(0, geometry.width - window[1])
    windows = lr.unfold(2, window[0], 1).unfold(3, window[1], 1)  # a view of all windows, nothing is copied
    sr = network(windows[image, :, top, left])  # (n, 3, scale * window)
    padding = (0, -geometry.width % patch * scale, 0, -geometry.height % patch * scale)  # makes partial patches whole
    sr = F.pad(sr, padding) if any(padding) else sr
    rectangle = (rows * patch * scale, columns * patch * scale)
    own = sr.unfold(2, rectangle[0], scale).unfold(3, rectangle[1], scale)
    each = torch.arange(len(tiles), device=lr.device)
    own = own[each, :, row * patch - top, column * patch - left]  # (n, 3, rows * cell, columns * cell)
    cells = to_cells(own, patch * scale).flatten(0, 2)
    inside = F.pad(torch.cartesian_prod(torch.arange(rows), torch.arange(columns)), (1, 0))  # no step along the images
    inside = on_device(inside, lr.device)  # (rows * columns, 3)
    return (tiles[:, None] + inside).flatten(0, 1), cells


def to_cells(images: Tensor, cell: int) -> Tensor:
    """(n, C, rows * cell, columns * cell) -> a view (n, rows, columns, C, cell, cell)."""
    return images.unfold(2, cell, cell).unfold(3, cell, cell).permute(0, 2, 3, 1, 4, 5)


def pad_to_patches(images: Tensor, geometry: Geometry, scale: int) -> Tensor:
    """HR images with their last, partial patches made whole; the images themselves where all are."""
    rows, columns = geometry.grid
    bottom = rows * geometry.patch * scale - images.shape[-2]
    right = columns * geometry.patch * scale - images.shape[-1]
    return F.pad(images, (0, right, 0, bottom)) if bottom or right else images
