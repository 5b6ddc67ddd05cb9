"""Large images in bounded memory: encoded, denoised and decoded in three passes of overlapping, blended windows.

Blending three times keeps windows of the U-Net from seeing the seams of those of the encoder. The statistics of group
normalisation remain those of a window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from models.one_step_diffusion.parts import CELL

if TYPE_CHECKING:
    from models.one_step_diffusion.network import OneStepDiffusion

LARGEST = 64  # latent cells of a window: the size that Stable Diffusion knows; attention costs their fourth power
VARIANCE = 0.01  # of the blending weights, in squared sides of a window
Window = tuple[slice, slice]


def gaussian_weights(height: int, width: int, like: Tensor) -> Tensor:
    """exp(-(x - m)^2 / (2 * 0.01 * n^2)) in both axes, m = (n - 1) / 2 their middles; float32 (height, width)."""

    def axis(length: int) -> Tensor:
        place = torch.arange(length, dtype=torch.float32, device=like.device)
        return (-(place - (length - 1) / 2).square() / (2 * VARIANCE * length**2)).exp()

    return axis(height)[:, None] * axis(width)


def window_slices(length: int, window: int, stride: int) -> list[slice]:
    """Windows along an axis, the last one flush with its end."""
    if length <= window:
        return [slice(0, length)]
    starts = [*range(0, length - window, stride), length - window]
    return [slice(start, start + window) for start in starts]


def times(window: Window, factor: int) -> Window:
    """The same window on a grid that is `factor` times as fine."""
    rows, columns = (slice(side.start * factor, side.stop * factor) for side in window)
    return rows, columns


def blended(parts: Iterator[tuple[Window, Tensor]], size: tuple[int, int]) -> Tensor:
    """Windows (B, C, h, w) joined to float32 (B, C, *size) by Gaussian weights, one window at a time.

    Args:
        parts: place and content of windows that cover everything.
        size: height and width of the whole.
    """
    total = weight = None
    for (rows, columns), part in parts:
        if total is None or weight is None:
            total = part.new_zeros(*part.shape[:2], *size, dtype=torch.float32)
            weight = part.new_zeros(size, dtype=torch.float32)
        one = gaussian_weights(part.shape[-2], part.shape[-1], part)
        total[..., rows, columns] += part.float() * one
        weight[rows, columns] += one
    assert total is not None and weight is not None  # there is always a window
    return total.div_(weight)


def restore_tiled(network: OneStepDiffusion, lr: Tensor, size: tuple[int, int], tile: int, halo: int) -> Tensor:
    """SR images (B, 3, *size); the whole image is never in a network, only in memory.

    Args:
        network: in evaluation mode.
        lr: LR images (B, 3, h, w) in [0, 1].
        size: of the result.
        tile: distance of neighbouring windows in LR pixels, less where windows would exceed LARGEST cells; one that
            holds the image computes it whole.
        halo: LR pixels by which a window is larger on each side; neighbours overlap by twice as many.
    """
    factor = size[0] / lr.shape[-2] / CELL  # latent cells of an LR pixel
    overlap = min(math.ceil(2 * halo * factor), LARGEST // 2)
    window = min(math.ceil(tile * factor) + overlap, LARGEST)
    stride = max(1, window - overlap)
    reference = network.enlarged(lr, size)
    image = network.padded(reference)
    cells = (image.shape[-2] // CELL, image.shape[-1] // CELL)
    rows, columns = (window_slices(length, window, stride) for length in cells)
    windows: list[Window] = list(product(rows, columns))
    if len(windows) == 1 or tile >= max(lr.shape[-2:]):
        return network(lr, size)

    def each(run: Callable[[Tensor], Tensor], source: Tensor, fine: int, grown: int) -> Iterator[tuple[Window, Tensor]]:
        for place in windows:
            down, across = times(place, fine)
            yield times(place, grown), run(source[..., down, across])

    moments = blended(each(lambda part: torch.cat(network.posterior(part), 1), image, CELL, 1), cells)
    mean, deviation = moments.to(lr.dtype).chunk(2, 1)
    latent = network.sampled(mean, deviation, network.noise(mean))
    clean = blended(each(network.denoised, latent, 1, 1), cells).to(lr.dtype)
    result = blended(each(network.decoded, clean, 1, CELL), (image.shape[-2], image.shape[-1]))
    return network.finished(result, reference)
