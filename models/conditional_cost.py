"""MACs of conditional execution: what one LR image costs at a number of kept patches."""

from __future__ import annotations

from typing import Protocol

from models.execution import Execution
from models.masker import Masker, patch_grid
from models.sr_network import SRNetwork
from models.tiling.tile_plan import Geometry
from utils.errors import UserError
from utils.flops_counter import count_macs_at


class Conditional(Protocol):
    """A conditional front end as its costs see it; see `ConditionalSR`."""

    masker: Masker
    sr_fast: SRNetwork
    sr_quality: SRNetwork
    patch: int
    execution: Execution


def fast_share(conditional: Conditional, height: int, width: int) -> float:
    """MACs of masker and SR_Fast as a share of all MACs, SR_Quality everywhere, for an LR image of height x width."""
    fixed = count_macs_at(conditional.masker, height, width) + count_macs_at(conditional.sr_fast, height, width)
    return fixed / (fixed + count_macs_at(conditional.sr_quality, height, width))


def sr_macs(conditional: Conditional, height: int, width: int, kept_patches: float, masker: bool = True) -> int:
    """MACs that ConditionalSR.infer executes for one LR image, halos included, where no patches are merged.

    Merged patches share their halos, so it is an upper bound.

    Args:
        conditional: the system.
        height: LR pixels.
        width: LR pixels.
        kept_patches: patches on which SR_Quality runs, a number or a mean over images.
        masker: whether the policy runs the masker.

    Raises:
        ValueError: more patches than the image has.
    """
    rows, columns = patch_grid(height, width, conditional.patch)
    if not 0 <= kept_patches <= rows * columns:
        raise UserError(f"kept_patches is {kept_patches}, but {height}x{width} has {rows * columns} patches")
    quality = conditional.sr_quality
    halo, blend = conditional.execution.halo, quality.capabilities.blend
    halo = max(quality.capabilities.halo if halo is None else halo, blend)
    geometry = Geometry(height, width, conditional.patch, halo)
    densely = not blend and kept_patches * geometry.area(1, 1) >= height * width
    if densely:
        cost: float = count_macs_at(quality, height, width)
    else:
        cost = kept_patches * count_macs_at(quality, *geometry.window(1, 1)) if kept_patches else 0
    if kept_patches < rows * columns:
        cost += count_macs_at(conditional.sr_fast, height, width)
    cost += count_macs_at(conditional.masker, height, width) if masker else 0
    return round(cost)
