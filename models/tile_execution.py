"""Runs an SR network on selected patches only: gather windows, one batched call, crop, scatter into the HR image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def tile_window(height: int, width: int, patch: int, halo: int) -> tuple[int, int]:
    """Height and width in LR pixels of the window in which a patch is computed: with its halo, inside the image."""
    return min(height, patch + 2 * halo), min(width, patch + 2 * halo)


def default_halo(network: nn.Module) -> int:
    """Halo in LR pixels with which tiles equal the dense run, or, where attention sees more than a neighbourhood
    (`radius` None), the reach of the convolutions: attention then sees the tile with its halo instead of the image."""
    return network.local_radius if network.radius is None else network.radius


def expand_mask(mask: torch.Tensor, cell: int, height: int, width: int) -> torch.Tensor:
    """Nearest upsampling of a patch mask (B, gh, gw) to pixels (B, 1, height, width), `cell` pixels a patch."""
    batch, rows, columns = mask.shape
    pixels = mask[:, None, :, None, :, None].expand(batch, 1, rows, cell, columns, cell)
    return pixels.reshape(batch, 1, rows * cell, columns * cell)[..., :height, :width]


def run_on_tiles(
    network: nn.Module,
    lr: torch.Tensor,
    mask: torch.Tensor,
    patch: int,
    halo: int | None,
    canvas: torch.Tensor,
    max_tiles: int = 4096,
) -> torch.Tensor:
    """Replace the selected patches of `canvas` by the network's output, all images of the batch in one call.

    A window never leaves the image: at the image border the network's own padding acts, exactly as in a dense run.
    With halo >= network.radius the result is that of the dense network; a network whose radius is None gives local
    semantics, see `default_halo`. An image whose windows would cover more pixels
    than the image has is run densely, so no image costs more than a dense run. That is decided image by image, hence a
    batch gives what its images give one by one.

    Args:
        network: SR network with `scale` and `radius` (`local_radius` where that is None).
        lr: LR images (B, 3, h, w).
        mask: bool (B, ceil(h / patch), ceil(w / patch)), true where the network shall run.
        patch: side of a patch in LR pixels.
        halo: LR pixels of real neighbours around a patch; None takes `default_halo`.
        canvas: HR images (B, 3, scale * h, scale * w). Its memory is reused for the result: pass a tensor you own.
        max_tiles: most windows in one call of the network, bounds the memory.

    Returns:
        HR images (B, 3, scale * h, scale * w) of the canvas' type.
    """
    halo = default_halo(network) if halo is None else halo
    height, width = lr.shape[-2:]
    window = tile_window(height, width, patch, halo)
    dense = mask.sum((1, 2)) * (window[0] * window[1]) >= height * width  # (B,)
    if dense.any():
        canvas = _run_dense(network, lr, mask, patch, canvas, dense)
    tiles = (mask & ~dense[:, None, None]).nonzero()  # (n, 3): image, row, column
    if len(tiles) == 0:
        return canvas
    bottom, right = mask.shape[1] * patch - height, mask.shape[2] * patch - width  # missing part of the last patches
    padding = (0, right * network.scale, 0, bottom * network.scale)
    padded = F.pad(canvas, padding) if bottom or right else canvas
    for chunk in tiles.split(max_tiles):
        _run_chunk(network, lr, chunk, patch, halo, window, padded, padding)
    return padded[..., : canvas.shape[-2], : canvas.shape[-1]]


def _run_dense(network, lr, mask, patch, canvas, dense):
    """Run the images marked in `dense` (B,) as a whole and paste their selected patches into the canvas."""
    if dense.all():
        sr = network(lr).to(canvas.dtype)
        return torch.where(expand_mask(mask, patch * network.scale, *sr.shape[-2:]), sr, canvas)
    images = dense.nonzero()[:, 0]
    canvas[images] = _run_dense(network, lr[images], mask[images], patch, canvas[images], dense[images])
    return canvas


def _run_chunk(network, lr, tiles, patch, halo, window, padded, padding):
    """Run the windows of `tiles` (n, 3) as one batch and write their patches into the padded canvas."""
    image, row, column = tiles.unbind(1)
    top = (row * patch - halo).clamp(0, lr.shape[2] - window[0])
    left = (column * patch - halo).clamp(0, lr.shape[3] - window[1])
    windows = lr.unfold(2, window[0], 1).unfold(3, window[1], 1)  # a view of all windows, nothing is copied
    sr = network(windows[image, :, top, left])  # (n, 3, scale * window)
    sr = F.pad(sr, padding) if any(padding) else sr
    cell = patch * network.scale
    patches = sr.unfold(2, cell, network.scale).unfold(3, cell, network.scale)
    own = torch.arange(len(tiles), device=lr.device)
    patches = patches[own, :, row * patch - top, column * patch - left]  # (n, 3, cell, cell)
    padded.unfold(2, cell, cell).unfold(3, cell, cell)[image, :, row, column] = patches.to(padded.dtype)
