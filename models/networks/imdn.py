"""IMDN (Hui et al. 2019, arXiv:1909.11856): blocks that set aside a part of their maps after each convolution.

LR images (B, 3, h, w) in [0, 1] become (B, 3, scale * h, scale * w); the output is not clamped. Weights are named as in
the authors' repository. Each block ends with a channel attention over the whole image, so no distance bounds what one
LR pixel changes: the reach is that of the convolutions alone.
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


class ContrastAttention(nn.Module):
    """Scales every map by a function of the mean and the standard deviation of all maps over the image."""

    def __init__(self, n_feats: int, reduction: int = 16):
        super().__init__()
        narrow = max(1, n_feats // reduction)
        self.conv_du = nn.Sequential(conv(n_feats, narrow, 1), nn.ReLU(inplace=True), conv(narrow, n_feats, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # The bound keeps the gradient of the root finite where a map is constant.
        contrast = x.var((2, 3), correction=0, keepdim=True).clamp_min(1e-12).sqrt()
        return x * torch.sigmoid(self.conv_du(contrast + x.mean((2, 3), keepdim=True)))


class MultiDistillation(nn.Module):
    """Three times: 3x3 convolution, a quarter of the maps kept, the rest passed on; then attention, 1x1 conv, skip."""

    def __init__(self, n_feats: int):
        super().__init__()
        kept = n_feats // 4
        self.split = (kept, n_feats - kept)
        self.c1 = conv(n_feats, n_feats)
        self.c2 = conv(n_feats - kept, n_feats)
        self.c3 = conv(n_feats - kept, n_feats)
        self.c4 = conv(n_feats - kept, kept)
        self.c5 = conv(4 * kept, n_feats, 1)
        self.cca = ContrastAttention(4 * kept)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts, rest = [], x
        for layer in (self.c1, self.c2, self.c3):
            part, rest = F.leaky_relu(layer(rest), SLOPE).split(self.split, 1)
            parts.append(part)
        parts.append(self.c4(rest))
        return x + self.c5(self.cca(torch.cat(parts, 1)))


class IMDN(SRNetwork):
    """IMDN; the defaults are the published network.

    Args:
        scale: 2, 3 or 4.
        n_blocks: blocks.
        n_feats: feature maps, a multiple of 4.

    Raises:
        ValueError: n_feats is no multiple of 4.
    """

    def __init__(self, scale: int, n_blocks: int = 6, n_feats: int = 64):
        super().__init__()
        if n_feats % 4:
            raise UserError(f"IMDN: n_feats is {n_feats}, but must be a multiple of 4")
        self.scale = checked_scale(self, scale)
        self.n_blocks = n_blocks
        self.capabilities = Capabilities(None, local_receptive_radius=1 + 4 * n_blocks + 1 + 1, tiling="overlap")
        self.fea_conv = conv(3, n_feats)
        for k in range(1, n_blocks + 1):
            self.add_module(f"IMDB{k}", MultiDistillation(n_feats))
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
            x = self.get_submodule(f"IMDB{k}")(x)
            outputs.append(x)
        x = shallow + self.LR_conv(self.c(torch.cat(outputs, 1)))
        return self.upsampler(x)  # (B, 3, scale * h, scale * w)
