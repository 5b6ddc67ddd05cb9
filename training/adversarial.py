"""Adversarial losses on images: a patch discriminator, the hinge loss, and a weight that balances two losses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SLOPE = 0.2
SMALLEST_GRADIENT = 1e-4
HIGHEST_WEIGHT = 1e4


class PatchGAN(nn.Sequential):
    """Judges overlapping patches of images (Isola et al. 2017, arXiv:1611.07004): (B, 3, H, W) to (B, 1, h, w) logits.

    Sides of 24 pixels or more; three layers see patches of 70 x 70.

    Args:
        channels: maps of the first layer, doubled by every layer up to eight times as many.
        n_layers: convolutions of stride 2.
    """

    def __init__(self, channels: int = 64, n_layers: int = 3):
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 4, 2, 1), nn.LeakyReLU(SLOPE, inplace=True)]
        width = channels
        for level in range(1, n_layers + 1):
            wider = channels * min(2**level, 8)
            stride = 2 if level < n_layers else 1
            layers += [nn.Conv2d(width, wider, 4, stride, 1, bias=False), nn.BatchNorm2d(wider)]
            layers.append(nn.LeakyReLU(SLOPE, inplace=True))
            width = wider
        super().__init__(*layers, nn.Conv2d(width, 1, 4, 1, 1))
        for layer in self:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, 0.0, 0.02)
            elif isinstance(layer, nn.BatchNorm2d):
                nn.init.normal_(layer.weight, 1.0, 0.02)


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """What a discriminator minimises: mean of relu(1 - D(real)) and of relu(1 + D(fake)), halved (Lim & Ye 2017)."""
    return (torch.relu(1 - real).mean() + torch.relu(1 + fake).mean()) / 2


def adaptive_weight(loss: Tensor, adversarial: Tensor, last: nn.Parameter) -> Tensor:
    """Factor with which the adversarial loss moves the last layer as strongly as the other loss does, at most 1e4.

    The ratio of the norms of their gradients (Esser et al. 2021, arXiv:2012.09841, equation 7); it has no gradient.

    Args:
        loss: scalar.
        adversarial: scalar.
        last: weight of the generator's last layer.
    """
    (wanted,) = torch.autograd.grad(loss, last, retain_graph=True)
    (given,) = torch.autograd.grad(adversarial, last, retain_graph=True)
    return (wanted.norm() / (given.norm() + SMALLEST_GRADIENT)).clamp(max=HIGHEST_WEIGHT).detach()
