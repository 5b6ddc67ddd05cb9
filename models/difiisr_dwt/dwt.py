"""Periodised discrete wavelet transform of images, exactly invertible for every even size.

A level maps (B, C, H, W) to four bands of half the side. A filter of L taps at output k looks at the pixels from
2k - o on, o = L / 2 - 1, around the image's ring: there are no extra border coefficients (66 or 67 instead of 64), so
all wavelets give codes of one size. For Haar and a block [a b; c d] the bands are

    LL = (a + b + c + d) / 2    LH = (a - b + c - d) / 2    HL = (a + b - c - d) / 2    HH = (a - b - c + d) / 2

LH has the detail along the rows (PyWavelets calls it cV), HL that along the columns (cH). Details are stored band by
band, (B, 3C, H/2, W/2) = [LH, HL, HH], each with all colours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from utils.errors import UserError

R2, R3 = math.sqrt(2), math.sqrt(3)
HAAR = (1 / R2, 1 / R2)
DB2 = tuple(x / (4 * R2) for x in (1 + R3, 3 + R3, 3 - R3, 1 - R3))  # Daubechies 1992, two vanishing moments
BIOR13 = tuple(x / (8 * R2) for x in (-1, 1, 8, 8, 1, -1))  # Cohen, Daubechies & Feauveau 1992, dual of Haar
HAAR_AS_6 = (0.0, 0.0, *HAAR, 0.0, 0.0)
# Low-pass filters of (analysis, synthesis), as correlations; each high-pass filter is the other's mirror image.
WAVELETS = {"haar": (HAAR, HAAR), "db2": (DB2, DB2), "bior1.3": (BIOR13, HAAR_AS_6)}


def checked_wavelet(name: str) -> str:
    """The name, where it is known.

    Raises:
        UserError: it is not.
    """
    if name not in WAVELETS:
        raise UserError(f"wavelet {name!r} is unknown; use one of {', '.join(WAVELETS)}")
    return name


def high_pass(dual: Sequence[float]) -> list[float]:
    """g[n] = (-1)^n h[L - 1 - n] of the other side's low-pass filter h."""
    return [(-1) ** n * value for n, value in enumerate(reversed(dual))]


def analyse(x: Tensor, wavelet: str) -> tuple[Tensor, Tensor]:
    """Low and high band (..., n / 2) along the last axis of x (..., n).

    Sums of slices and no convolution: mixed precision leaves them in float32, and they are faster for so few taps.
    """
    low, dual = WAVELETS[wavelet]
    offset = len(low) // 2 - 1
    x = wrap(x, offset, offset)
    samples = [x[..., tap : x.shape[-1] - 2 * offset + tap - 1 : 2] for tap in range(len(low))]
    return weighted(samples, low), weighted(samples, high_pass(dual))


def synthesise(low: Tensor, high: Tensor, wavelet: str) -> Tensor:
    """The inverse of `analyse`: pixel m gets coefficient k by tap m - 2k + o."""
    dual, taps = WAVELETS[wavelet]
    offset, margin, size = len(taps) // 2 - 1, len(taps) // 4, low.shape[-1]
    filters = (taps, high_pass(dual))
    bands = [wrap(band, margin, margin) for band in (low, high)]
    phases = []
    for phase in (0, 1):  # even pixels, then odd ones
        total = torch.zeros_like(low)
        for band, own in zip(bands, filters, strict=True):
            for tap, value in enumerate(own):
                if value and (tap - offset - phase) % 2 == 0:
                    first = margin - (tap - offset - phase) // 2
                    total = total + value * band[..., first : first + size]
        phases.append(total)
    return torch.stack(phases, -1).flatten(-2)


def wrap(x: Tensor, before: int, after: int) -> Tensor:
    """Continue (..., n) periodically, by any number of samples."""
    if not before and not after:
        return x
    return x[..., torch.arange(-before, x.shape[-1] + after, device=x.device) % x.shape[-1]]


def weighted(parts: list[Tensor], taps: Sequence[float]) -> Tensor:
    """Sum of the parts times the taps."""
    total = torch.zeros_like(parts[0])
    for part, tap in zip(parts, taps, strict=True):
        if tap:
            total = total + tap * part
    return total


def dwt2(x: Tensor, wavelet: str = "haar") -> tuple[Tensor, Tensor]:
    """One level of the transform.

    Args:
        x: (B, C, H, W), H and W even.
        wavelet: haar, db2 or bior1.3.

    Returns:
        LL (B, C, H/2, W/2), and the details (B, 3C, H/2, W/2).

    Raises:
        UserError: an unknown wavelet, or an odd side.
    """
    height, width = x.shape[-2:]
    if height % 2 or width % 2:
        raise UserError(f"the wavelet transform halves both sides, but found {height}x{width}; pad the image first")
    low, high = analyse(x, checked_wavelet(wavelet))  # along the rows
    (ll, hl), (lh, hh) = (analyse(half.mT, wavelet) for half in (low, high))
    return ll.mT, torch.cat([lh.mT, hl.mT, hh.mT], 1)


def idwt2(low: Tensor, details: Tensor, wavelet: str = "haar") -> Tensor:
    """The inverse of `dwt2`.

    Args:
        low: (B, C, h, w).
        details: (B, 3C, h, w).
        wavelet: as in `dwt2`.

    Returns:
        (B, C, 2h, 2w).
    """
    checked_wavelet(wavelet)
    lh, hl, hh = details.chunk(3, 1)
    left, right = (synthesise(first.mT, second.mT, wavelet).mT for first, second in ((low, hl), (lh, hh)))
    return synthesise(left, right, wavelet)


def decompose(x: Tensor, wavelet: str, levels: int) -> tuple[Tensor, list[Tensor]]:
    """LL of the coarsest level, and the details of every level, coarsest first; H and W multiples of 2^levels."""
    details: list[Tensor] = []
    for _ in range(levels):
        x, detail = dwt2(x, wavelet)
        details.insert(0, detail)
    return x, details


def reconstruct(low: Tensor, details: list[Tensor], wavelet: str) -> Tensor:
    """The inverse of `decompose`."""
    for detail in details:
        low = idwt2(low, detail, wavelet)
    return low
