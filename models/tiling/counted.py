"""SR_Quality on patches whose number is settled: which patches they are is known to the device alone.

Every shape follows from numbers, so nothing waits for the device and a CUDA graph can hold the whole of it. Each patch
has a window of its own: merging windows would need to know where patches are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.device_constants import on_device
from models.sr_network import SRNetwork
from models.tiling.run_patches import chunk_sizes, expand_mask, geometry_of, pad_to_patches, run_rectangles
from models.tiling.tile_plan import Geometry
from models.tiling.whole import run_whole

BUCKETS = (1, 2, 4, 6, 8, 12, 16)  # sixteenths of all patches


@dataclass(frozen=True)
class PatchNumbers:
    """What is run of a batch.

    Args:
        dense: images that are run as a whole, where windows would cost more.
        windows: patches of the other images together; the last one is repeated where there are fewer.
        everything: all patches of all images: nothing of SR_Fast would be seen.
    """

    dense: tuple[bool, ...]
    windows: int
    everything: bool


def settle_numbers(counts: Sequence[int], geometry: Geometry, exact: bool = True) -> PatchNumbers:
    """What to run for so many patches in each image.

    Args:
        counts: selected patches of each image.
        geometry: of the images.
        exact: false rounds the windows up to one of a few numbers, so that few graphs serve every mask.
    """
    patches, whole = geometry.grid[0] * geometry.grid[1], geometry.height * geometry.width
    dense = tuple(count == patches or count * geometry.area(1, 1) >= whole for count in counts)
    windows = sum(count for count, run in zip(counts, dense) if not run)
    if windows and not exact:
        sizes = (-(-patches * len(counts) * sixteenths // 16) for sixteenths in BUCKETS)
        windows = next(size for size in sizes if size >= windows)
    return PatchNumbers(dense, windows, all(count == patches for count in counts))


def run_counted(
    network: SRNetwork,
    lr: Tensor,
    mask: Tensor,
    numbers: PatchNumbers,
    patch: int,
    halo: int | None,
    canvas: Tensor,
    max_pixels: int,
) -> Tensor:
    """Replace the selected patches of `canvas` by the network's output, as `run_on_tiles` without merging.

    Args:
        numbers: of this mask, see `settle_numbers`.
        network, lr, mask, patch, halo, canvas: as in `run_on_tiles`.
        max_pixels: see TileOptions.
    """
    geometry, scale = geometry_of(network, lr, patch, halo), network.scale
    image_part = (..., slice(geometry.height * scale), slice(geometry.width * scale))
    if any(numbers.dense):
        dense = on_device(torch.tensor([row for row, run in enumerate(numbers.dense) if run]), lr.device)
        sr = run_whole(network, lr[dense], max_pixels).to(canvas.dtype)
        pixels = expand_mask(mask[dense], patch * scale, sr.shape[-2], sr.shape[-1])
        if all(numbers.dense):
            return torch.where(pixels, sr, canvas[image_part])
        canvas[image_part][dense] = torch.where(pixels, sr, canvas[image_part][dense])
        mask = mask & on_device(~torch.tensor(numbers.dense), lr.device)[:, None, None]
    if not numbers.windows:
        return canvas[image_part]
    padded, cell = pad_to_patches(canvas, geometry, scale), patch * scale
    cells = padded.unfold(2, cell, cell).unfold(3, cell, cell)  # a view (B, 3, gh, gw, cell, cell)
    window = geometry.window(1, 1)
    sizes = chunk_sizes(numbers.windows, max(1, max_pixels // (window[0] * window[1])))
    for tiles in chosen_patches(mask, numbers.windows).split(sizes):
        index, own = run_rectangles(network, lr, tiles, (1, 1), geometry)
        image, row, column = index.unbind(1)
        cells[image, :, row, column] = own.to(canvas.dtype)
    return padded[image_part]


def chosen_patches(mask: Tensor, number: int) -> Tensor:
    """int64 (number, 3): image, row and column of the patches of a bool mask (B, gh, gw), which has at most so many and
    at least one; the last one is repeated."""
    flat = mask.flatten()
    order = flat.to(torch.uint8).argsort(descending=True, stable=True)
    place = torch.minimum(torch.arange(number, device=mask.device), flat.sum() - 1)
    chosen, (rows, columns) = order[place], mask.shape[1:]
    image, inside = chosen // (rows * columns), chosen % (rows * columns)
    return torch.stack([image, inside // columns, inside % columns], 1)
