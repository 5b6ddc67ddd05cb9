"""RFDN (Liu et al. 2020, arXiv:2009.11551): IMDN's distillation by 1x1 convolutions, with spatial attention.

LR images (B, 3, h, w) in [0, 1] become (B, 3, scale * h, scale * w); the output is not clamped. Weights are named as in
the authors' repository, whose released network (the winner of AIM 2020) is the default. The attention is computed on a
coarse grid laid out from the image's corner and stretched over its size, so what a pixel gets depends on where in the
image it lies: the reach is that of the convolutions at LR resolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from models.capabilities import Capabilities, checked_scale
from models.networks.interpolation_init import init_copy, init_pixel_shuffle, init_zero
from models.sr_network import SRNetwork
from models.sr_quality import conv
from utils.errors import UserError

SLOPE = 0.05
SMALLEST = 15  # LR pixels from which on the coarse grid has a position: stride-2 3x3 convolution, 7x7 pooling


class SpatialAttention(nn.Module):
    """Enhanced spatial attention (ESA): a mask in (0, 1) for every map and pixel."""

    def __init__(self, n_feats: int):
        super().__init__()
        narrow = max(1, n_feats // 4)
        self.conv1 = conv(n_feats, narrow, 1)
        self.conv_f = conv(narrow, narrow, 1)
        self.conv_max = conv(narrow, narrow)
        self.conv2 = nn.Conv2d(narrow, narrow, 3, stride=2)
        self.conv3 = conv(narrow, narrow)
        self.conv3_ = conv(narrow, narrow)
        self.conv4 = conv(narrow, n_feats, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[-2:]
        fine = coarse = self.conv1(x)
        if min(height, width) < SMALLEST:
            missing = (0, max(0, SMALLEST - width), 0, max(0, SMALLEST - height))
            coarse = F.pad(fine, missing, mode="replicate")
        coarse = F.max_pool2d(self.conv2(coarse), 7, stride=3)
        coarse = F.relu(self.conv3(F.relu(self.conv_max(coarse))))
        coarse = F.interpolate(self.conv3_(coarse), (height, width), mode="bilinear", align_corners=False)
        return x * torch.sigmoid(self.conv4(coarse + self.conv_f(fine)))


class FeatureDistillation(nn.Module):
    """Three times: half of the maps kept by a 1x1 convolution, a 3x3 one with a skip passed on; then attention."""

    c1_d: nn.Conv2d
    c1_r: nn.Conv2d
    c2_d: nn.Conv2d
    c2_r: nn.Conv2d
    c3_d: nn.Conv2d
    c3_r: nn.Conv2d

    def __init__(self, n_feats: int):
        super().__init__()
        kept = n_feats // 2
        for k in (1, 2, 3):
            self.add_module(f"c{k}_d", conv(n_feats, kept, 1))
            self.add_module(f"c{k}_r", conv(n_feats, n_feats))
        self.c4 = conv(n_feats, kept)
        self.c5 = conv(4 * kept, n_feats, 1)
        self.esa = SpatialAttention(n_feats)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = []
        for distil, refine in ((self.c1_d, self.c1_r), (self.c2_d, self.c2_r), (self.c3_d, self.c3_r)):
            parts.append(F.leaky_relu(distil(x), SLOPE))
            x = F.leaky_relu(x + refine(x), SLOPE)
        parts.append(F.leaky_relu(self.c4(x), SLOPE))
        return self.esa(self.c5(torch.cat(parts, 1)))


class RFDN(SRNetwork):
    """RFDN.

    Args:
        scale: 2, 3 or 4.
        n_blocks: blocks.
        n_feats: feature maps, at least 2.

    Raises:
        ValueError: n_feats is below 2.
    """

    def __init__(self, scale: int, n_blocks: int = 4, n_feats: int = 50):
        super().__init__()
        if n_feats < 2:
            raise UserError(f"RFDN: n_feats is {n_feats}, but must be at least 2")
        self.scale = checked_scale(self, scale)
        self.n_blocks = n_blocks
        self.capabilities = Capabilities(None, local_receptive_radius=1 + 4 * n_blocks + 1 + 1, tiling="overlap")
        self.fea_conv = conv(3, n_feats)
        for k in range(1, n_blocks + 1):
            self.add_module(f"B{k}", FeatureDistillation(n_feats))
        self.c = nn.Sequential(conv(n_blocks * n_feats, n_feats, 1), nn.LeakyReLU(SLOPE, inplace=True))
        self.LR_conv = conv(n_feats, n_feats)
        self.upsampler = nn.Sequential(conv(n_feats, 3 * scale**2), nn.PixelShuffle(scale))
        self.initialize_weights()

    @property
    def tail(self) -> nn.Sequential:
        return self.upsampler

    def initialize_weights(self) -> None:
        init_copy(self.fea_conv, 3, shift=-0.5)  # centred, so that the zero padding of later layers is mid-grey
        init_zero(self.LR_conv)  # the body starts as the identity
        init_pixel_shuffle(self.upsampler[0], 3, self.scale, shift=0.5)

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        shallow = x = self.fea_conv(lr)  # (B, n_feats, h, w)
        outputs = []
        for k in range(1, self.n_blocks + 1):
            x = self.get_submodule(f"B{k}")(x)
            outputs.append(x)
        x = shallow + self.LR_conv(self.c(torch.cat(outputs, 1)))
        return self.upsampler(x)  # (B, 3, scale * h, scale * w)
