"""Super-resolves images with any SR network: whole or in tiles, once or averaged over their symmetries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from loading.load_sr import is_community_file, load_sr
from loading.published_weights import spec_text
from models.arbitrary_scale import super_resolve
from models.sr_network import SRNetwork
from models.tiling.whole import run_tiles
from utils.device import DTYPES
from utils.errors import UserError


@dataclass(frozen=True)
class SRInference:
    """How to run SR networks on whole images.

    Args:
        device: where the networks and images are.
        precision: fp32, or autocast to bf16 or fp16.
        tile: side in LR pixels of the tiles that an image is computed in, which bounds the memory; 0: no tiles.
        halo: LR pixels of real neighbours around a tile; None takes the network's own, see
            `Capabilities.halo`.
        ensemble: average over the eight symmetries of the square ("geometric self-ensemble", Lim et al. 2017).
    """

    device: torch.device
    precision: str = "fp32"
    tile: int = 0
    halo: int | None = None
    ensemble: bool = False

    @torch.no_grad()
    def __call__(self, network: SRNetwork, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """SR image (1, 3, *size), float32, not clamped, of an LR image (1, 3, h, w) in [0, 1].

        Raises:
            ValueError: a fixed-scale network cannot make this size, tiles do not fit a fractional scale (unless the
                network has its own), or the network does not compute in this precision.
        """
        if DTYPES[self.precision] not in network.capabilities.dtypes:
            raise UserError(f"{type(network).__name__} does not compute in {self.precision}; use fp32")
        with torch.autocast(self.device.type, DTYPES[self.precision], enabled=self.precision != "fp32"):
            if not self.ensemble:
                return self.once(network, lr, size).float()
            total = torch.zeros(1, lr.shape[1], *size, device=lr.device)
            for symmetry in range(8):
                turned = size[::-1] if symmetry & 4 else size
                total += inverse(self.once(network, dihedral(lr, symmetry), turned).float(), symmetry)
            return total / 8

    def once(self, network: SRNetwork, lr: Tensor, size: tuple[int, int]) -> Tensor:
        if self.tile == 0 or max(lr.shape[-2:]) <= self.tile:
            return super_resolve(network, lr, size)
        return run_tiles(network, lr, size, self.tile, self.halo)


def dihedral(image: Tensor, symmetry: int) -> Tensor:
    """One of the eight symmetries of the square, 0..7 (0 changes nothing), of images (..., H, W)."""
    if symmetry & 1:
        image = image.flip(-1)
    if symmetry & 2:
        image = image.flip(-2)
    return image.transpose(-1, -2) if symmetry & 4 else image


def inverse(image: Tensor, symmetry: int) -> Tensor:
    """What undoes `dihedral`."""
    image = image.transpose(-1, -2) if symmetry & 4 else image
    if symmetry & 2:
        image = image.flip(-2)
    return image.flip(-1) if symmetry & 1 else image


def load_sr_for(path: str | Path, scale: float | None) -> SRNetwork:
    """SR network of a weight file, on the CPU, in evaluation mode.

    Args:
        path: see `load_sr`.
        scale: the one wanted, which tells the networks of a published file apart; None takes the network's own.

    Raises:
        ValueError: it is for another scale.
        CheckpointError: see `load_sr`.
    """
    if scale is not None and is_community_file(path):
        network = load_sr(path, plain_scale(scale))
    else:
        network = load_sr(path)
    try:
        hr_size(network, 1, 1, scale)
    except ValueError as error:
        raise UserError(f"{path}: {spec_text(network.spec)}: {error}") from error
    return network


def plain_scale(scale: float) -> int | float:
    """4.0 -> 4; 2.5 stays."""
    return int(scale) if float(scale).is_integer() else scale


def hr_size(network: SRNetwork, height: int, width: int, scale: float | None) -> tuple[int, int]:
    """HR size for an LR image; None takes the scale that the network was built for.

    Raises:
        ValueError: another scale than a fixed-scale network has, or beyond those of an arbitrary-scale one.
    """
    if scale is None:
        scale = network.scale
    elif not network.capabilities.takes_size:
        if scale != network.scale:
            raise UserError(f"it is for x{network.scale}, not x{scale:g}; name its own scale, or take other weights")
    elif float(scale) not in network.capabilities.scales:
        raise UserError(f"it is for {network.capabilities.scales}, not x{scale:g}; name such a scale")
    return round(height * scale), round(width * scale)
