"""RCAN (Zhang et al. 2018, arXiv:1807.02758) of spandrel's layers.

LR images (B, 3, h, w) in [0, 1] become (B, 3, scale * h, scale * w); the output is not clamped.
"""

from __future__ import annotations

import torch
from torch import nn

from models.capabilities import Capabilities, checked_scale
from models.networks.interpolation_init import init_copy, init_zero
from models.networks.spandrel_layers import init_staged, mean_or_zero
from models.sr_network import SRNetwork
from models.sr_quality import tail_radius
from utils.errors import UserError


class RCAN(SRNetwork):
    """RCAN (Zhang et al. 2018, arXiv:1807.02758): EDSR with channel attention in every block, in groups with skips.

    The attention sees the whole image: the reach is that of the convolutions alone.

    Args:
        scale: 2, 3 or 4.
        n_groups: residual groups.
        n_blocks: blocks of a group.
        n_feats: feature maps, at least `reduction`.
        reduction: the attention's bottleneck has n_feats / reduction maps.
        div2k_mean: subtract the mean colour of DIV2K before the first layer, add it after the last.

    Raises:
        ValueError: n_feats is below reduction.
    """

    tail: nn.Sequential
    mean: torch.Tensor

    def __init__(
        self,
        scale: int,
        n_groups: int = 10,
        n_blocks: int = 20,
        n_feats: int = 64,
        reduction: int = 16,
        div2k_mean: bool = True,
    ):
        super().__init__()
        self.scale = checked_scale(self, scale)
        if n_feats < reduction:
            raise UserError(f"RCAN: n_feats is {n_feats}, but must be at least reduction = {reduction}")
        from spandrel.architectures.RCAN import RCAN as Layers

        sizes = {"n_resgroups": n_groups, "n_resblocks": n_blocks, "n_feats": n_feats, "reduction": reduction}
        layers = Layers(scale=scale, norm=False, **sizes)
        reach = 1 + n_groups * (2 * n_blocks + 1) + 1 + tail_radius(scale, 3)
        self.capabilities = Capabilities(None, local_receptive_radius=reach, tiling="overlap")
        self.head, self.body, self.tail = layers.head, layers.body, layers.tail
        self.register_buffer("mean", mean_or_zero(div2k_mean), persistent=False)
        self.initialize_weights()

    def initialize_weights(self) -> None:
        init_copy(self.head[0], 3)
        init_zero(self.body[-1])  # the body starts as the identity
        init_staged(self.tail[0], self.scale, self.tail[1])

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        x = self.head(lr - self.mean)  # (B, n_feats, h, w)
        x = x + self.body(x)
        return self.tail(x) + self.mean  # (B, 3, scale * h, scale * w)
