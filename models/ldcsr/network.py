"""LDCSR as SR networks: `ldcsr` draws a latent by diffusion, `ldcsr_kd` decodes the condition network's latent.

Wu, Mo, Sun & Ma, "Latent Diffusion, Implicit Amplification: Efficient Continuous-Scale Super-Resolution for Remote
Sensing Images", IEEE TGRS 2025, arXiv:2410.22830 (E2DiffSR). An autoencoder learns what an HR image has beyond its
interpolated LR version as a small latent; its decoder sees the LR image and makes any size. The condition network
guesses this latent from the LR image, and the diffusion draws one that fits the guess. Only training sees HR images.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from models.capabilities import AnyScale, Capabilities, checked_scale
from models.ldcsr.autoencoder import Autoencoder, Interpolation
from models.ldcsr.decoder import Decoder
from models.ldcsr.diffusion import schedule
from models.ldcsr.encoder import CELL, ConditionNetwork, latent_size
from models.ldcsr.unet import LatentUNet
from models.noise import normal_field
from models.sr_network import SRNetwork
from utils.errors import UserError

SCALES = AnyScale(1, 10)
HALO = 8  # LR pixels of neighbours that a window sees; statistics over the whole image have no finite reach
BLEND = 4


def target_size(lr: Tensor, scale: float, size: tuple[int, int] | None) -> tuple[int, int]:
    """Height and width of the SR images of `lr` (B, 3, h, w); None asks for `scale`.

    Raises:
        UserError: beyond x1 to x10.
    """
    low, high = lr.shape[-2:]
    height, width = (round(scale * low), round(scale * high)) if size is None else size
    for wanted, side in ((height, low), (width, high)):
        if not side <= wanted <= SCALES.highest * side:
            raise UserError(f"LDCSR: {side} LR pixels cannot become {wanted}: x{wanted / side:.3g} is not {SCALES}")
    return height, width


class LDCSRKD(SRNetwork):
    """LDCSR without its diffusion: decodes the latent that the condition network guesses. Deterministic.

    Args:
        scale: 1 to 10, the factor where no size is given; may be fractional.
        channels: feature maps of the decoder, a multiple of 4.
        n_modules: multi-distillation modules in each of its four feature refinements.
        latent_channels: of the latent.
        encoder_channels: feature maps of the condition network at full resolution.
        levels: of the upsampler's pyramid; 4 reach x8.
        width: of the upsampler's layers per pixel.
        weight_compat: PyTorch's bicubic kernel, as the authors' weights expect it, instead of MATLAB's.
    """

    scale: float  # type: ignore[assignment]
    latent_scale: Tensor
    capabilities = Capabilities(
        receptive_radius=None, local_receptive_radius=HALO, scales=SCALES, tiling="overlap", blend=BLEND
    )

    def __init__(
        self,
        scale: float,
        channels: int = 64,
        n_modules: int = 12,
        latent_channels: int = 4,
        encoder_channels: int = 64,
        levels: int = 4,
        width: int = 256,
        weight_compat: bool = False,
    ):
        super().__init__()
        self.scale = checked_scale(self, scale, SCALES)
        self.interpolate = Interpolation(weight_compat)
        self.condition = ConditionNetwork(latent_channels, encoder_channels)
        self.register_buffer("latent_scale", torch.ones(()))
        self.autoencoder = Autoencoder(latent_channels, 0, Decoder(latent_channels, channels, n_modules, levels, width))

    @property
    def tail(self) -> nn.Module:
        return self.autoencoder.decoder.upsampler.fuse

    def forward(self, lr: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """SR images (B, 3, H, W), not clamped.

        Args:
            lr: LR images (B, 3, h, w) in [0, 1].
            size: (H, W); None is (round(scale * h), round(scale * w)).

        Raises:
            UserError: a size beyond x1 to x10.
        """
        up = self.interpolate(lr, target_size(lr, self.scale, size))
        return self.autoencoder.decode(self.condition(2 * up - 1) / self.latent_scale, lr, up)


class LDCSR(SRNetwork):
    """LDCSR: a latent drawn by ancestral diffusion in few steps, decoded. Stochastic, and the same for the same seed.

    Args:
        scale, channels, n_modules, latent_channels, encoder_channels, levels, width: see LDCSRKD.
        unet_channels: feature maps of the U-Net at the latent's resolution, a multiple of 8.
        steps: of the diffusion; those it was trained with.
        oracle: the encoder of HR images belongs to it, as training and `reconstruct` need it, inference does not.
        weight_compat: as the authors' weights expect it: PyTorch's bicubic kernel, and the U-Net is told a whole scale.

    Attributes:
        seed: of the noise; see `with_seed`.
        latent_scale: factor that gives the training latents unit variance.
    """

    scale: float  # type: ignore[assignment]
    latent_scale: Tensor

    def __init__(
        self,
        scale: float,
        channels: int = 64,
        n_modules: int = 12,
        latent_channels: int = 4,
        encoder_channels: int = 64,
        levels: int = 4,
        width: int = 256,
        unet_channels: int = 64,
        steps: int = 4,
        oracle: bool = True,
        weight_compat: bool = False,
    ):
        super().__init__()
        self.scale = checked_scale(self, scale, SCALES)
        self.capabilities = Capabilities(
            receptive_radius=None,
            local_receptive_radius=HALO,
            scales=SCALES,
            tiling="overlap",
            blend=BLEND,
            stochastic=True,
            steps=steps,
        )
        self.seed, self.latent_channels, self.weight_compat = 0, latent_channels, weight_compat
        self.schedule = schedule(steps)
        self.interpolate = Interpolation(weight_compat)
        self.condition = ConditionNetwork(latent_channels, encoder_channels)
        self.unet = LatentUNet(latent_channels, unet_channels)
        self.register_buffer("latent_scale", torch.ones(()))
        decoder = Decoder(latent_channels, channels, n_modules, levels, width)
        self.autoencoder = Autoencoder(latent_channels, encoder_channels if oracle else 0, decoder)

    @property
    def tail(self) -> nn.Module:
        return self.autoencoder.decoder.upsampler.fuse

    def with_seed(self, seed: int) -> LDCSR:
        """The network, its tensors shared, that draws other noise."""
        network = copy.copy(self)
        network.seed = seed
        return network

    def forward(self, lr: Tensor, size: tuple[int, int] | None = None, origin: Tensor | None = None) -> Tensor:
        """SR images (B, 3, H, W), not clamped.

        Args:
            lr: LR images (B, 3, h, w) in [0, 1].
            size: (H, W); None is (round(scale * h), round(scale * w)).
            origin: int64 (B, 2), row and column of each image's first pixel within a larger image, whose noise it
                gets; None: they are whole images.

        Raises:
            UserError: a size beyond x1 to x10.
        """
        up = self.interpolate(lr, target_size(lr, self.scale, size))
        hr_size = (up.shape[-2], up.shape[-1])
        condition = self.condition(2 * up - 1)
        first, *others = self.noise(origin, lr, hr_size)
        latent = self.denoise(first, condition, lr.shape[-2], hr_size[0], others)
        return self.autoencoder.decode(latent / self.latent_scale, lr, up)

    def denoise(self, noisy: Tensor, condition: Tensor, lr_height: int, height: int, noises: list[Tensor]) -> Tensor:
        """The chain from z_{T-1} to the latent (B, L, h, w), scaled to unit variance; differentiable.

        Args:
            noisy: z_{T-1} (B, L, h, w).
            condition: of the same shape.
            lr_height, height: of the LR and of the HR image.
            noises: standard normal numbers of the steps T-1 ... 1.
        """
        scale = height / lr_height
        told = float(int(scale)) if self.weight_compat else scale
        return self.schedule.run(noisy, lambda z, t: self.unet(z, condition, t, told, height).float(), noises)

    def noise(self, origin: Tensor | None, lr: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """Standard normal numbers (B, L, *latent_size(size)) of the start and of every step but the last.

        A latent cell covers 8 HR pixels; a window whose origin lies between two gets the noise of the first.
        """
        if origin is None:
            origin = torch.zeros(len(lr), 2, dtype=torch.long)
        sides = zip(origin.unbind(1), size, lr.shape[-2:], strict=True)
        cells = torch.stack([place * side // (CELL * lr_side) for place, side, lr_side in sides], 1)
        return [
            normal_field(self.seed, draw, self.latent_channels, cells, latent_size(size), lr.device)
            for draw in range(self.schedule.steps)
        ]

    def reconstruct(self, hr: Tensor, lr: Tensor) -> Tensor:
        """The oracle: HR images (B, 3, H, W) in [0, 1] through the autoencoder, from their LR images (B, 3, h, w).

        Raises:
            UserError: the network was built without its encoder.
        """
        if self.autoencoder.encoder is None:
            raise UserError("LDCSR: built with oracle: false, so it has no encoder; build it with oracle: true")
        up = self.interpolate(lr, (hr.shape[-2], hr.shape[-1]))
        return self.autoencoder.decode(self.autoencoder.encode(hr, up).mean, lr, up)
