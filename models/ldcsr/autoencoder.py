"""Stage 1 of LDCSR: HR image to latent and back, both in sight of the LR image."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.arbitrary_scale import BicubicToSize
from models.ldcsr.decoder import Decoder
from models.ldcsr.encoder import DifferenceEncoder

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution


class Interpolation(nn.Module):
    """Bicubic interpolation of LR images (B, 3, h, w) to any size.

    Args:
        pytorch: PyTorch's kernel (a = -0.75), which the authors' weights were trained with, instead of MATLAB's (-0.5).
    """

    def __init__(self, pytorch: bool):
        super().__init__()
        self.pytorch, self.matlab = pytorch, BicubicToSize()

    def forward(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        # In bfloat16 it would round what the decoder only adds to; shapes alone know no autocast.
        with nullcontext() if lr.is_meta else torch.autocast(lr.device.type, enabled=False):
            if self.pytorch:
                return F.interpolate(lr.float(), size=size, mode="bicubic", align_corners=False)
            return self.matlab(lr.float(), size)


class Autoencoder(nn.Module):
    """Difference-prior autoencoder. All images are in [0, 1].

    Args:
        latent_channels: of the latent.
        encoder_channels: feature maps of the encoder at full resolution; 0: no encoder, which only training needs.
        decoder: see models/ldcsr/decoder.py.
    """

    def __init__(self, latent_channels: int, encoder_channels: int, decoder: Decoder):
        super().__init__()
        self.encoder = DifferenceEncoder(latent_channels, encoder_channels) if encoder_channels else None
        self.unpack = nn.Conv2d(latent_channels, latent_channels, 1)
        self.decoder = decoder

    def encode(self, hr: Tensor, up: Tensor) -> DiagonalGaussianDistribution:
        """Posterior of the latent (B, L, H // 8, W // 8).

        Args:
            hr: HR images (B, 3, H, W).
            up: their LR images, interpolated to the same size.
        """
        assert self.encoder is not None
        return self.encoder(2 * hr - 1, 2 * up - 1)

    def decode(self, latent: Tensor, lr: Tensor, up: Tensor) -> Tensor:
        """SR images (B, 3, H, W), not clamped: the interpolated ones and what the decoder adds.

        Args:
            latent: (B, L, H // 8, W // 8).
            lr: LR images (B, 3, h, w).
            up: the same, interpolated to (H, W).
        """
        size, dtype = (up.shape[-2], up.shape[-1]), self.unpack.weight.dtype
        return up + self.decoder(self.unpack(latent.to(dtype)), (2 * lr - 1).to(dtype), size).float() / 2
