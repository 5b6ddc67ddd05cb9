"""One way to call both kinds of SR networks: forward(lr) of one scale, and forward(lr, size) of any size."""

from __future__ import annotations

import torch
from torch import Tensor

from models.capabilities import AnyScale, Capabilities
from models.sr_network import SRNetwork
from utils.errors import UserError
from utils.resize import cubic_matrix


def super_resolve(network: SRNetwork, lr: Tensor, size: tuple[int, int], origin: Tensor | None = None) -> Tensor:
    """SR images (B, 3, *size) of LR images (B, 3, h, w), not clamped.

    Args:
        network: SR network.
        lr: LR images.
        size: height and width of the result.
        origin: int64 (B, 2), where the LR images begin within larger ones; only stochastic networks look at it.

    Raises:
        ValueError: a fixed-scale network gives another size.
    """
    size = (int(size[0]), int(size[1]))
    place = {"origin": origin} if network.capabilities.stochastic and origin is not None else {}
    if network.capabilities.takes_size:
        return network(lr, size, **place)
    scale, (height, width) = network.scale, lr.shape[-2:]
    if (scale * height, scale * width) != size:
        asked = f"{height}x{width} -> {size[0]}x{size[1]}"
        raise UserError(
            f"a network for x{scale} cannot make {asked}; take scale {scale}, or an arbitrary-scale network"
        )
    return network(lr, **place)


def seeded(network: SRNetwork, seed: int) -> SRNetwork:
    """The network with noise of this seed; one without noise as it is."""
    return network.with_seed(seed) if network.capabilities.stochastic else network


class BicubicToSize(SRNetwork):
    """Bicubic interpolation (MATLAB's convention) to any size, as two matrix products; the row to beat."""

    capabilities = Capabilities(receptive_radius=2, scales=AnyScale(), as_quality=False)
    tail = None
    scale = None  # type: ignore[assignment]  # it has no factor of its own

    def forward(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        rows, columns = (
            torch.tensor(cubic_matrix(source, target, antialias=False), dtype=lr.dtype, device=lr.device)
            for source, target in zip(lr.shape[-2:], size, strict=True)
        )
        return rows @ (lr @ columns.T)
