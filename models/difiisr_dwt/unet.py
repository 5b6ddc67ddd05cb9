"""The U-Net with Swin groups that ResShift and DifIISR use as denoiser (arXiv:2307.12348, appendix; arXiv:2503.01187).

Residual blocks whose second GroupNorm is scaled and shifted by the time step (FiLM); a Swin group after the first block
of every level, on the way down and up, and in the middle; convolutions that halve, nearest pixels and convolutions that
double. With 160 channels: 118.594 M parameters for 6 channels in and 3 out.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.difiisr_dwt.swin import SwinGroup, group_norm
from models.networks.interpolation_init import init_zero
from utils.errors import UserError

LONGEST_PERIOD = 10_000  # of the sines of a time step, in steps


def time_waves(t: Tensor, channels: int) -> Tensor:
    """Cosines and sines (B, channels) of the whole-numbered time steps (B,)."""
    half = channels // 2
    rates = torch.exp(-math.log(LONGEST_PERIOD) * torch.arange(half, device=t.device) / half)
    angles = t[:, None].float() * rates
    return torch.cat([angles.cos(), angles.sin()], -1)


class ResBlock(nn.Module):
    """Residual block that knows the time step.

    Args:
        inputs, outputs: channels.
        time: channels of the embedded time step.
    """

    def __init__(self, inputs: int, outputs: int, time: int):
        super().__init__()
        self.norm1, self.conv1 = group_norm(inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.film = nn.Linear(time, 2 * outputs)
        self.norm2, self.conv2 = group_norm(outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        init_zero(self.conv2)  # a block starts as its skip connection

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.film(F.silu(time))[..., None, None].chunk(2, 1)
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))
        return self.skip(x) + h


class Stage(nn.Module):
    """A residual block, and a Swin group behind it where the level begins."""

    def __init__(self, block: ResBlock, attention: SwinGroup | None = None):
        super().__init__()
        self.block, self.attention = block, attention

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        x = self.block(x, time)
        return x if self.attention is None else self.attention(x)


class Double(nn.Module):
    """Twice the side: nearest pixels, then a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class SwinUNet(nn.Module):
    """Denoiser f(x, t).

    Args:
        inputs, outputs: channels of the maps that come and go.
        channels: of the first level.
        mult: channels of every level, as multiples of it; each level has half the side of the one before.
        n_blocks: residual blocks of a level on the way down; one more on the way up.
        swin_depth: attention blocks of a Swin group.
        swin_dim: channels of its tokens, a multiple of 32, the channels of a head.
        window: side of its windows.

    Attributes:
        multiple: sides of maps must be multiples of it.

    Raises:
        UserError: channels that do not divide.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        channels: int = 160,
        mult: tuple[int, ...] = (1, 2, 2, 4),
        n_blocks: int = 2,
        swin_depth: int = 2,
        swin_dim: int = 192,
        window: int = 8,
    ):
        super().__init__()
        if channels % 2 or swin_dim % 32:
            raise UserError(f"channels is {channels}, swin_dim {swin_dim}: they must be multiples of 2 and of 32")
        self.channels, self.multiple, time = channels, window * 2 ** (len(mult) - 1), 4 * channels

        def stage(sources: int, targets: int, attends: bool = True) -> Stage:
            group = SwinGroup(targets, swin_dim, swin_depth, window) if attends else None
            return Stage(ResBlock(sources, targets, time), group)

        self.time = nn.Sequential(nn.Linear(channels, time), nn.SiLU(), nn.Linear(time, time))
        self.entry = nn.Conv2d(inputs, channels, 3, padding=1)
        widths, width, skips = [channels * factor for factor in mult], channels, [channels]
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        for level, target in enumerate(widths):
            if level:
                self.shrink.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                skips.append(width)
            for number in range(n_blocks):
                self.down.append(stage(width, target, number == 0))
                width = target
                skips.append(width)
        self.middle = nn.ModuleList([stage(width, width), stage(width, width, False)])
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for level, target in reversed(list(enumerate(widths))):
            for number in range(n_blocks + 1):
                self.up.append(stage(width + skips.pop(), target, number == 0))
                width = target
            if level:
                self.grow.append(Double(width))
        self.n_blocks, self.levels = n_blocks, len(mult)
        self.norm, self.leave = group_norm(width), nn.Conv2d(width, outputs, 3, padding=1)
        init_zero(self.leave)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Maps (B, inputs, h, w), sides multiples of `multiple`, at steps t (B,) to (B, outputs, h, w)."""
        time = self.time(time_waves(t, self.channels).to(x.dtype))
        x = self.entry(x)
        skips = [x]
        for number, stage in enumerate(self.down):
            if number and number % self.n_blocks == 0:
                x = self.shrink[number // self.n_blocks - 1](x)
                skips.append(x)
            x = stage(x, time)
            skips.append(x)
        for stage in self.middle:
            x = stage(x, time)
        for number, stage in enumerate(self.up):
            if number and number % (self.n_blocks + 1) == 0:
                x = self.grow[number // (self.n_blocks + 1) - 1](x)
            x = stage(torch.cat([x, skips.pop()], 1), time)
        return self.leave(F.silu(self.norm(x)))
