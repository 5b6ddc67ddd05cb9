"""Codecs between images and the wavelet codes that are diffused: V1 ... V5.

All have `encode(image) -> (z, aux)` and `decode(z, aux) -> image`. A code z (B, channels, H / 2^levels, W / 2^levels)
holds its bands one after the other, coarsest first, each with all colours: [LL, LH, HL, HH, finer LH, ...]. What a
codec leaves out of the code is `aux`; a super-resolved image takes that of its LR image. Nothing is kept between calls,
so no image can get the detail of another one.

    codec  code (two levels, 3 colours)                                channels  perfect code gives
    v1     LL                                                          3         LR's own detail
    v2     all bands of the coarsest level                             12        LR's own fine detail
    v3     v2 and the finer bands, resized by area and by bicubic      21        finer bands blurred
    v4     v3, resized by convolutions that learn                      21        finer bands less blurred
    v5     v2 and the finer bands, their pixels in channels            48        the image, exactly

Every channel is standardised with its mean and deviation in the training images: of an orthonormal transform LL alone
has 99 % of the variance, so an unweighted error sees no detail, and noise of one strength drowns it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.difiisr_dwt.dwt import checked_wavelet, decompose, reconstruct
from utils.errors import UserError

COLOURS = 3
BANDS = 3  # of detail in a level
Code = tuple[Tensor, list[Tensor]]


class BandCodec(nn.Module):
    """Base of the codecs: transform and standardisation.

    Args:
        wavelet: haar, db2 or bior1.3.
        levels: of the transform, 1 to 3.
        channels: of a code.

    Attributes:
        lossless: whether decode(encode(x)) is x without help of `aux`.
    """

    mean: Tensor
    std: Tensor
    lossless: bool = False

    def __init__(self, wavelet: str, levels: int, channels: int):
        super().__init__()
        self.wavelet, self.levels, self.channels = checked_wavelet(wavelet), checked_levels(levels), channels
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("std", torch.ones(channels, 1, 1))

    def encode(self, image: Tensor) -> Code:
        """Image (B, 3, H, W) in [-1, 1], sides multiples of 2^levels, to a standardised code and what it leaves out."""
        z, aux = self.pack(*decompose(image, self.wavelet, self.levels))
        return (z - self.mean) / self.std, aux

    def decode(self, z: Tensor, aux: list[Tensor]) -> Tensor:
        """The inverse of `encode`, as far as there is one; gradients reach `z`. Not clamped."""
        low, details = self.unpack(z * self.std + self.mean, aux)
        return reconstruct(low, details, self.wavelet)

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Mean and deviation (channels,) of the codes of the training images, as `pack` makes them."""
        self.mean.copy_(mean[:, None, None])
        self.std.copy_(std[:, None, None])

    def pack(self, low: Tensor, details: list[Tensor]) -> Code:
        """LL and details, coarsest first, to a code that is not standardised, and what it leaves out."""
        raise NotImplementedError

    def unpack(self, z: Tensor, aux: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The inverse of `pack`."""
        raise NotImplementedError


class LowBandCodec(BandCodec):
    """V1: LL alone."""

    def __init__(self, wavelet: str = "haar", levels: int = 2):
        super().__init__(wavelet, levels, COLOURS)

    def pack(self, low: Tensor, details: list[Tensor]) -> Code:
        return low, details

    def unpack(self, z: Tensor, aux: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return z, aux


class CoarseLevelCodec(BandCodec):
    """V2: all bands of the coarsest level."""

    def __init__(self, wavelet: str = "haar", levels: int = 2):
        super().__init__(wavelet, levels, COLOURS * (1 + BANDS))

    def pack(self, low: Tensor, details: list[Tensor]) -> Code:
        return torch.cat([low, details[0]], 1), details[1:]

    def unpack(self, z: Tensor, aux: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return z[:, :COLOURS], [z[:, COLOURS:], *aux]


class AllBandsCodec(BandCodec):
    """V3, V4, V5: all bands; `resize` shrinks the finer ones to the size of the coarsest, and enlarges them again.

    Args:
        wavelet: haar, db2 or bior1.3.
        levels: of the transform, 1 to 3.
        resize: how; says how many channels the bands of a level have in a code, and whether all of them is kept.
    """

    def __init__(self, wavelet: str, levels: int, resize: AreaResize | LearnedResize | PixelResize):
        counts = [resize.channels(octaves) for octaves in range(checked_levels(levels))]
        super().__init__(wavelet, levels, COLOURS + sum(counts))
        self.counts, self.resize, self.lossless = counts, resize, resize.lossless

    def pack(self, low: Tensor, details: list[Tensor]) -> Code:
        return torch.cat([low, *(self.resize.shrink(detail, octaves) for octaves, detail in enumerate(details))], 1), []

    def unpack(self, z: Tensor, aux: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        low, *details = z.split([COLOURS, *self.counts], 1)
        return low, [self.resize.enlarge(detail, octaves) for octaves, detail in enumerate(details)]


def checked_levels(levels: int) -> int:
    """The levels.

    Raises:
        UserError: other than 1, 2 or 3.
    """
    if levels not in (1, 2, 3):
        raise UserError(f"levels is {levels}; a wavelet codec has 1, 2 or 3")
    return levels


class AreaResize(nn.Module):
    """V3: smaller by area, back by bicubic."""

    lossless: bool = False

    def channels(self, octaves: int) -> int:
        """Of the bands of a level in a code."""
        return COLOURS * BANDS

    def shrink(self, detail: Tensor, octaves: int) -> Tensor:
        """Bands (B, c, 2^octaves * h, 2^octaves * w) to the size (h, w) of a code."""
        return F.avg_pool2d(detail, 2**octaves)

    def enlarge(self, detail: Tensor, octaves: int) -> Tensor:
        """The way back from `shrink`."""
        return F.interpolate(detail, scale_factor=float(2**octaves), mode="bicubic") if octaves else detail


class LearnedResize(nn.Module):
    """V4: bands are halved and doubled by convolutions, one filter a band and colour, that learn to keep what matters.

    They begin as area and bilinear interpolation. Attributes `down` and `up` hold one layer an octave.
    """

    lossless: bool = False

    def __init__(self, levels: int):
        super().__init__()
        bands, octaves = COLOURS * BANDS, range(levels - 1)
        self.down = nn.ModuleList(nn.Conv2d(bands, bands, 3, 2, 1, groups=bands) for _ in octaves)
        self.up = nn.ModuleList(nn.ConvTranspose2d(bands, bands, 4, 2, 1, groups=bands) for _ in octaves)
        self.initialize_weights()

    @torch.no_grad()
    def initialize_weights(self) -> None:
        area, bilinear = torch.tensor([0, 0.5, 0.5]), torch.tensor([1.0, 3, 3, 1]) / 4
        for layers, taps in ((self.down, area), (self.up, bilinear)):
            for layer in layers:
                assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.bias is not None
                layer.weight.copy_(torch.outer(taps, taps))
                layer.bias.zero_()

    def channels(self, octaves: int) -> int:
        return COLOURS * BANDS

    def shrink(self, detail: Tensor, octaves: int) -> Tensor:
        return through(self.down[:octaves], detail)

    def enlarge(self, detail: Tensor, octaves: int) -> Tensor:
        return through(self.up[:octaves], detail)


def through(layers: nn.ModuleList, detail: Tensor) -> Tensor:
    """The bands after all layers, which compute in the type of their weights."""
    x = detail
    for layer in layers:
        x = layer(x.to(next(layer.parameters()).dtype))
    return x.to(detail.dtype)


class PixelResize(nn.Module):
    """V5: the pixels of the finer bands in channels of their own (pixel-unshuffle): nothing is lost."""

    lossless = True

    def channels(self, octaves: int) -> int:
        return COLOURS * BANDS * 4**octaves

    def shrink(self, detail: Tensor, octaves: int) -> Tensor:
        return F.pixel_unshuffle(detail, 2**octaves)

    def enlarge(self, detail: Tensor, octaves: int) -> Tensor:
        return F.pixel_shuffle(detail, 2**octaves)


CODECS: dict[str, Callable[[str, int], BandCodec]] = {
    "v1": LowBandCodec,
    "v2": CoarseLevelCodec,
    "v3": lambda wavelet, levels: AllBandsCodec(wavelet, levels, AreaResize()),
    "v4": lambda wavelet, levels: AllBandsCodec(wavelet, levels, LearnedResize(levels)),
    "v5": lambda wavelet, levels: AllBandsCodec(wavelet, levels, PixelResize()),
}


def build_codec(name: str, wavelet: str = "haar", levels: int = 2) -> BandCodec:
    """The codec of this name.

    Raises:
        UserError: an unknown codec or wavelet, or levels other than 1, 2 or 3.
    """
    if name not in CODECS:
        raise UserError(f"codec {name!r} is unknown; use one of {', '.join(CODECS)}")
    return CODECS[name](wavelet, levels)
