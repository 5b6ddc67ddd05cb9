"""What the networks share whose layers come from spandrel (MIT licence): taking layers over, padding, first weights.

Interface and first weights are this project's, weights are named as in the authors' repositories. spandrel is imported
when a network is built: it takes seconds.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from models.networks.interpolation_init import init_copy, init_pixel_shuffle, init_zero
from models.networks.mean_colour import div2k_mean
from models.sr_quality import UPSAMPLING_STAGES


def adopt(network: nn.Module, source: nn.Module) -> None:
    """Take over all layers of `source` under their names."""
    for name, child in source.named_children():
        network.add_module(name, child)


def pad_to_multiple(x: torch.Tensor, multiple: int) -> torch.Tensor:
    """Pad (B, C, h, w) at the bottom and right, mirrored where the image is large enough, else with its edge."""
    height, width = x.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    if not bottom and not right:
        return x
    return F.pad(x, (0, right, 0, bottom), mode="reflect" if bottom < height and right < width else "replicate")


def init_staged(stages: nn.Module, scale: int, last: nn.Module, shift: float = 0.0) -> None:
    """PixelShuffle stages and the convolution after them become bilinear interpolation plus `shift`."""
    for convolution, factor in zip(list(stages.children())[::2], UPSAMPLING_STAGES[scale], strict=True):
        init_pixel_shuffle(convolution, 3, factor)
    init_zero(last)
    init_copy(last, 3, shift=shift)


def mean_or_zero(wanted: bool) -> torch.Tensor:
    """Mean colour of DIV2K where it is wanted, else black, (1, 3, 1, 1)."""
    return div2k_mean() * float(wanted)
