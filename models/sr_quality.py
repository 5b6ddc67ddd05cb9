"""Strong SR networks for the patches that need detail: EDSR and SRResNet.

All map LR images (B, 3, h, w) in [0, 1] to (B, 3, scale * h, scale * w); the output is not clamped. `tail` are
the upsampling layers.
"""

from __future__ import annotations

import torch
from torch import nn

from models.capabilities import Capabilities, checked_scale
from models.networks.interpolation_init import init_copy, init_pixel_shuffle, init_zero
from models.networks.mean_colour import div2k_mean as mean_colour
from models.sr_network import SRNetwork
from utils.errors import UserError

UPSAMPLING_STAGES = {2: (2,), 3: (3,), 4: (2, 2)}


def conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


def tail_radius(scale: int, kernel: int) -> int:
    """Reach in LR pixels of staged upsampling (3x3 convolutions) followed by a kernel x kernel convolution."""
    reach = kernel // 2  # in pixels of the finest resolution, outside the HR cell
    for factor in UPSAMPLING_STAGES[scale]:
        reach = -(-reach // factor) + 1
    return reach


#################################################################################
#                                      EDSR                                     #
#################################################################################


class ResBlock(nn.Module):
    """conv - ReLU - conv with a skip; no BatchNorm."""

    def __init__(self, n_feats: int, res_scale: float):
        super().__init__()
        self.body = nn.Sequential(conv(n_feats, n_feats), nn.ReLU(inplace=True), conv(n_feats, n_feats))
        self.res_scale = res_scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.add(x, self.body(x), alpha=self.res_scale)


class EDSR(SRNetwork):
    """EDSR (Lim et al. 2017, arXiv:1707.02921); 16 blocks of 64 maps are the paper's "baseline".

    Weights are named as in the authors' EDSR-PyTorch. Their networks see images in [0, 255] minus the mean colour of
    DIV2K (`sub_mean`, `add_mean`); this one sees [0, 1] and, without `div2k_mean`, learns the shift as biases of the
    first and last layer.

    Args:
        scale: 2, 3 or 4.
        n_blocks: residual blocks.
        n_feats: feature maps.
        res_scale: factor of every residual.
        tail: "staged" (the paper's: PixelShuffle per factor, then a convolution at full resolution) or "single" (one
            convolution and one PixelShuffle, all at LR resolution: about four times cheaper at x4).
        div2k_mean: subtract the mean colour of DIV2K before the first layer, add it after the last.

    Raises:
        ValueError: unknown tail.
    """

    tail: nn.Sequential
    mean: torch.Tensor | None

    def __init__(
        self,
        scale: int,
        n_blocks: int = 16,
        n_feats: int = 64,
        res_scale: float = 1.0,
        tail: str = "staged",
        div2k_mean: bool = False,
    ):
        super().__init__()
        if tail not in ("staged", "single"):
            raise UserError(f"EDSR: tail is {tail!r}; use 'staged' or 'single'")
        self.scale = checked_scale(self, scale)
        last = 1 if tail == "single" else tail_radius(scale, 3)
        self.capabilities = Capabilities(receptive_radius=1 + 2 * n_blocks + 1 + last)
        self.head = nn.Sequential(conv(3, n_feats))
        self.body = nn.Sequential(*[ResBlock(n_feats, res_scale) for _ in range(n_blocks)], conv(n_feats, n_feats))
        if tail == "single":
            self.tail = nn.Sequential(conv(n_feats, 3 * scale**2), nn.PixelShuffle(scale))
        else:
            stages = [(conv(n_feats, n_feats * f**2), nn.PixelShuffle(f)) for f in UPSAMPLING_STAGES[scale]]
            self.tail = nn.Sequential(nn.Sequential(*sum(stages, ())), conv(n_feats, 3))
        self.register_buffer("mean", mean_colour() if div2k_mean else None, persistent=False)
        self.initialize_weights()

    def initialize_weights(self) -> None:
        shift = 0.5 if self.mean is None else 0.0
        init_copy(self.head[0], 3, shift=-shift)  # centred, so that the zero padding of later layers is mid-grey
        init_zero(self.body[-1])  # the body starts as the identity
        stages = self.tail[0]
        if isinstance(stages, nn.Sequential):
            for convolution, factor in zip(stages[::2], UPSAMPLING_STAGES[self.scale], strict=True):
                init_pixel_shuffle(convolution, 3, factor)
            init_zero(self.tail[1])
            init_copy(self.tail[1], 3, shift=shift)
        else:
            init_pixel_shuffle(stages, 3, self.scale, shift=shift)

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        x = self.head(lr if self.mean is None else lr - self.mean)  # (B, n_feats, h, w)
        x = self.tail(x + self.body(x))  # (B, 3, scale * h, scale * w)
        return x if self.mean is None else x + self.mean


#################################################################################
#                                    SRResNet                                   #
#################################################################################


class BatchNormBlock(nn.Module):
    """conv - BatchNorm - PReLU - conv - BatchNorm with a skip."""

    def __init__(self, n_feats: int):
        super().__init__()
        self.body = nn.Sequential(
            conv(n_feats, n_feats),
            nn.BatchNorm2d(n_feats),
            nn.PReLU(),
            conv(n_feats, n_feats),
            nn.BatchNorm2d(n_feats),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class SRResNet(SRNetwork):
    """SRResNet (Ledig et al. 2017, arXiv:1609.04802), the original with BatchNorm, 9x9 head and 9x9 tail.

    Args:
        scale: 2, 3 or 4.
        n_blocks: residual blocks.
        n_feats: feature maps.
    """

    tail: nn.Sequential

    def __init__(self, scale: int, n_blocks: int = 16, n_feats: int = 64):
        super().__init__()
        self.scale = checked_scale(self, scale)
        self.capabilities = Capabilities(receptive_radius=4 + 2 * n_blocks + 1 + tail_radius(scale, 9))
        self.head = nn.Sequential(conv(3, n_feats, 9), nn.PReLU())
        blocks = [BatchNormBlock(n_feats) for _ in range(n_blocks)]
        self.body = nn.Sequential(*blocks, conv(n_feats, n_feats), nn.BatchNorm2d(n_feats))
        stages = [(conv(n_feats, n_feats * f**2), nn.PixelShuffle(f), nn.PReLU()) for f in UPSAMPLING_STAGES[scale]]
        self.tail = nn.Sequential(*sum(stages, ()), conv(n_feats, 3, 9))
        self.initialize_weights()

    def initialize_weights(self) -> None:
        init_copy(self.head[0], 3)  # an image in [0, 1] passes PReLU unchanged
        init_zero(self.body[-1])  # the body starts as the identity
        for convolution, factor in zip(self.tail[:-1:3], UPSAMPLING_STAGES[self.scale], strict=True):
            init_pixel_shuffle(convolution, 3, factor)
        init_zero(self.tail[-1])
        init_copy(self.tail[-1], 3)

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        x = self.head(lr)  # (B, n_feats, h, w)
        x = x + self.body(x)
        return self.tail(x)  # (B, 3, scale * h, scale * w)
