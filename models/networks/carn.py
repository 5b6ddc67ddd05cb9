"""CARN and CARN-M (Ahn et al. 2018, arXiv:1803.08664): residual blocks whose outputs cascade through 1x1 convolutions.

LR images (B, 3, h, w) in [0, 1] become (B, 3, scale * h, scale * w); the output is not clamped. Weights are named as in
the authors' repository, whose checkpoints hold the upsamplers of all scales (`upsample.up2`, `up3`, `up4`); a network
here has that of its own scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from models.capabilities import Capabilities, checked_scale
from models.networks.interpolation_init import init_copy, init_pixel_shuffle, init_zero
from models.networks.mean_colour import div2k_mean
from models.sr_network import SRNetwork
from models.sr_quality import UPSAMPLING_STAGES, tail_radius
from utils.errors import UserError


def cascade(x: torch.Tensor, blocks: Sequence[nn.Module], fusions: Sequence[nn.Module]) -> torch.Tensor:
    """Each fusion sees the input and the outputs of all blocks so far (section 3.1 of the paper)."""
    collected = x
    for block, fusion in zip(blocks, fusions, strict=True):
        collected = torch.cat([collected, block(x)], 1)  # (B, (k + 1) * n_feats, h, w)
        x = fusion(collected)
    return x


class ResidualBlock(nn.Module):
    """ReLU(x + convolutions(x)): two 3x3 ones, or two grouped 3x3 ones and a 1x1 one (the "efficient" block)."""

    def __init__(self, n_feats: int, efficient: bool, groups: int):
        super().__init__()
        layers = [
            nn.Conv2d(n_feats, n_feats, 3, padding=1, groups=groups if efficient else 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(n_feats, n_feats, 3, padding=1, groups=groups if efficient else 1),
        ]
        if efficient:
            layers += [nn.ReLU(inplace=True), nn.Conv2d(n_feats, n_feats, 1)]
        self.body = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.body(x))


class Fusion(nn.Module):
    """1x1 convolution and ReLU."""

    def __init__(self, inputs: int, n_feats: int):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(inputs, n_feats, 1), nn.ReLU(inplace=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class CascadingBlock(nn.Module):
    """Three residual blocks in a local cascade; the efficient form runs one and the same block three times."""

    def __init__(self, n_feats: int, efficient: bool, groups: int):
        super().__init__()
        self.b1 = ResidualBlock(n_feats, efficient, groups)
        if not efficient:
            self.b2 = ResidualBlock(n_feats, efficient, groups)
            self.b3 = ResidualBlock(n_feats, efficient, groups)
        self.c1, self.c2, self.c3 = (Fusion((k + 1) * n_feats, n_feats) for k in (1, 2, 3))
        self.efficient = efficient

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        blocks = (self.b1, self.b1, self.b1) if self.efficient else (self.b1, self.b2, self.b3)
        return cascade(x, blocks, (self.c1, self.c2, self.c3))


class Upsampler(nn.Module):
    """Per factor: grouped 3x3 convolution, ReLU, PixelShuffle."""

    def __init__(self, scale: int, n_feats: int, groups: int):
        super().__init__()
        layers = []
        for factor in UPSAMPLING_STAGES[scale]:
            convolution = nn.Conv2d(n_feats, n_feats * factor**2, 3, padding=1, groups=groups)
            layers += [convolution, nn.ReLU(inplace=True), nn.PixelShuffle(factor)]
        self.body = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class CARN(SRNetwork):
    """CARN; with `efficient` blocks and 4 groups it is CARN-M.

    Args:
        scale: 2, 3 or 4.
        n_feats: feature maps.
        efficient: one shared residual-E block per cascading block instead of three plain ones.
        groups: groups of the upsampler's convolutions and of the efficient blocks' 3x3 ones.

    Raises:
        ValueError: n_feats is no multiple of groups.
    """

    mean: torch.Tensor

    def __init__(self, scale: int, n_feats: int = 64, efficient: bool = False, groups: int = 1):
        super().__init__()
        if n_feats % groups:
            raise UserError(f"CARN: n_feats is {n_feats}, but must be a multiple of groups = {groups}")
        self.scale = checked_scale(self, scale)
        self.capabilities = Capabilities(receptive_radius=1 + 3 * 3 * 2 + tail_radius(scale, 3))
        self.register_buffer("mean", div2k_mean(), persistent=False)
        self.entry = nn.Conv2d(3, n_feats, 3, padding=1)
        self.b1, self.b2, self.b3 = (CascadingBlock(n_feats, efficient, groups) for _ in range(3))
        self.c1, self.c2, self.c3 = (Fusion((k + 1) * n_feats, n_feats) for k in (1, 2, 3))
        self.upsample = nn.ModuleDict({f"up{scale}": Upsampler(scale, n_feats, groups)})
        self.exit = nn.Conv2d(n_feats, 3, 3, padding=1)
        self.initialize_weights()

    @property
    def tail(self) -> nn.ModuleList:
        return nn.ModuleList([self.upsample, self.exit])

    def initialize_weights(self) -> None:
        init_copy(self.entry, 3, shift=0.5)  # positive, so that it passes every ReLU unchanged
        for part in (self.b1, self.b2, self.b3, self):
            for fusion in (part.c1, part.c2, part.c3):
                init_copy(fusion.body[0], 3)
        convolutions = [layer for layer in self.upsample.modules() if isinstance(layer, nn.Conv2d)]
        for convolution, factor in zip(convolutions, UPSAMPLING_STAGES[self.scale], strict=True):
            init_pixel_shuffle(convolution, 3, factor)
        init_zero(self.exit)
        init_copy(self.exit, 3, shift=-0.5)

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        x = self.entry(lr - self.mean)  # (B, n_feats, h, w)
        x = cascade(x, (self.b1, self.b2, self.b3), (self.c1, self.c2, self.c3))
        x = self.upsample[f"up{self.scale}"](x)  # (B, n_feats, scale * h, scale * w)
        return self.exit(x) + self.mean
