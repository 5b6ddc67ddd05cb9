"""DifIISR-DWT: super-resolution by residual-shifting diffusion of wavelet codes (after DifIISR, arXiv:2503.01187).

    LR --bicubic--> encode --> y --(start, T or fewer denoising steps)--> x0 --> decode --> SR

The codes are standardised wavelet bands (codecs.py), the diffusion shifts the LR code towards the HR code
(shift_diffusion.py), and a Swin U-Net (unet.py) estimates the HR code, told y or the LR image.
"""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.capabilities import Capabilities, checked_scale
from models.difiisr_dwt.codecs import build_codec
from models.difiisr_dwt.shift_diffusion import SAMPLERS, ShiftSchedule, sample
from models.difiisr_dwt.unet import SwinUNet
from models.networks.spandrel_layers import pad_to_multiple
from models.noise import normal_field
from models.sr_fast import interpolation_matrix
from models.sr_network import SRNetwork
from utils.errors import UserError

HALO, BLEND = 16, 8  # LR pixels around a tile, and over which tiles fade into each other


@dataclass(frozen=True)
class LRCode:
    """What the denoiser knows of LR images.

    Args:
        y: code (B, channels, h, w) of the enlarged images.
        aux: what the codec leaves out of it.
        condition: maps (B, c, h, w) that the denoiser sees beside x_t.
    """

    y: Tensor
    aux: list[Tensor]
    condition: Tensor


