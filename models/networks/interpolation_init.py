"""Initial weights that make an untrained SR network a bilinear interpolator: training starts from a usable image.

The idea of ICNR (Aitken et al. 2017, "Checkerboard artifact free sub-pixel convolution"), carried through all layers:
the first feature maps hold the image itself, all others keep PyTorch's random initialisation. A network with fewer maps
than the image has colours carries as many colours as it can.
"""

from __future__ import annotations

import torch
from torch import nn


def bilinear_taps(scale: int) -> torch.Tensor:
    """Weights (scale, 3) of the left, own and right LR pixel for each of the `scale` HR pixels of one LR pixel."""
    position = (torch.arange(scale) + 0.5) / scale - 0.5  # in LR pixels, relative to the own pixel's centre
    return (1 - (position[:, None] - torch.tensor([-1.0, 0.0, 1.0])).abs()).clamp_min(0)


@torch.no_grad()
def init_copy(conv: nn.Module, channels: int, gain: float = 1.0, shift: float = 0.0) -> None:
    """The first `channels` output maps become gain * (the input maps of the same number) + shift."""
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None
    height, width = conv.kernel_size
    conv.weight[:channels] = 0
    for channel in range(min(channels, conv.out_channels, conv.in_channels)):
        conv.weight[channel, channel, height // 2, width // 2] = gain
    conv.bias[:channels] = shift


@torch.no_grad()
def init_zero(layer: nn.Module) -> None:
    """Weights and bias become 0: a body that ends so starts as the identity."""
    assert isinstance(layer, nn.Conv2d | nn.BatchNorm2d)
    layer.weight.zero_()
    if layer.bias is not None:
        layer.bias.zero_()


@torch.no_grad()
def init_pixel_shuffle(conv: nn.Module, channels: int, scale: int, gain: float = 1.0, shift: float = 0.0) -> None:
    """The first `channels` maps after PixelShuffle(scale) become gain * (bilinear interpolation) + shift.

    Of a grouped convolution the first group carries them, as many as it sees.
    """
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None
    taps = bilinear_taps(scale)
    phases = torch.einsum("iy,jx->ijyx", taps, taps).flatten(0, 1)  # (scale * scale, 3, 3)
    conv.weight[: channels * scale**2] = 0
    for channel in range(min(channels, conv.out_channels // scale**2, conv.weight.shape[1])):
        conv.weight[channel * scale**2 : (channel + 1) * scale**2, channel] = gain * phases
    conv.bias[: channels * scale**2] = shift


@torch.no_grad()
def init_deconvolution(deconv: nn.ConvTranspose2d, channels: int, scale: int) -> None:
    """A transposed convolution of stride `scale` becomes bilinear interpolation of its first `channels` input maps."""
    assert isinstance(deconv.padding, tuple) and deconv.bias is not None
    offset = torch.arange(deconv.kernel_size[0]) - deconv.padding[0]  # HR pixel relative to the LR pixel's first one
    taps = (1 - (offset - (scale - 1) / 2).abs() / scale).clamp_min(0)
    deconv.weight.zero_()
    for channel in range(min(channels, deconv.in_channels)):
        deconv.weight[channel, channel] = torch.outer(taps, taps)
    deconv.bias.zero_()
