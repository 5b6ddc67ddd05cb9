"""What looks at whole HR canvases: the difference-prior encoder and the condition network, of the same layout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.errors import UserError
from utils.extras import require

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

CELL = 8  # HR pixels that one latent cell stands for, along each axis
MULTIPLIERS = (1, 2, 2, 4)
FIRST_LOG_VARIANCE = -4.0  # little noise at first: a decoder that learns to ignore the latent never looks at it again


def norm_groups(channels: int) -> int:
    """Groups of the group normalisation: 32, or fewer, so that they are equal and have at least two channels.

    Raises:
        UserError: an odd number of channels.
    """
    if channels % 2:
        raise UserError(f"LDCSR: {channels} channels cannot be normalised in pairs; take an even number")
    return max(groups for groups in range(1, min(32, channels // 2) + 1) if channels % groups == 0)


def latent_size(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the latent of an HR image: one cell for 8 pixels, rounded down, and at least one."""
    return max(1, size[0] // CELL), max(1, size[1] // CELL)


def vae_encoder(in_channels: int, out_channels: int, channels: int) -> nn.Module:
    """Encoder of a variational autoencoder (Rombach et al. 2022), no attention: (B, in, H, W) to (B, out, H/8, W/8).

    Args:
        in_channels: of the image.
        out_channels: of the latent.
        channels: feature maps at full resolution; below there are 2, 2 and 4 times as many.
    """
    return require("diffusers.models.autoencoders.vae", "generative").Encoder(
        in_channels,
        out_channels,
        ("DownEncoderBlock2D",) * len(MULTIPLIERS),
        tuple(channels * factor for factor in MULTIPLIERS),
        layers_per_block=2,
        norm_num_groups=norm_groups(channels),
        double_z=False,
        mid_block_add_attention=False,
    )


def at_least_one_cell(images: Tensor) -> Tensor:
    """Images (B, C, H, W) whose sides have at least 8 pixels, the last row and column repeated."""
    missing = [max(0, CELL - side) for side in images.shape[-2:]]
    return F.pad(images, (0, missing[1], 0, missing[0]), mode="replicate") if any(missing) else images


class DifferenceEncoder(nn.Module):
    """Posterior of the latent that tells an HR image from its interpolated LR version.

    Args:
        latent_channels: of the latent.
        channels: see `vae_encoder`.
    """

    def __init__(self, latent_channels: int, channels: int):
        super().__init__()
        self.body = vae_encoder(6, 2 * latent_channels, channels)
        self.moments = nn.Conv2d(2 * latent_channels, 2 * latent_channels, 1)
        assert self.moments.bias is not None
        nn.init.constant_(self.moments.bias[latent_channels:], FIRST_LOG_VARIANCE)

    def forward(self, hr: Tensor, up: Tensor) -> DiagonalGaussianDistribution:
        """Normal distribution with mean and standard deviation (B, L, H // 8, W // 8).

        Args:
            hr: HR images (B, 3, H, W) in [-1, 1].
            up: their LR images, interpolated to the same size, in [-1, 1].
        """
        vae = require("diffusers.models.autoencoders.vae", "generative")
        images = at_least_one_cell(torch.cat([up, hr], 1))
        moments = self.moments(self.body(images.to(self.moments.weight.dtype)))
        return vae.DiagonalGaussianDistribution(moments.float())  # clamps the logarithm of the variance to [-30, 20]


class ConditionNetwork(nn.Module):
    """The latent as far as the LR image alone tells it.

    Args:
        latent_channels: of the latent.
        channels: see `vae_encoder`.
    """

    def __init__(self, latent_channels: int, channels: int):
        super().__init__()
        self.body = vae_encoder(3, latent_channels, channels)

    def forward(self, up: Tensor) -> Tensor:
        """Latents (B, L, H // 8, W // 8), of unit variance, of interpolated LR images (B, 3, H, W) in [-1, 1]."""
        return self.body(at_least_one_cell(up).to(next(self.body.parameters()).dtype)).float()
