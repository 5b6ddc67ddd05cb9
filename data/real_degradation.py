"""Second-order degradation of Real-ESRGAN (Wang et al. 2021, arXiv:2107.10833), a batch at a time on its device.

Two rounds of blur, resizing, noise and JPEG, then a sinc filter and a last resizing and JPEG in random order. Kernels,
qualities, kinds and strengths of noise of a sample are a pure function of (seed, epoch, sample index), drawn where the
data are loaded. Sizes and methods of resizing and the last order, which have to be equal within a batch, and the noise
itself follow from (seed, epoch, index of the batch's first sample); data/pair_pool.py then mixes the batches.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from configs.sr_schema import DegradationConfig, DegradationStageConfig
from data.blur_kernels import embed, identity, odd_size, random_kernel, random_sinc
from data.jpeg import jpeg
from data.sharpen import sharpen
from utils.device import sent
from utils.errors import UserError

RESIZE_MODES = ("area", "bilinear", "bicubic")
GREY = (0.299, 0.587, 0.114)
STREAM = 0x5EA1  # tells these random numbers from those of the patch's place
NUMBERS = 4  # of a round: Gaussian noise or not, its strength, grey or not, JPEG quality


class RealDegradation:
    """LR patches from HR patches.

    Args:
        config: ranges and probabilities.
        seed: seed of the run.
        name: the configuration's key in messages.

    Raises:
        ValueError: a range or a list of weights that cannot be used.
    """

    def __init__(self, config: DegradationConfig, seed: int, name: str = "data.degradation"):
        check_stage(config.first, f"{name}.first")
        check_stage(config.second, f"{name}.second")
        self.config, self.seed = config, seed
        self.side = max(config.first.kernel[1], config.second.kernel[1]) | 1

    def draw(self, epoch: int, index: int) -> dict[str, Tensor]:
        """One sample's own random numbers.

        Returns:
            {"kernels": float32 (3, k, k) of both rounds and the end, "numbers": float64 (2 * NUMBERS + 1,)}.
        """
        rng = np.random.default_rng((self.seed, epoch, index, STREAM))
        first, second = (draw_stage(rng, stage) for stage in (self.config.first, self.config.second))
        last = random_sinc(rng, odd_size(rng, self.config.second.kernel), final=True)
        last = last if rng.random() < self.config.final_sinc else identity()
        quality = rng.uniform(*self.config.second.jpeg)
        kernels = np.stack([embed(kernel, self.side) for kernel in (first[0], second[0], last)])
        numbers = torch.tensor([*first[1], *second[1], quality], dtype=torch.float64)
        return {"kernels": torch.from_numpy(kernels), "numbers": numbers}

    @torch.no_grad()
    def __call__(self, hr: Tensor, draws: dict[str, Tensor], key: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """Degrade a batch.

        Args:
            hr: float32 (B, 3, H, W) in [0, 1].
            draws: what `draw` gave, stacked; the kernels on the device of `hr`, the numbers on the CPU.
            key: (epoch, index) of the first sample.
            size: (h, w) of LR.

        Returns:
            float32 (B, 3, h, w) in [0, 1], rounded to 8 bit.
        """
        first, second = self.config.first, self.config.second
        rng = np.random.default_rng((self.seed, *key, STREAM, 1))
        shrink = self.config.shrink
        inner = tuple(max(1, round(side / shrink)) for side in hr.shape[-2:]) if shrink else size
        source = torch.Generator(hr.device).manual_seed(int(rng.integers(2**62)))
        kernels, numbers = draws["kernels"].unbind(1), draws["numbers"]

        x = blur(hr, kernels[0])
        x = resize_torch(x, draw_size(rng, first, tuple(hr.shape[-2:])), draw_mode(rng))
        x = add_noise(x, numbers[:, :3], source)
        x = jpeg(x, numbers[:, 3])

        if self.has_second_round(key):
            x = blur(x, kernels[1])
            x = resize_torch(x, draw_size(rng, second, inner), draw_mode(rng))
            x = add_noise(x, numbers[:, NUMBERS : NUMBERS + 3], source)
        # One order is that of a picture saved and then shrunk, the other of one shrunk and then saved.
        mode = draw_mode(rng)
        if rng.random() < 0.5:
            x = jpeg(blur(resize_torch(x, inner, mode), kernels[2]), numbers[:, -1])
        else:
            x = blur(resize_torch(jpeg(x, numbers[:, -1]), inner, mode), kernels[2])
        x = resize_torch(x, size, "bicubic")
        return (x.clamp(0, 1) * 255).round() / 255

    def has_second_round(self, key: tuple[int, int]) -> bool:
        """Whether the batch that begins with this key has one; from random numbers of its own, so that at probability 1
        all others stay what they are."""
        return bool(np.random.default_rng((self.seed, *key, STREAM, 2)).random() < self.config.second_order)

    def target(self, hr: Tensor) -> Tensor:
        """What is degraded and learnt: the HR batch (B, 3, H, W), sharpened where that is configured."""
        return sharpen(hr) if self.config.sharpen else hr


def check_stage(stage: DegradationStageConfig, name: str) -> None:
    """Raises ValueError where a range is no [lowest, highest], or a list of weights has the wrong length."""
    for key in ("kernel", "sigma", "generalised", "plateau", "resize_factor", "noise", "poisson", "jpeg"):
        check_range(getattr(stage, key), f"{name}.{key}")
    for key, length in (("kinds", 6), ("resize", 3)):
        weights = getattr(stage, key)
        if len(weights) != length or sum(weights) <= 0:
            raise UserError(f"{name}.{key} must be {length} weights, not all zero, found {weights}")


def check_range(values: list, name: str) -> None:
    """Raises ValueError unless the list is [lowest, highest]."""
    if len(values) != 2 or values[0] > values[1]:
        raise UserError(f"{name} must be [lowest, highest], found {values}")


def draw_stage(rng: np.random.Generator, stage: DegradationStageConfig) -> tuple[np.ndarray, list[float]]:
    """Kernel (k, k) and NUMBERS numbers of one sample for one round."""
    kernel = random_kernel(rng, stage)
    blurred, gaussian, grey = (bool(rng.random() < p) for p in (stage.blur, stage.gaussian, stage.grey))
    strength = rng.uniform(*stage.noise) / 255 if gaussian else rng.uniform(*stage.poisson)
    return kernel if blurred else identity(), [gaussian, strength, grey, rng.uniform(*stage.jpeg)]


def draw_mode(rng: np.random.Generator) -> str:
    return RESIZE_MODES[int(rng.integers(len(RESIZE_MODES)))]


def draw_size(rng: np.random.Generator, stage: DegradationStageConfig, base: tuple[int, int]) -> tuple[int, int]:
    """`base` enlarged, shrunk or kept, within its part of the range of factors."""
    low, high = stage.resize_factor
    weights = np.asarray(stage.resize, float)
    kind = int(rng.choice(3, p=weights / weights.sum()))
    bounds = ((max(1.0, low), max(1.0, high)), (min(1.0, low), min(1.0, high)), (1.0, 1.0))[kind]
    factor = float(rng.uniform(*bounds))
    return tuple(max(1, round(side * factor)) for side in base)


def blur(x: Tensor, kernels: Tensor) -> Tensor:
    """Filter every image (B, C, H, W) with its own kernel (B, k, k), k odd; the edge is repeated."""
    batch, channels, height, width = x.shape
    size = kernels.shape[-1]
    if size == 1:
        return x
    padded = F.pad(x, (size // 2,) * 4, mode="replicate").flatten(0, 1)[None]  # (1, B * C, H + k - 1, W + k - 1)
    weights = kernels.repeat_interleave(channels, 0)[:, None]
    return F.conv2d(padded, weights, groups=batch * channels).view(batch, channels, height, width)


def resize_torch(x: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Resize images (B, C, H, W) by PyTorch's own area, bilinear or bicubic interpolation, not antialiased."""
    return x if tuple(x.shape[-2:]) == tuple(size) else F.interpolate(x, size=tuple(size), mode=mode)


