"""Controllable Multi-Scale Rendering (CMSR; He & Jin 2024, arXiv:2404.16451, section 3.3).

Where the render MLP is hardly modulated an image is smooth: a coarse rendering, bilinearly enlarged, is as good there.
A table says, for a target scale S, up to which modulation strength rendering at scale s < S suffices, coarse to fine:
{S: {s: strength}}, with 1 for "everything else".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.capabilities import Table, Tables
from models.lmf.latent import Latent, Renderer
from models.lmf.queries import place_all, relative_cell, target_size
from utils.errors import UserError

CANDIDATES = (1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32)
TARGETS = (6, 12, 18)  # the authors build 2, 3 and 4 too, but up to TRAINED_SCALE every pixel is rendered
TOLERANCE = 2e-5  # mean squared error in [-1, 1]: 53 dB
BINS, BIN_STEP, BIN_HALF_WIDTH = 101, 0.005, 0.001  # of the strength


@dataclass(frozen=True)
class MultiscaleOutput:
    """What `render_multiscale` returns.

    Args:
        sr: SR images (B, 3, H, W).
        rendered_share: pixels rendered at all levels, divided by B * H * W; 1 is the cost of the full rendering.
    """

    sr: Tensor
    rendered_share: float


#################################################################################
#                                   Rendering                                   #
#################################################################################


def render_multiscale(network: Renderer, lr: Tensor, size: tuple[int, int] | None, tables: Tables) -> MultiscaleOutput:
    """Coarse to fine: enlarge the image so far, beginning with LR, and render what this level is the right one for.

    Where a coarse level renders nothing LR itself shows through, and enlarging mixes it into the neighbours: this needs
    a network that keeps the colours of LR, as a trained one does.

    Args:
        network: Renderer whose tables these are.
        lr: LR images (B, 3, h, w) in [0, 1].
        size: height and width of the result; None as in `LMF.forward`.
        tables: see the module.

    Raises:
        ValueError: no tables, or a size beyond x1 to x30.
    """
    lr_size = (lr.shape[-2], lr.shape[-1])
    size = target_size(lr_size, network.scale, size)
    scale = min(size[0] / lr_size[0], size[1] / lr_size[1])
    images, rendered = [], 0
    for image in lr.split(1):  # each image has its own pixels on each level
        latent = network.encode(image, relative_cell(size, lr_size, image))
        running = image
        for level, low, high in levels(tables, scale):
            running = F.interpolate(running, level_size(level, lr_size, size), mode="bilinear")
            rendered += render_level(network, latent, running, lr_size, low, high)
        images.append(running if running.shape[-2:] == size else F.interpolate(running, size, mode="bilinear"))
    return MultiscaleOutput(torch.cat(images), rendered / (len(lr) * size[0] * size[1]))


@torch.no_grad()
def rendered_share(network: Renderer, lr: Tensor, size: tuple[int, int] | None, tables: Tables) -> float:
    """`MultiscaleOutput.rendered_share` without rendering: the latent stage alone tells it.

    Args and Raises: see `render_multiscale`.
    """
    lr_size = (lr.shape[-2], lr.shape[-1])
    size = target_size(lr_size, network.scale, size)
    scale = min(size[0] / lr_size[0], size[1] / lr_size[1])
    rendered = 0
    for image in lr.split(1):
        strength = network.encode(image, relative_cell(size, lr_size, image)).strength()[0]
        for level, low, high in levels(tables, scale):
            sides = zip(level_size(level, lr_size, size), lr_size)
            rows, columns = (place_all(side, length, lr).nearest().bincount(minlength=length) for side, length in sides)
            pixels = rows[:, None] * columns  # of this level in each LR pixel
            chosen = (strength >= low) & (strength <= high)
            rendered += int(pixels[chosen[: lr_size[0], : lr_size[1]]].sum())
    return rendered / (len(lr) * size[0] * size[1])


def level_size(level: float | None, lr_size: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a level, of the target `size` where the level is None."""
    return size if level is None else (int(level * lr_size[0]), int(level * lr_size[1]))


def levels(tables: Tables, scale: float) -> list[tuple[float | None, float, float]]:
    """Levels for a target scale: (scale of the level, lowest and highest strength rendered there).

    None is the target itself. The table is that of the next larger scale, or the largest one.

    Raises:
        ValueError: there is no table.
    """
    if not tables:
        raise UserError("CMSR needs at least one table {target scale: {scale: strength}}; build one with build_table")
    target = min((s for s in tables if s >= scale), default=max(tables))
    chosen: list[tuple[float | None, float]] = [(s, t) for s, t in sorted(tables[target].items()) if s < scale]
    if not chosen or chosen[-1][1] < 1:
        chosen.append((None, 1.0))
    lows = [-torch.inf, *(t for _, t in chosen[:-1])]
    highs = [*(t for _, t in chosen[:-1]), torch.inf]
    return [(s, low, high) for (s, _), low, high in zip(chosen, lows, highs)]


