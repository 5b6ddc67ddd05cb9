"""Super-resolves images with any SR network: whole or in tiles, once or averaged over their symmetries."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from loading.load import is_community_file, load_sr
from loading.published_weights import describe
from models.arbitrary_scale import super_resolve, takes_size
from models.lmf.network import LMF
from models.lmf.tiled import super_resolve_tiled
from utils.device import DTYPES
from utils.errors import UserError

HALO_OF_UNKNOWN = 32  # LR pixels, for networks that see the whole image or do not tell


@dataclass(frozen=True)
class Upscaler:
    """How to run SR networks on whole images.

    Args:
        device: where the networks and images are.
        precision: fp32, or autocast to bf16 or fp16.
        tile: side in LR pixels of the tiles that an image is computed in, which bounds the memory; 0: no tiles.
        halo: LR pixels of real neighbours around a tile; None takes the network's receptive field, with which the
            result is that of the whole image, or 32 where the network has no known one.
        ensemble: average over the eight symmetries of the square ("geometric self-ensemble", Lim et al. 2017).
    """

    device: torch.device
    precision: str = "fp32"
    tile: int = 0
    halo: int | None = None
    ensemble: bool = False

    @torch.no_grad()
    def __call__(self, network: nn.Module, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """SR image (1, 3, *size), float32, not clamped, of an LR image (1, 3, h, w) in [0, 1].

        Raises:
            ValueError: a fixed-scale network cannot make this size, or tiles do not fit a fractional scale of another
                network than LMF's.
        """
        with torch.autocast(self.device.type, DTYPES[self.precision], enabled=self.precision != "fp32"):
            if not self.ensemble:
                return self.once(network, lr, size).float()
            total = torch.zeros(1, lr.shape[1], *size, device=lr.device)
            for symmetry in range(8):
                turned = size[::-1] if symmetry & 4 else size
                total += inverse(self.once(network, dihedral(lr, symmetry), turned).float(), symmetry)
            return total / 8

    def once(self, network: nn.Module, lr: Tensor, size: tuple[int, int]) -> Tensor:
        if self.tile == 0 or max(lr.shape[-2:]) <= self.tile:
            return super_resolve(network, lr, size)
        halo = halo_of(network) if self.halo is None else self.halo
        if isinstance(network, LMF):  # its tiles need no whole HR pixels at their borders
            return super_resolve_tiled(network, lr, size, self.tile, halo)
        return run_tiles(network, lr, size, self.tile, halo)


def halo_of(network: nn.Module) -> int:
    """Receptive field of a network in LR pixels to each side.

    Where attention sees the whole image that of its convolutions, or 32 where it tells none.
    """
    reaches = (getattr(network, name, None) for name in ("radius", "local_radius"))
    return next((math.ceil(reach) for reach in reaches if reach is not None), HALO_OF_UNKNOWN)


@dataclass(frozen=True)
class Span:
    """One tile along one axis.

    Args:
        window: LR pixels that are computed.
        length: HR pixels that come out.
        inside: those of them that belong to the tile.
        target: where these go in the HR image.
    """

    window: slice
    length: int
    inside: slice
    target: slice


def run_tiles(network: nn.Module, lr: Tensor, size: tuple[int, int], tile: int, halo: int) -> Tensor:
    """SR image (1, 3, *size) computed tile by tile; the memory that the network takes depends on the tile only.

    Windows end at the border of the image, so the network's own padding acts there as in a run on the whole image. For
    a fractional scale tile and halo are rounded to LR pixels whose HR borders are whole pixels.

    Raises:
        ValueError: a scale without such tiles.
    """
    rows, columns = (axis_tiles(*lengths, tile, halo) for lengths in zip(lr.shape[-2:], size, strict=True))
    sr = None
    for row in rows:
        for column in columns:
            part = super_resolve(network, lr[..., row.window, column.window], (row.length, column.length))
            if sr is None:
                sr = part.new_empty(*part.shape[:2], *size)
            sr[..., row.target, column.target] = part[..., row.inside, column.inside]
    return sr


def axis_tiles(length: int, hr_length: int, tile: int, halo: int) -> list[Span]:
    """Tiles along one axis of `length` LR and `hr_length` HR pixels. Raises ValueError as `run_tiles`."""
    common = math.gcd(length, hr_length)
    step, grown = length // common, hr_length // common  # `step` LR pixels give `grown` HR pixels
    if step > tile:
        raise UserError(
            f"tiles of {tile} LR pixels do not fit {length} -> {hr_length} pixels, where only every {step}th LR pixel "
            "ends on a whole HR pixel; set tile to 0, or take a whole scale"
        )
    tile, halo = tile // step * step, -(-halo // step) * step

    def scaled(pixels: int) -> int:
        return pixels // step * grown

    spans = []
    for start in range(0, length, tile):
        end = min(start + tile, length)
        first, last = max(0, start - halo), min(length, end + halo)
        inside = slice(scaled(start - first), scaled(end - first))
        spans.append(Span(slice(first, last), scaled(last - first), inside, slice(scaled(start), scaled(end))))
    return spans


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


def load_sr_for(path: str | Path, scale: float | None) -> nn.Module:
    """SR network of a weight file, on the CPU, in evaluation mode.

    Args:
        path: see `load_sr`.
        scale: the one wanted, which tells the networks of a published file apart; None takes the network's own.

    Raises:
        ValueError: it is for another scale.
        CheckpointError: see `load_sr`.
    """
    several = scale is not None and is_community_file(path)
    network = load_sr(path, plain_scale(scale)) if several else load_sr(path)
    try:
        target_size(network, 1, 1, scale)
    except ValueError as error:
        raise UserError(f"{path}: {describe(network.spec)}: {error}") from error
    return network


def plain_scale(scale: float) -> int | float:
    """4.0 -> 4; 2.5 stays."""
    return int(scale) if float(scale).is_integer() else scale


def target_size(network: nn.Module, height: int, width: int, scale: float | None) -> tuple[int, int]:
    """HR size for an LR image; None takes the scale that the network was built for.

    Raises:
        ValueError: another scale than a fixed-scale network has.
    """
    if scale is None:
        scale = network.scale
    elif not takes_size(network) and scale != network.scale:
        raise UserError(f"it is for x{network.scale}, not x{scale:g}; name its own scale, or take other weights")
    return round(height * scale), round(width * scale)