def add_noise(x: Tensor, numbers: Tensor, source: torch.Generator) -> Tensor:
    """Gaussian or Poisson noise on images (B, 3, H, W), coloured or grey, clamped to [0, 1].

    Args:
        x: the images.
        numbers: (B, 3) on the CPU: Gaussian or not, strength, grey or not.
        source: random numbers of the images' device.
    """
    x = x.clamp(0, 1)
    noisy = torch.empty_like(x)
    kinds = 2 * (numbers[:, 0] > 0) + (numbers[:, 2] > 0)  # 3: Gaussian and grey, 2: Gaussian, 1: Poisson and grey
    order = kinds.argsort(descending=True, stable=True)
    counts = kinds.bincount(minlength=4).flip(0).tolist()
    rows_of, strength_of = (sent(y, x.device).split(counts) for y in (order, numbers[order, 1].float()))
    for kind, rows, strength in zip((3, 2, 1, 0), rows_of, strength_of, strict=True):
        if len(rows):
            images = x[rows]
            noise = gaussian_noise if kind >= 2 else poisson_noise
            noisy[rows] = images + noise(images, kind % 2 == 1, source) * strength[:, None, None, None]
    return noisy.clamp(0, 1)


@lru_cache(maxsize=8)
def _grey(device: torch.device) -> Tensor:
    return sent(torch.tensor(GREY), device)


def gaussian_noise(images: Tensor, grey: bool, source: torch.Generator) -> Tensor:
    """Standard normal noise (B, 3, H, W), or (B, 1, H, W) for all channels."""
    shape = (len(images), 1 if grey else images.shape[1], *images.shape[2:])
    return torch.randn(shape, generator=source, device=images.device)


def poisson_noise(images: Tensor, grey: bool, source: torch.Generator) -> Tensor:
    """Noise of counting 8-bit levels as photons, in [0, 1] units; (B, 3, H, W), or (B, 1, H, W) from the luma."""
    levels = (images * 255).round()
    if grey:
        levels = torch.einsum("c,bchw->bhw", _grey(images.device), levels)[:, None].round()
    return (torch.poisson(levels, generator=source) - levels) / 255
