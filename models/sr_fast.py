"""Light SR networks for the patches that need no detail: bicubic, ESPCN and FSRCNN.

All map LR images (B, 3, h, w) in [0, 1] to (B, 3, scale * h, scale * w); the output is not clamped. `tail` are
the last layers with parameters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from models.capabilities import Capabilities, checked_scale
from models.device_constants import device_constant
from models.networks.interpolation_init import init_copy, init_deconvolution, init_pixel_shuffle
from models.sr_network import SRNetwork
from utils.errors import UserError
from utils.resize import cubic_matrix

#################################################################################
#                                    Bicubic                                    #
#################################################################################


@device_constant(64)
def interpolation_matrix(size: int, out_size: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """The matrix (out_size, size) of cubic interpolation along one axis."""
    return torch.tensor(cubic_matrix(size, out_size), dtype=dtype, device=device)


def cubic_convolution(lr: torch.Tensor, scale: int) -> torch.Tensor:
    """`Bicubic` without a matrix that depends on the size, slower: each of the scale * scale HR pixels of an LR pixel
    has its own 5x5 kernel, and the border is mirrored before."""
    taps = torch.from_numpy(cubic_matrix(5, 5 * scale)[2 * scale : 3 * scale].copy()).to(lr)  # (scale, 5), the middle
    kernels = (taps[:, None, :, None] * taps[None, :, None, :]).reshape(scale**2, 1, 5, 5)
    rows, columns = (mirrored(side) for side in lr.shape[-2:])
    padded = lr.index_select(2, rows).index_select(3, columns)
    return F.pixel_shuffle(F.conv2d(padded, kernels.repeat(3, 1, 1, 1), groups=3), scale)


def mirrored(length: int) -> torch.Tensor:
    """Indices of a line with two more pixels at each end, mirrored there with the edge repeated."""
    place = torch.arange(-2, length + 2)
    place = torch.where(place < 0, -1 - place, place)
    place = torch.where(place >= length, 2 * length - 1 - place, place)
    return torch.minimum(place.clamp(min=0), torch.as_tensor(length - 1))  # a line of one pixel


class Bicubic(SRNetwork):
    """Bicubic interpolation in MATLAB's convention (a = -0.5, symmetric border) as two matrix products.

    On CPUs this is several times faster than `F.interpolate`, most of all in bfloat16. It has no parameters.

    Args:
        scale: 2, 3 or 4.
        upscale: factor beyond `scale`, in the same interpolation, for a detector with a larger input; at least 1.

    Attributes:
        scale: the factor altogether, a whole number.

    Raises:
        UserError: another scale, or the factors make no whole number.
    """

    # Four taps: floor(u) - 1 ... floor(u) + 2 around a position u less than half a pixel off.
    capabilities = Capabilities(receptive_radius=2)
    tail = None

    def __init__(self, scale: int, upscale: float = 1.0):
        super().__init__()
        factor = checked_scale(self, scale) * upscale
        if upscale < 1 or factor != int(factor):
            raise UserError(f"Bicubic: upscale is {upscale:g}, but x{scale} times it must be whole and no less")
        self.scale = int(factor)
        self.upscale = upscale

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_tracing():  # the matrices would hold for the size of the example alone
            return cubic_convolution(lr, self.scale)
        height, width = lr.shape[-2:]
        rows = interpolation_matrix(height, self.scale * height, lr.dtype, lr.device)  # (scale * h, h)
        columns = interpolation_matrix(width, self.scale * width, lr.dtype, lr.device)  # (scale * w, w)
        return rows @ (lr @ columns.T)  # (B, 3, h, scale * w), then (B, 3, scale * h, scale * w)


#################################################################################
#                                     ESPCN                                     #
#################################################################################


class ESPCN(SRNetwork):
    """ESPCN (Shi et al. 2016, arXiv:1609.05158): two tanh convolutions at LR resolution, then a sub-pixel convolution.

    Args:
        scale: 2, 3 or 4.
        n_feats: maps of the first layer, at least 2; the second has half of them. The paper has 64.
        colors: image channels.
    """

    tail: nn.Sequential

    def __init__(self, scale: int, n_feats: int = 64, colors: int = 3):
        super().__init__()
        self.scale = checked_scale(self, scale)
        self.capabilities = Capabilities(receptive_radius=2 + 1 + 1, shares_stem=True)
        self.features = nn.Sequential(
            nn.Conv2d(colors, n_feats, 5, padding=2),
            nn.Tanh(),
            nn.Conv2d(n_feats, n_feats // 2, 3, padding=1),
            nn.Tanh(),
        )
        self.tail = nn.Sequential(nn.Conv2d(n_feats // 2, colors * scale**2, 3, padding=1), nn.PixelShuffle(scale))
        self.initialize_weights(colors)

    def initialize_weights(self, colors: int) -> None:
        gain = 0.25  # keeps the image, centred on mid-grey, in the part where tanh(x) = x
        init_copy(self.features[0], colors, gain, shift=-0.5 * gain)
        init_copy(self.features[2], colors)
        init_pixel_shuffle(self.tail[0], colors, self.scale, 1 / gain, shift=0.5)

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        x = self.features(lr)  # (B, n_feats / 2, h, w)
        return self.tail(x)  # (B, 3, scale * h, scale * w)


#################################################################################
#                                     FSRCNN                                    #
#################################################################################


def conv_prelu(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.PReLU(outputs))


class FSRCNN(SRNetwork):
    """FSRCNN(d, s, m) (Dong et al. 2016, arXiv:1608.00367): an hourglass of convolutions, then a 9x9 deconvolution.

    Args:
        scale: 2, 3 or 4.
        d: maps of the wide layers.
        s: maps of the narrow layers.
        m: 3x3 convolutions in the narrow part.
        colors: image channels.
    """

    tail: nn.ConvTranspose2d

    def __init__(self, scale: int, d: int = 56, s: int = 12, m: int = 4, colors: int = 3):
        super().__init__()
        self.scale = checked_scale(self, scale)
        padding = (10 - scale) // 2  # centres the 9 taps on the HR cell of an LR pixel
        reach = max(-(-padding // scale), (8 - padding) // scale)  # of the deconvolution, in LR pixels
        self.capabilities = Capabilities(receptive_radius=2 + m + reach, shares_stem=True)
        self.features = nn.Sequential(
            conv_prelu(colors, d, 5),
            conv_prelu(d, s, 1),
            *[conv_prelu(s, s, 3) for _ in range(m)],
            conv_prelu(s, d, 1),
        )
        self.tail = nn.ConvTranspose2d(d, colors, 9, scale, padding, output_padding=2 * padding + scale - 9)
        self.initialize_weights(colors)

    def initialize_weights(self, colors: int) -> None:
        for layer in self.features.modules():
            if isinstance(layer, nn.Conv2d):
                init_copy(layer, colors)  # an image in [0, 1] passes PReLU unchanged
        init_deconvolution(self.tail, colors, self.scale)

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        x = self.features(lr)  # (B, d, h, w)
        return self.tail(x)  # (B, 3, scale * h, scale * w)
