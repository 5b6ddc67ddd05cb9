"""What generic code may know about an SR network: one frozen record, which every network carries as `capabilities`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch

from utils.errors import UserError

WHOLE_SCALES = (2, 3, 4)
EVERY_TYPE = (torch.float32, torch.bfloat16, torch.float16)

Scale = TypeVar("Scale", int, float)
Table = dict[float, float]
Tables = dict[float, Table]


@dataclass(frozen=True)
class AnyScale:
    """Factors of an arbitrary-scale network, whole or fractional.

    Args:
        lowest, highest: smallest and largest factor.
    """

    lowest: float = 1
    highest: float = math.inf

    def __contains__(self, scale: float) -> bool:
        return type(scale) in (int, float) and self.lowest <= scale <= self.highest

    def __str__(self) -> str:
        return f"a number from {self.lowest:g} to {self.highest:g}"


@dataclass(frozen=True)
class CoarseRendering:
    """The network renders smooth parts of large images coarsely, by tables that are measured on photographs.

    A table says for a target factor up to which strength of detail rendering at a smaller factor suffices:
    {target: {factor: strength}}. Such a network has three more methods: `build_table(images, scale, tolerance)`,
    `with_tables(tables)`, a copy that renders by them and shares the weights, and `rendered_share(lr, size)`.

    Args:
        beyond: factor up to which every pixel is rendered all the same.
        targets: factors that tables are made for by default.
        tolerance: largest mean squared error that tables allow by default, of images in [-1, 1].
    """

    beyond: float
    targets: tuple[float, ...]
    tolerance: float


@dataclass(frozen=True)
class Capabilities:
    """What an SR network can do and needs.

    Args:
        receptive_radius: LR pixels that the receptive field of one LR pixel's HR cell reaches beyond that pixel, exact;
            None where it is unbounded, tied to the place in the image (attention), or not known.
        local_receptive_radius: where `receptive_radius` is None: the halo in LR pixels that tiles take by default, for
            most networks the receptive radius of their convolutions alone.
        scales: factors that the network can be built for; with AnyScale it is called as forward(lr, size).
        tiling: how an image that is too large for one call is computed in tiles. "exact": with a halo of
            `receptive_radius` they equal the whole; "overlap": with a halo they are close to it; "own": by the
            network itself, which has `tiled(lr, size, tile, halo)`.
        blend: LR pixels over which neighbouring windows fade into each other, where what a network makes of one of them
            does not fit the next (diffusion); 0: they are set edge to edge. See models/tiling/blended.py.
        size_multiple: images are padded to multiples of it inside the network, in LR pixels.
        stochastic: it draws noise, a pure function of `seed` and of the place in the image (models/noise.py). It has
            `seed` and `with_seed(seed)`, a copy that shares the weights, and takes `origin`, int64 (B, 2): row and
            column in LR pixels of each image within a larger one. It is run as it is, never by a traced copy.
        steps: passes through the network that one image takes (diffusion).
        dtypes: types in which it computes.
        quantised: it computes in 8-bit integers, as it is or by the native int8 kernel with the same result; never
            traced, never trained.
        as_quality: it may be SR_Quality of a conditional system, which runs it on patches.
        shares_stem: it has `features`, its layers at LR resolution before the last, which a masker may share.
        features: it has `features(lr)`, (B, C, h, w) at LR resolution; without, they are what enters `tail`, see
            models/feature_maps.py.
        samples: it has `sample(lr, rows, columns, sizes)`, which colours single HR pixels, so it can be trained there.
        coarse: see CoarseRendering; None where it has nothing of the kind.
    """

    receptive_radius: int | None
    local_receptive_radius: int | None = None
    scales: tuple[int, ...] | AnyScale = WHOLE_SCALES
    tiling: Literal["exact", "overlap", "own"] = "exact"
    blend: int = 0
    size_multiple: int = 1
    stochastic: bool = False
    steps: int = 1
    dtypes: tuple[torch.dtype, ...] = EVERY_TYPE
    quantised: bool = False
    as_quality: bool = True
    shares_stem: bool = False
    features: bool = False
    samples: bool = False
    coarse: CoarseRendering | None = None

    def __post_init__(self):
        if self.receptive_radius is None and self.tiling == "exact":
            raise ValueError("without a finite receptive_radius tiles cannot be exact; use 'overlap' or 'own'")
        if self.blend > (self.local_receptive_radius or 0):
            raise ValueError("windows fade into each other within their halo: blend <= local_receptive_radius")

    @property
    def takes_size(self) -> bool:
        """Whether the network is called as forward(lr, size)."""
        return isinstance(self.scales, AnyScale)

    @property
    def halo(self) -> int:
        """LR pixels of real neighbours that tiles take by default: `receptive_radius`, with which tiles equal the whole
        image; else `local_receptive_radius`: attention then sees the tile with its halo instead of the image.

        Raises:
            UserError: the network tells neither.
        """
        halo = self.local_receptive_radius if self.receptive_radius is None else self.receptive_radius
        if halo is None:
            raise UserError("this SR network has no finite receptive field, so no exact halo; set the halo to a number")
        return halo

    @property
    def traceable(self) -> bool:
        """Whether a call is one fixed sequence of layers with one result, which can be traced, fused and recorded."""
        return self.steps == 1 and not self.stochastic and not self.quantised


def checked_scale(network: object, scale: Scale, scales: tuple[int, ...] | AnyScale = WHOLE_SCALES) -> Scale:
    """The scale, where it is among those that the network can be built for.

    Raises:
        UserError: it is not; the message names the network and the valid ones.
    """
    if scale not in scales:
        valid = scales if isinstance(scales, AnyScale) else f"one of {', '.join(map(str, scales))}"
        raise UserError(f"{type(network).__name__}: scale is {scale!r}; use {valid}")
    return scale