def render_level(
    network: Renderer, latent: Latent, running: Tensor, lr_size: tuple[int, int], low: float, high: float
) -> int:
    """Overwrite the pixels of `running` (1, 3, H, W) whose LR pixel has a strength in [low, high]; returns how many."""
    height, width = running.shape[-2:]
    rows, columns = place_all(height, lr_size[0], running), place_all(width, lr_size[1], running)
    strength = latent.strength()[0]
    chosen = ((strength >= low) & (strength <= high))[rows.nearest()][:, columns.nearest()]  # (H, W)
    pixels = chosen.flatten().nonzero()[:, 0]
    cell = relative_cell((height, width), lr_size, running)
    for part in pixels.split(network.max_queries):
        y, x = part // width, part % width
        colours = network.render(latent, rows[y[None]], columns[x[None]], cell)  # (1, Q, 3)
        running[0, :, y, x] = colours[0].T.to(running.dtype)
    return len(pixels)


#################################################################################
#                               Building the table                              #
#################################################################################


@torch.no_grad()
def build_table(
    network: Renderer,
    images: Iterable[Tensor],
    scale: float,
    candidates: tuple[float, ...] = CANDIDATES,
    tolerance: float = TOLERANCE,
) -> Table:
    """Table for one target scale, measured on LR images: {s: strength, ..., scale: 1}.

    For every candidate s the image is rendered at s, enlarged, and compared with the full rendering, bin by bin of the
    strength, upwards to the first bin whose mean squared error exceeds the tolerance; the next candidate goes on from
    there. The threshold of s is the last bin that passed, of the image where it is lowest among those with a failing
    bin; never a strength at which no image passed. Candidates that add nothing are left out.

    Args:
        network: Renderer in evaluation mode.
        images: LR images (B, 3, h, w) in [0, 1]; the paper takes the DIV2K training set.
        scale: target scale.
        candidates: scales to try; those below `scale` count.
        tolerance: largest mean squared error of a bin, in [-1, 1].

    Raises:
        ValueError: no image.
    """
    candidates = tuple(s for s in sorted(candidates) if s < scale)
    singles = (image for batch in images for image in batch.split(1))
    scans = [_scan(network, image, scale, candidates, tolerance) for image in singles]
    if not scans:
        raise UserError("build_table: no image given")
    table, previous = {}, 0.0
    for s, column in zip(candidates, zip(*scans)):
        threshold = min((t for t, failed in column if failed), default=max(t for t, _ in column))
        if threshold > previous:
            table[s] = previous = threshold
    return table | {scale: 1.0}


def _scan(network, image, scale, candidates, tolerance) -> list[tuple[float, bool]]:
    """Of one image and every candidate: the last strength that passed (0: none), and whether a bin failed."""
    lr_size = (image.shape[-2], image.shape[-1])
    size = (round(scale * lr_size[0]), round(scale * lr_size[1]))
    cell = relative_cell(size, lr_size, image)
    latent = network.encode(image, cell)
    rows, columns = (place_all(side, lr, image) for side, lr in zip(size, lr_size))
    full = network.render_raster(latent, rows, columns, cell)
    strength = latent.strength()[0, rows.nearest()][:, columns.nearest()].flatten().double()
    number = (strength / BIN_STEP).round().long()
    counted = ((strength - BIN_STEP * number).abs() <= BIN_HALF_WIDTH) & (number < BINS)
    pixels = torch.bincount(number[counted], minlength=BINS)
    first, passed, result = 0, 0.0, []
    for candidate in candidates:
        coarse_size = level_size(candidate, lr_size, size)
        axes = (place_all(side, lr, image) for side, lr in zip(coarse_size, lr_size))
        coarse = network.render_raster(latent, *axes, relative_cell(coarse_size, lr_size, image))
        error = (2 * (F.interpolate(coarse, size, mode="bilinear") - full)).square().mean(1).flatten().double()
        sums = torch.bincount(number[counted], weights=error[counted], minlength=BINS)
        good = sums <= tolerance * pixels  # empty bins pass
        while first < BINS and good[first]:
            passed = BIN_STEP * first if pixels[first] else passed
            first += 1
        result.append((round(passed, 6), first < BINS))
    return result
