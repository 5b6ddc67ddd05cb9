"""Feature encoders for arbitrary-scale SR: the bodies of EDSR-baseline and RDN without upsampling.

Both map images (B, 3, h, w) in [-1, 1] to features (B, n_feats, h, w). `receptive_radius` is in LR pixels, `multiple`
what the sides of the input must be divisible by. Weights are named as by the authors of LMF.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.sr_quality import ResBlock, conv


class EDSREncoder(nn.Module):
    """EDSR (Lim et al. 2017, arXiv:1707.02921) up to the upsampler; 16 blocks of 64 maps are "EDSR-baseline".

    Args:
        n_blocks: residual blocks.
        n_feats: feature maps.
    """

    multiple = 1

    def __init__(self, n_blocks: int = 16, n_feats: int = 64):
        super().__init__()
        self.receptive_radius = 1 + 2 * n_blocks + 1
        self.head = nn.Sequential(conv(3, n_feats))
        self.body = nn.Sequential(*[ResBlock(n_feats, 1.0) for _ in range(n_blocks)], conv(n_feats, n_feats))

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        return x + self.body(x)


class DenseBlock(nn.Module):
    """Every convolution sees all maps before it; a 1x1 convolution fuses them, its result is added to the input."""

    def __init__(self, n_feats: int, growth: int, n_convs: int):
        super().__init__()
        layers = [nn.Sequential(conv(n_feats + i * growth, growth), nn.ReLU()) for i in range(n_convs)]
        self.convs = nn.ModuleList(layers)
        self.LFF = nn.Conv2d(n_feats + n_convs * growth, n_feats, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = x
        for layer in self.convs:
            maps = torch.cat((maps, layer(maps)), dim=1)
        return x + self.LFF(maps)


class RDNEncoder(nn.Module):
    """RDN (Zhang et al. 2018, arXiv:1802.08797) up to the upsampler; the defaults are its configuration "B".

    Args:
        n_blocks: dense blocks.
        n_feats: feature maps between the blocks.
        growth: maps that a convolution adds.
        n_convs: convolutions of a block.
    """

    multiple = 1

    def __init__(self, n_blocks: int = 16, n_feats: int = 64, growth: int = 64, n_convs: int = 8):
        super().__init__()
        self.receptive_radius = 2 + n_blocks * n_convs + 1
        self.SFENet1 = conv(3, n_feats)
        self.SFENet2 = conv(n_feats, n_feats)
        self.RDBs = nn.ModuleList([DenseBlock(n_feats, growth, n_convs) for _ in range(n_blocks)])
        self.GFF = nn.Sequential(nn.Conv2d(n_blocks * n_feats, n_feats, 1), conv(n_feats, n_feats))

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.SFENet1(x)
        x = self.SFENet2(shallow)
        blocks = []
        for block in self.RDBs:
            x = block(x)
            blocks.append(x)
        return shallow + self.GFF(torch.cat(blocks, dim=1))
