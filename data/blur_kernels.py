"""Random blur kernels of Real-ESRGAN (Wang et al. 2021, arXiv:2107.10833, section 3 and appendix): float32 (k, k)."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import j1

from configs.sr_schema import DegradationStageConfig

KINDS = ("iso", "aniso", "generalised_iso", "generalised_aniso", "plateau_iso", "plateau_aniso")


def gaussian_kernel(size: int, sigma: tuple[float, float], angle: float, form: str, exponent: float) -> np.ndarray:
    """A Gaussian, or one of its relatives, over q = (x, y) S^-1 (x, y)^T.

    Args:
        size: odd side in pixels.
        sigma: standard deviations along the two axes, in pixels.
        angle: of the first axis, in radians.
        form: "gaussian" exp(-q / 2), "generalised" exp(-q^exponent / 2), or "plateau" 1 / (1 + q^exponent).
        exponent: shape, not used by "gaussian".

    Returns:
        float32 (size, size), sums to 1.
    """
    axis = np.arange(size) - size // 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    q = (along / sigma[0]) ** 2 + (across / sigma[1]) ** 2
    if form == "gaussian":
        kernel = np.exp(-q / 2)
    elif form == "generalised":
        kernel = np.exp(-(q**exponent) / 2)
    else:
        kernel = 1 / (1 + q**exponent)
    return (kernel / kernel.sum()).astype(np.float32)


def sinc_kernel(size: int, cutoff: float) -> np.ndarray:
    """Circular low-pass filter cutoff / (2 pi r) J1(cutoff r), which rings at edges; float32 (size, size), sum 1.

    Args:
        size: odd side in pixels.
        cutoff: angular frequency in radians per pixel, up to pi.
    """
    axis = np.arange(size) - size // 2
    radius = np.hypot(*np.meshgrid(axis, axis, indexing="ij"))
    centre = radius == 0
    radius[centre] = 1.0
    kernel = np.where(centre, cutoff**2 / (4 * math.pi), cutoff * j1(cutoff * radius) / (2 * math.pi * radius))
    return (kernel / kernel.sum()).astype(np.float32)


def odd_size(rng: np.random.Generator, bounds: list[int]) -> int:
    """An odd number between the bounds, which are rounded up to odd numbers first."""
    low, high = (size | 1 for size in bounds)
    return low + 2 * int(rng.integers((high - low) // 2 + 1))


def random_sinc(rng: np.random.Generator, size: int, final: bool = False) -> np.ndarray:
    """Sinc filter with a random cut-off; small kernels would be too coarse for the lowest ones, and the filter at the
    end of all (`final`) never has them."""
    return sinc_kernel(size, float(rng.uniform(math.pi / 3 if final or size < 13 else math.pi / 5, math.pi)))


def random_kernel(rng: np.random.Generator, stage: DegradationStageConfig) -> np.ndarray:
    """Kernel of one blur as the stage describes it, float32 (k, k)."""
    size = odd_size(rng, stage.kernel)
    if rng.random() < stage.sinc:
        return random_sinc(rng, size)
    weights = np.asarray(stage.kinds, float)
    kind = KINDS[int(rng.choice(len(KINDS), p=weights / weights.sum()))]
    first, second = rng.uniform(*stage.sigma, 2)
    angle = float(rng.uniform(-math.pi, math.pi))
    form, _, symmetry = kind.rpartition("_")
    form = form or "gaussian"
    bounds = stage.plateau if form == "plateau" else stage.generalised
    # Half of the exponents flatten the kernel and half sharpen it, as far as the range allows.
    split = min(max(1.0, bounds[0]), bounds[1])
    exponent = rng.uniform(bounds[0], split) if rng.random() < 0.5 else rng.uniform(split, bounds[1])
    sigma = (float(first), float(first if symmetry == "iso" else second))
    return gaussian_kernel(size, sigma, angle, form, float(exponent))


def embed(kernel: np.ndarray, size: int) -> np.ndarray:
    """The kernel in the middle of zeros (size, size), so that kernels of different sizes form a batch."""
    margin = (size - kernel.shape[0]) // 2
    return np.pad(kernel, margin)


def identity(size: int = 1) -> np.ndarray:
    """The kernel that changes nothing."""
    return embed(np.ones((1, 1), np.float32), size)
