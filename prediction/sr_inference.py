"""Super-resolves images with any SR network: whole or in tiles, once or averaged over their symmetries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from loading.load_sr import is_community_file, load_sr
from loading.published_weights import spec_text
from models.arbitrary_scale import super_resolve
from models.sr_network import SRNetwork
from models.tiling.whole import run_tiles
from models.tiling.windows import axis_tiles
from utils.convert import to_image, to_tensor
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

    def in_strips(self, network: SRNetwork, height: int, width: int) -> bool:
        """Whether `strips` makes an image of this size: it goes in tiles, set edge to edge."""
        can = network.capabilities
        return 0 < self.tile < max(height, width) and can.tiling != "own" and not can.blend

    @torch.no_grad()
    def strips(self, network: SRNetwork, image: np.ndarray, size: tuple[int, int]) -> Iterator[np.ndarray]:
        """The SR image of uint8 (h, w, 3) from top to bottom, uint8 (rows, size[1], 3) each, a row of tiles at a time:
        never is more of it there. The same as of `__call__` (with `ensemble` up to rounding).

        Raises:
            ValueError: see `__call__`, and NaN in the result.
        """
        halo, tile_alone = network.capabilities.halo if self.halo is None else self.halo, replace(self, tile=0)
        rows, columns = (axis_tiles(*lengths, self.tile, halo) for lengths in zip(image.shape, size))
        for row in rows:
            strip = np.empty((row.target.stop - row.target.start, size[1], 3), np.uint8)
            for column in columns:
                lr = to_tensor(image[row.window, column.window], self.device)
                sr = tile_alone(network, lr, (row.length, column.length))
                strip[:, column.target] = to_image(sr[..., row.inside, column.inside])
            yield strip


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
