"""Discriminator that looks through the eyes of a frozen classifier, at several levels (Kumari et al. 2022,
arXiv:2112.09130): small heads judge its features, and only they learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from utils.errors import UserError
from utils.extras import require

WIDTH = 512  # channels within a head
LEAST_SIDE = 4  # cells of a map, of which both strides of a head leave one
BINOMIAL = (1.0, 3.0, 3.0, 1.0)
# Colour statistics that CLIP was trained with, for images in [0, 1].
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class Backbone(Protocol):
    """What a discriminator looks through.

    Attributes:
        map_channels: of its feature maps, from fine to coarse.
        vector_width: of the vector that describes the whole image.
    """

    map_channels: Sequence[int]
    vector_width: int

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Feature maps (B, C, h, w) and, last, the vector (B, width) of images (B, 3, H, W) in [-1, 1]."""


class ConvNeXtBackbone(nn.Module):
    """ConvNeXt (Liu et al. 2022, arXiv:2201.03545): the maps of all stages but the last, and the pooled embedding.

    Args:
        network: timm's, in evaluation mode; its classifier, if it has one, makes the embedding.
    """

    network: Any  # timm's, whose methods a type checker cannot see
    mean: Tensor
    std: Tensor

    def __init__(self, network: Any):
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        channels = [stage["num_chs"] for stage in network.feature_info]
        self.map_channels, classes = channels[:-1], getattr(network, "num_classes", 0)
        self.vector_width: int = classes or channels[-1]
        self.register_buffer("mean", torch.tensor(CLIP_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(CLIP_STD)[:, None, None], persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> ConvNeXtBackbone:
        """Always in evaluation mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = ((images + 1) / 2 - self.mean) / self.std
        last, maps = self.network.forward_intermediates(x, norm=False)
        # Some versions of timm give the stem before the stages.
        return [*maps[-len(self.map_channels) - 1 : -1], self.network.forward_head(last)]


def timm_backbone(name: str, embedding: int = 0) -> ConvNeXtBackbone:
    """A ConvNeXt by timm's name with random weights; `embedding`: width of CLIP's projection, 0 pools alone."""
    timm = require("timm", "generative")
    return ConvNeXtBackbone(timm.create_model(name, pretrained=False, num_classes=embedding))


class Blur(nn.Module):
    """Binomial 4x4 filter of every channel, zeros beyond the border; against aliasing before a stride (Zhang 2019)."""

    kernel: Tensor

    def __init__(self, padding: int):
        super().__init__()
        self.padding = padding
        line = torch.tensor(BINOMIAL)
        kernel = line[:, None] * line
        self.register_buffer("kernel", kernel / kernel.sum(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel.to(x.dtype).expand(x.shape[1], 1, -1, -1)
        return F.conv2d(x, kernel, padding=self.padding, groups=x.shape[1])


def map_head(channels: int) -> nn.Sequential:
    """Judges a feature map (B, channels, h, w): logits (B, 1, h / 4, w / 4)."""
    return nn.Sequential(
        Blur(2),
        spectral_norm(nn.Conv2d(channels, WIDTH, 3, stride=2)),
        nn.LeakyReLU(0.2),
        Blur(1),
        spectral_norm(nn.Conv2d(WIDTH, 1, 1, stride=2)),
    )


def vector_head(width: int) -> nn.Sequential:
    """Judges a vector (B, width): a logit (B, 1)."""
    return nn.Sequential(spectral_norm(nn.Linear(width, WIDTH)), nn.LeakyReLU(0.2), spectral_norm(nn.Linear(WIDTH, 1)))


class MultiLevelDiscriminator(nn.Module):
    """A head for every level of a frozen backbone; state dict, mode and gradients are those of the heads.

    Args:
        backbone: what it looks through.
    """

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone = (backbone,)  # in a tuple: fixed, and no part of the state
        heads = [map_head(channels) for channels in backbone.map_channels]
        self.heads = nn.ModuleList([*heads, vector_head(backbone.vector_width)])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Logits, one tensor a level, of images (B, 3, H, W) in [-1, 1]: high where they look real.

        Raises:
            UserError: images that are too small for the coarsest map.
        """
        levels = self.backbone[0](images)
        side = min(min(level.shape[-2:]) for level in levels[:-1])
        if side < LEAST_SIDE:
            raise UserError(
                f"discriminator: images of {images.shape[-2]}x{images.shape[-1]} have a map of {side} cells a side, "
                f"but {LEAST_SIDE} are needed; take larger patches"
            )
        return [head(level) for head, level in zip(self.heads, levels, strict=True)]


def level_loss(logits: Sequence[Tensor], target: float) -> Tensor:
    """Binary cross-entropy with one target, the mean over images and places, summed over the levels.

    For a target below 1 its gradient turns round beyond logit ln(target / (1 - target)), 1.386 for 0.8.
    """
    terms = [F.binary_cross_entropy_with_logits(level, torch.full_like(level, target)) for level in logits]
    return torch.stack(terms).sum()


def discriminator_loss(real: Sequence[Tensor], made: Sequence[Tensor], real_target: float = 0.8) -> Tensor:
    """Loss of the discriminator from its logits on real and on made images; one-sided label smoothing."""
    return level_loss(real, real_target) + level_loss(made, 0.0)
