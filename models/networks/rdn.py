"""RDN (Zhang et al. 2018, arXiv:1802.08797): residual dense blocks, all of whose outputs are fused.

LR images (B, 3, h, w) in [0, 1] become (B, 3, scale * h, scale * w); the output is not clamped. Weights are named as in
EDSR-PyTorch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from models.capabilities import Capabilities, checked_scale
from models.networks.interpolation_init import init_copy, init_pixel_shuffle, init_zero
from models.sr_network import SRNetwork
from models.sr_quality import UPSAMPLING_STAGES, conv, tail_radius


class DenseLayer(nn.Module):
    """Appends `growth` maps to its input."""

    def __init__(self, inputs: int, growth: int):
        super().__init__()
        self.conv = nn.Sequential(conv(inputs, growth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, F.relu(self.conv(x))], 1)


class ResidualDenseBlock(nn.Module):
    """Dense layers, a 1x1 convolution back to `n_feats` maps (local feature fusion), and a skip."""

    def __init__(self, n_feats: int, growth: int, n_layers: int):
        super().__init__()
        self.convs = nn.Sequential(*[DenseLayer(n_feats + k * growth, growth) for k in range(n_layers)])
        self.LFF = conv(n_feats + n_layers * growth, n_feats, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.LFF(self.convs(x))


class RDN(SRNetwork):
    """RDN; the defaults (D = 16, C = 8, G = 64) are the published network.

    Args:
        scale: 2, 3 or 4.
        n_blocks: residual dense blocks (D).
        n_layers: convolutions of a block (C).
        growth: maps that each of them adds, also the maps of the upsampler (G).
        n_feats: maps between the blocks (G0).
    """

    def __init__(self, scale: int, n_blocks: int = 16, n_layers: int = 8, growth: int = 64, n_feats: int = 64):
        super().__init__()
        self.scale = checked_scale(self, scale)
        self.capabilities = Capabilities(receptive_radius=2 + n_blocks * n_layers + 1 + tail_radius(scale, 3))
        self.SFENet1 = conv(3, n_feats)
        self.SFENet2 = conv(n_feats, n_feats)
        self.RDBs = nn.ModuleList(ResidualDenseBlock(n_feats, growth, n_layers) for _ in range(n_blocks))
        self.GFF = nn.Sequential(conv(n_blocks * n_feats, n_feats, 1), conv(n_feats, n_feats))
        stages, inputs = [], n_feats
        for factor in UPSAMPLING_STAGES[scale]:
            stages += [conv(inputs, growth * factor**2), nn.PixelShuffle(factor)]
            inputs = growth
        self.UPNet = nn.Sequential(*stages, conv(growth, 3))
        self.initialize_weights()

    @property
    def tail(self) -> nn.Sequential:
        return self.UPNet

    def initialize_weights(self) -> None:
        init_copy(self.SFENet1, 3, shift=-0.5)  # centred, so that the zero padding of later layers is mid-grey
        init_zero(self.GFF[1])  # the body starts as the identity
        for convolution, factor in zip(self.UPNet[:-1:2], UPSAMPLING_STAGES[self.scale], strict=True):
            init_pixel_shuffle(convolution, 3, factor)
        init_zero(self.UPNet[-1])
        init_copy(self.UPNet[-1], 3, shift=0.5)

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        shallow = self.SFENet1(lr)  # (B, n_feats, h, w)
        x, outputs = self.SFENet2(shallow), []
        for block in self.RDBs:
            x = block(x)
            outputs.append(x)
        x = shallow + self.GFF(torch.cat(outputs, 1))
        return self.UPNet(x)  # (B, 3, scale * h, scale * w)
