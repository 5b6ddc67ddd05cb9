"""The decoder: super-resolves the LR image at any scale, and takes the detail that it cannot know from the latent."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.ldcsr.encoder import norm_groups
from models.ldcsr.upsampler import ContinuousUpsampler
from models.networks.imdn import SLOPE, MultiDistillation
from utils.errors import UserError
from utils.extras import require

LEVELS = 4
SMALLEST_NORM = 1e-8
COLOURS = 3
QUIET = 0.1  # factor of what shall hardly be heard at the start
PRIOR = 0.1  # of the latent beside the image at the start


def residual_block(channels: int) -> nn.Module:
    """GroupNorm, SiLU and convolution, twice, then the skip: (B, C, h, w) to the same."""
    block = require("diffusers.models.resnet", "generative").ResnetBlock2D
    return block(in_channels=channels, temb_channels=None, groups=norm_groups(channels), eps=1e-6)


class FeatureRefinement(nn.Module):
    """FRU: a chain of information multi-distillation modules, whose outputs are fused and added to the input.

    Args:
        channels: feature maps.
        n_modules: length of the chain.
    """

    def __init__(self, channels: int, n_modules: int):
        super().__init__()
        self.chain = nn.ModuleList(MultiDistillation(channels) for _ in range(n_modules))
        self.squeeze = nn.Conv2d(n_modules * channels, channels, 1)
        self.last = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        outputs, y = [], x
        for module in self.chain:
            y = module(y)
            outputs.append(y)
        return x + self.last(F.leaky_relu(self.squeeze(torch.cat(outputs, 1)), SLOPE))


class PriorLevel(nn.Module):
    """One level of the decoder: the latent's features a little deeper, and how strongly the scale mixes them in.

    Args:
        channels: feature maps.
        n_modules: of the feature refinement.
    """

    def __init__(self, channels: int, n_modules: int):
        super().__init__()
        self.blocks = nn.Sequential(residual_block(channels), residual_block(channels))
        self.transfer = nn.Conv2d(channels, channels, 1)
        self.image_gain = nn.Linear(1, channels)
        self.prior_gain = nn.Linear(1, channels)
        self.refine = FeatureRefinement(channels, n_modules)
        with torch.no_grad():  # so that the image passes
            for gain, start in ((self.image_gain, 1.0), (self.prior_gain, PRIOR)):
                gain.weight.mul_(QUIET**2)
                nn.init.constant_(gain.bias, start)
            self.refine.last.weight.mul_(QUIET)
            self.refine.last.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, deep: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the image (B, C, h, w) and of the latent (B, C, h', w').

        Args:
            x: features of the image.
            deep: features of the latent.
            scale: (1,), HR pixels per LR pixel.
        """
        for block in self.blocks:
            deep = block(deep, None)
        prior = F.interpolate(self.transfer(deep), size=x.shape[-2:], mode="nearest")
        a, b = self.image_gain(scale), self.prior_gain(scale)
        norm = torch.rsqrt(a.square() + b.square() + SMALLEST_NORM)  # a and b lie on the unit circle
        x = F.leaky_relu((a * norm)[:, None, None] * x + (b * norm)[:, None, None] * prior, 0.01)
        return self.refine(x), deep


class Decoder(nn.Module):
    """What the latent and the LR image add to the interpolated image.

    Args:
        latent_channels: of the latent.
        channels: feature maps, a multiple of 4.
        n_modules: multi-distillation modules of each of the four feature refinements.
        levels: see ContinuousUpsampler.
        width: see ContinuousUpsampler.

    Raises:
        UserError: channels is no multiple of 4, or width is odd.
    """

    def __init__(self, latent_channels: int, channels: int, n_modules: int, levels: int, width: int):
        super().__init__()
        if channels % 4:
            raise UserError(f"LDCSR: channels is {channels}, but must be a multiple of 4")
        if width % 2:
            raise UserError(f"LDCSR: width is {width}, but must be even")
        self.from_latent = nn.Conv2d(latent_channels, channels, 3, padding=1)
        self.middle = nn.Sequential(residual_block(channels), residual_block(channels))
        self.from_image = nn.Conv2d(3, channels, 3, padding=1)
        self.levels = nn.ModuleList(PriorLevel(channels, n_modules) for _ in range(LEVELS))
        # The authors' networks carry this number and never use it; here it lets their weights be read completely.
        self.unused = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.upsampler = ContinuousUpsampler(channels, levels, width)
        self.initialize_weights()

    def initialize_weights(self) -> None:
        """The first maps are the colours and their opposites, and pass all levels; from a random start the decoder only
        learns to add nothing."""
        with torch.no_grad():
            self.from_image.weight.mul_(QUIET)
            self.from_image.bias = nn.Parameter(torch.zeros(len(self.from_image.weight)))
            self.from_image.weight[: 2 * COLOURS] = 0
            for channel in range(min(2 * COLOURS, len(self.from_image.weight))):
                self.from_image.weight[channel, channel % COLOURS, 1, 1] = 1 if channel < COLOURS else -1

    def forward(self, latent: Tensor, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """Difference (B, 3, H, W), in units of [-1, 1], between the SR image and the interpolated one.

        Args:
            latent: (B, L, H // 8, W // 8).
            lr: LR images (B, 3, h, w) in [-1, 1].
            size: (H, W).
        """
        deep = self.from_latent(latent)
        for block in self.middle:
            deep = block(deep, None)
        scale = lr.new_tensor([size[0] / lr.shape[-2]])  # of the heights alone, as the authors have it
        x = self.from_image(lr)
        for level in self.levels:
            x, deep = level(x, deep, scale)
        return self.upsampler(x, size)
