"""Continuous-scale upsampling module (CSUM): features at x1 to x8, weighted by the scale and fused per pixel."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FIRST_STD = 0.01  # of the last layer's weights
HIDDEN = 64  # units of the layer that turns the scale into weights


def start(layer: nn.Conv2d, weight: Tensor) -> None:
    """Give a layer of 1x1 convolutions its matrix (outputs, inputs), and no bias."""
    layer.weight = nn.Parameter(weight[..., None, None])
    layer.bias = nn.Parameter(torch.zeros(len(weight)))


class ContinuousUpsampler(nn.Module):
    """Features (B, C, h, w) to colours (B, 3, H, W) of any size. All levels are built whatever the size is.

    Args:
        channels: feature maps.
        levels: of the pyramid, each twice as fine as the one before; 4 reach x8.
        width: of the four layers that fuse the levels at every pixel.
    """

    def __init__(self, channels: int, levels: int, width: int):
        super().__init__()
        self.finer = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, 4 * channels, 3, padding=1), nn.PixelShuffle(2))
            for _ in range(levels - 1)
        )
        self.weights = nn.Sequential(nn.Linear(1, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, levels), nn.Sigmoid())
        widths = [levels * channels, *(width,) * 4]
        hidden = [layer for a, b in pairwise(widths) for layer in (nn.Conv2d(a, b, 1), nn.ReLU(inplace=True))]
        self.fuse = nn.Sequential(*hidden, nn.Conv2d(width, 3, 1))
        self.initialize_weights()

    def initialize_weights(self) -> None:
        """Looks-linear start (Balduzzi et al. 2017, arXiv:1702.08591).

        Units come in pairs of opposite sign, so that all that is in the features reaches the last layer and ReLU kills
        nothing of it; the result nearly is 0.
        """
        first, *middle, last = [layer for layer in self.fuse if isinstance(layer, nn.Conv2d)]
        half = nn.init.orthogonal_(torch.empty(first.out_channels // 2, first.in_channels))
        start(first, torch.cat([half, -half]))
        for layer in middle:
            half = nn.init.orthogonal_(torch.empty(layer.out_channels // 2, layer.in_channels // 2))
            pair = torch.cat([half, -half], 1)
            start(layer, torch.cat([pair, -pair]))
        half = nn.init.normal_(torch.empty(last.out_channels, last.in_channels // 2), std=FIRST_STD)
        start(last, torch.cat([half, -half], 1))  # not 0, where no gradient would reach the features

    @property
    def last(self) -> nn.Conv2d:
        """The last convolution, at which the two losses of a GAN are balanced."""
        layer = self.fuse[-1]
        assert isinstance(layer, nn.Conv2d)
        return layer

    def forward(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        inverse = features.new_tensor([[features.shape[-2] / size[0]]])
        weights = self.weights(inverse)[0]
        resized, level = [], features
        for number, weight in enumerate(weights):
            level = level if number == 0 else self.finer[number - 1](level)
            resized.append(weight * F.interpolate(level, size=size, mode="bilinear", align_corners=False))
        return self.fuse(torch.cat(resized, 1))
