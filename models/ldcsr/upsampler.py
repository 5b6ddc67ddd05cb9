"""Continuous-scale upsampling module (CSUM): features at x1 to x8, weighted by the scale and fused per pixel."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FIRST_STD = 0.01  # of the last layer's weights
HIDDEN = 64  # units of the layer that turns the scale into weights


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
        layers = [layer for layer in self.fuse if isinstance(layer, nn.Conv2d)]
        for layer in layers:
            outputs, inputs = layer.out_channels, layer.in_channels
            halves = inputs if layer is layers[0] else inputs // 2
            half = torch.empty(outputs if layer is layers[-1] else outputs // 2, halves)
            if layer is layers[-1]:
                nn.init.normal_(half, std=FIRST_STD)  # at 0 no gradient would reach the features
            else:
                nn.init.orthogonal_(half)
            weight = half if layer is layers[0] else torch.cat([half, -half], 1)
            weight = weight if layer is layers[-1] else torch.cat([weight, -weight])
            layer.weight = nn.Parameter(weight[..., None, None].contiguous())
            layer.bias = nn.Parameter(torch.zeros(outputs))

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