class DifIISRDWT(SRNetwork):
    """Diffusion of wavelet codes.

    Args:
        scale: 2, 3 or 4.
        codec: v1 (LL alone), v2 (coarsest level), v3, v4 (all bands, resized, or by convolutions) or v5 (lossless).
        wavelet: haar, db2 or bior1.3.
        levels: of the wavelet transform, 1 to 3; a code has 1 / 2^levels of the HR image's side.
        timesteps: T of the diffusion.
        kappa: strength of its noise.
        min_noise: m of its schedule.
        steps: of sampling, 1 to T.
        sampler: "ancestral" draws every step, "deterministic" takes the start's noise along.
        cond: the denoiser sees the LR code ("encoded"), or the LR image in the size of a code ("raw").
        predict: the denoiser's output is "x0", or the "residual" x0 - y in units of its deviation: then an untrained
            network is bicubic interpolation.
        channels, mult, n_blocks, swin_depth, swin_dim, window: see SwinUNet; `mult` with dashes between its numbers.

    Attributes:
        seed: of the noise.

    Raises:
        UserError: an argument that is not among those named.
    """

    residual_std: Tensor

    def __init__(
        self,
        scale: int,
        codec: str = "v5",
        wavelet: str = "haar",
        levels: int = 2,
        timesteps: int = 15,
        kappa: float = 2.0,
        min_noise: float = 0.04,
        steps: int = 15,
        sampler: str = "ancestral",
        cond: str = "encoded",
        predict: str = "x0",
        channels: int = 160,
        mult: str = "1-2-2-4",
        n_blocks: int = 2,
        swin_depth: int = 2,
        swin_dim: int = 192,
        window: int = 8,
    ):
        super().__init__()
        self.scale, self.seed = checked_scale(self, scale), 0
        self.schedule = ShiftSchedule(timesteps, kappa, least=min_noise)
        self.set_sampling(steps, sampler)
        self.cond = checked("cond", cond, ("encoded", "raw"))
        self.predict = checked("predict", predict, ("x0", "residual"))
        self.codec = build_codec(codec, wavelet, levels)
        bands = self.codec.channels
        self.register_buffer("residual_std", torch.ones(bands, 1, 1))
        self.unet = SwinUNet(
            bands + (bands if cond == "encoded" else 3),
            bands,
            channels,
            parse_mult(mult),
            n_blocks,
            swin_depth,
            swin_dim,
            window,
        )
        self.cell = 2**levels  # HR pixels of a cell of the code
        side = self.unet.multiple * self.cell
        self.capabilities = Capabilities(
            receptive_radius=None,
            local_receptive_radius=HALO,
            tiling="overlap",
            blend=BLEND,
            size_multiple=side // math.gcd(side, scale),
            stochastic=True,
            steps=steps,
        )

    @property
    def tail(self) -> nn.ModuleList:
        return nn.ModuleList([self.unet.norm, self.unet.leave])

    def with_seed(self, seed: int) -> DifIISRDWT:
        """A copy that shares the weights and draws other noise."""
        other = copy.copy(self)
        other.seed = seed
        return other

    def with_sampling(self, steps: int, sampler: str = "ancestral") -> DifIISRDWT:
        """A copy that shares the weights and samples otherwise: neither steps nor sampler concern the training.

        Raises:
            UserError: not 1 to T steps, or an unknown sampler.
        """
        other = copy.copy(self)
        other.set_sampling(steps, sampler)
        other.capabilities = replace(self.capabilities, steps=steps)
        other.spec = self.spec | {"args": self.spec["args"] | {"steps": steps, "sampler": sampler}}
        return other

    def set_sampling(self, steps: int, sampler: str) -> None:
        self.schedule.timesteps(steps)  # raises where there are too many
        self.steps, self.sampler = steps, checked("sampler", sampler, SAMPLERS)

    @property
    def has_statistics(self) -> bool:
        """Whether the bands are standardised."""
        return bool((self.codec.std != 1).any())

    @torch.no_grad()
    def set_statistics(self, mean: Tensor, std: Tensor, residual_std: Tensor) -> None:
        """Mean and deviation (channels,) of the training images' codes before they are standardised, and deviation of
        x0 - y after it."""
        self.codec.set_statistics(mean, std)
        self.residual_std.copy_(residual_std[:, None, None])

    def forward(self, lr: Tensor, origin: Tensor | None = None) -> Tensor:
        """SR images (B, 3, scale * h, scale * w), not clamped.

        Args:
            lr: LR images (B, 3, h, w) in [0, 1].
            origin: int64 (B, 2), row and column in LR pixels of each image within a larger one; its noise is that of
                this place, where a cell of the code ends on a whole LR pixel (at x4 with two levels: everywhere).
        """
        height, width = (self.scale * side for side in lr.shape[-2:])
        code = self.encode_lr(lr)
        image = self.codec.decode(self.sample(code, origin), code.aux)
        return (image / 2 + 0.5)[..., :height, :width]

    def encode_lr(self, lr: Tensor) -> LRCode:
        """Code of LR images (B, 3, h, w) in [0, 1], padded to the capabilities' size multiple."""
        lr = 2 * (lr if lr.dtype == torch.float64 else lr.float()) - 1
        lr = pad_to_multiple(lr, self.capabilities.size_multiple)
        y, aux = self.codec.encode(self.enlarge(lr))
        if self.cond == "encoded":
            return LRCode(y, aux, y)
        size = (y.shape[-2], y.shape[-1])
        fits = size == tuple(lr.shape[-2:])
        raw = lr if fits else F.interpolate(lr, size, mode="bicubic", align_corners=False, antialias=True)
        return LRCode(y, aux, raw)

    def enlarge(self, lr: Tensor) -> Tensor:
        """Bicubic interpolation to HR size, never in a smaller type: the codes are float32, and so is what they are."""
        rows, columns = (interpolation_matrix(n, self.scale * n, lr.dtype, lr.device) for n in lr.shape[-2:])
        with nullcontext() if lr.is_meta else torch.autocast(lr.device.type, enabled=False):
            return rows @ (lr @ columns.T)

    def denoise(self, x_t: Tensor, t: Tensor, code: LRCode) -> Tensor:
        """Estimate of x0 from x_t (B, channels, h, w) at the steps t (B,)."""
        scale = self.schedule.input_scales().to(x_t)[t][:, None, None, None]
        maps = torch.cat([scale * x_t, code.condition], 1).to(self.unet.entry.weight.dtype)
        estimate = self.unet(maps, t).to(x_t.dtype)
        return estimate if self.predict == "x0" else code.y + self.residual_std * estimate

    def sample(self, code: LRCode, origin: Tensor | None = None) -> Tensor:
        """HR code (B, channels, h, w); see `forward` for the origin."""
        y = code.y
        origin = torch.zeros(len(y), 2, dtype=torch.int64) if origin is None else origin
        cells = origin * self.scale // self.cell

        def denoise(x_t: Tensor, t: int) -> Tensor:
            return self.denoise(x_t, torch.full((len(y),), t, device=y.device), code)

        def noise(draw: int) -> Tensor:
            size = (y.shape[-2], y.shape[-1])
            return normal_field(self.seed, draw, y.shape[1], cells, size, y.device).to(y.dtype)

        return sample(denoise, y, self.schedule, self.steps, self.sampler, noise)


def checked(name: str, value: str, valid: tuple[str, ...]) -> str:
    """The value, where it is valid.

    Raises:
        UserError: it is not.
    """
    if value not in valid:
        raise UserError(f"DifIISRDWT: {name} is {value!r}; use {' or '.join(valid)}")
    return value


def parse_mult(text: str) -> tuple[int, ...]:
    """Numbers of "1-2-2-4".

    Raises:
        UserError: anything else.
    """
    parts = text.split("-")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UserError(f"mult is {text!r}; use positive whole numbers with dashes between them, such as 1-2-2-4")
    return tuple(map(int, parts))
