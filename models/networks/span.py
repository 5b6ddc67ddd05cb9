"""SPAN (Wan et al. 2024, arXiv:2311.12770) of spandrel's layers.

LR images (B, 3, h, w) in [0, 1] become (B, 3, scale * h, scale * w); the output is not clamped.
"""

from __future__ import annotations

import torch
from torch import nn

from models.capabilities import Capabilities, checked_scale
from models.networks.interpolation_init import init_copy, init_pixel_shuffle
from models.networks.spandrel_layers import adopt, mean_or_zero
from models.sr_network import SRNetwork


class SPAN(SRNetwork):
    """SPAN (Wan et al. 2024, arXiv:2311.12770): six blocks whose attention is a function of each value itself.

    It has the deployed form: the branches that the paper trains beside each 3x3 convolution are merged into it, and
    training here trains the merged convolutions.

    Args:
        scale: 2, 3 or 4.
        n_feats: feature maps; the paper has 48 and 52.
        div2k_mean: subtract the mean colour of DIV2K before the first layer; the last one learns to add it.
    """

    mean: torch.Tensor
    # Of those that `adopt` takes over:
    conv_1: nn.Conv2d
    conv_2: nn.Conv2d
    conv_cat: nn.Conv2d
    upsampler: nn.Sequential

    def __init__(self, scale: int, n_feats: int = 52, div2k_mean: bool = True):
        super().__init__()
        self.scale = checked_scale(self, scale)
        from spandrel.architectures.SPAN import SPAN as Layers

        layers = Layers(num_in_ch=3, num_out_ch=3, feature_channels=n_feats, upscale=scale)
        self.capabilities = Capabilities(receptive_radius=1 + 6 * 3 + 1 + 1)
        adopt(self, merge_branches(layers))
        self.register_buffer("mean", mean_or_zero(div2k_mean), persistent=False)
        self.initialize_weights()

    @property
    def tail(self) -> nn.Sequential:
        return self.upsampler

    @torch.no_grad()
    def initialize_weights(self) -> None:
        init_copy(self.conv_1, 3)
        init_copy(self.conv_cat, 3)
        init_pixel_shuffle(self.upsampler[0], 3, self.scale)
        bias = self.upsampler.get_parameter("0.bias")
        bias.copy_(self.mean.flatten().repeat_interleave(self.scale**2))

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        shallow = x = self.conv_1(lr - self.mean)  # (B, n_feats, h, w)
        outputs = []
        for k in range(1, 7):
            x, inner, _ = self.get_submodule(f"block_{k}")(x)
            outputs.append(x)
        x = torch.cat([shallow, self.conv_2(x), outputs[0], inner], 1)
        return self.upsampler(self.conv_cat(x))  # (B, 3, scale * h, scale * w)


def merge_branches(layers: nn.Module) -> nn.Module:
    """Replace every multi-branch convolution of spandrel's SPAN by the 3x3 convolution that it amounts to."""
    for name, module in list(layers.named_modules()):
        if hasattr(module, "eval_conv"):
            module.update_params()
            layers.set_submodule(name, module.eval_conv)
    return layers
