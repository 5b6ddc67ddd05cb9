"""SwinIR (Liang et al. 2021, arXiv:2108.10257) of spandrel's layers.

LR images (B, 3, h, w) in [0, 1] become (B, 3, scale * h, scale * w); the output is not clamped.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.capabilities import Capabilities, checked_scale
from models.device_constants import device_constant
from models.networks.interpolation_init import init_copy, init_pixel_shuffle, init_zero
from models.networks.mean_colour import div2k_mean
from models.networks.spandrel_layers import adopt, init_staged, pad_to_multiple
from models.sr_network import SRNetwork
from models.sr_quality import tail_radius
from utils.errors import UserError


@device_constant(64)
def shift_mask(window: int, shift: int, size: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """What keeps shifted windows of an image of this size from mixing its ends, (windows, window^2, window^2)."""
    from spandrel.architectures.SwinIR.__arch.SwinIR import window_partition

    regions, ends = torch.zeros(1, *size, 1), (slice(-window), slice(-window, -shift), slice(-shift, None))
    for number, (rows, columns) in enumerate(product(ends, ends)):
        regions[:, rows, columns] = number
    tokens = window_partition(regions, window).view(-1, window * window)
    apart = tokens[:, None] != tokens[:, :, None]
    return torch.zeros(apart.shape, dtype=dtype).masked_fill(apart, -100.0).to(device)


@dataclass(frozen=True)
class ShiftMask:
    """What a Swin layer asks for and moves to its device in every call; here it is there already."""

    layer: Any  # whose attributes have no types
    size: tuple[int, int]

    def to(self, device: torch.device) -> Tensor:
        # On CPUs as the layers make it; elsewhere 16-bit attention would become fp32 of it.
        dtype = torch.float32 if device.type == "cpu" else self.layer.norm1.weight.dtype
        return shift_mask(self.layer.window_size, self.layer.shift_size, tuple(self.size), dtype, device)


class SwinIR(SRNetwork):
    """SwinIR (Liang et al. 2021, arXiv:2108.10257), the classical one; the light one has other defaults.

    Windows are laid out from the image's corner, so what a pixel gets depends on where in the image it lies, and images
    are mirrored up to a multiple of the window inside. Paths are never dropped in training: a run can be repeated.

    Args:
        scale: 2, 3 or 4; with "nearest+conv" 2 or 4.
        dim: channels of a token, a multiple of n_heads.
        n_groups: residual groups of Swin layers.
        n_blocks: Swin layers of a group.
        n_heads: attention heads.
        window: side of an attention window in LR pixels.
        mlp_ratio: hidden channels of the MLPs, as a multiple of dim.
        upsampler: "pixelshuffle" (classical), "pixelshuffledirect" (light) or "nearest+conv" (real-world).
        connection: convolutions after each group, "1conv" or "3conv".

    Raises:
        ValueError: an argument is not among those named.
    """

    mean: torch.Tensor
    # What `adopt` takes over, each where the upsampler has it:
    conv_first: nn.Conv2d
    patch_embed: nn.Module
    layers: nn.ModuleList
    norm: nn.Module
    patch_unembed: nn.Module
    conv_after_body: nn.Module
    conv_before_upsample: nn.Sequential
    upsample: nn.Sequential
    conv_up1: nn.Conv2d
    conv_up2: nn.Conv2d
    conv_hr: nn.Conv2d
    lrelu: nn.Module
    conv_last: nn.Conv2d

    def __init__(
        self,
        scale: int,
        dim: int = 180,
        n_groups: int = 6,
        n_blocks: int = 6,
        n_heads: int = 6,
        window: int = 8,
        mlp_ratio: float = 2.0,
        upsampler: str = "pixelshuffle",
        connection: str = "1conv",
    ):
        super().__init__()
        self.scale = checked_scale(self, scale)
        if upsampler not in ("pixelshuffle", "pixelshuffledirect", "nearest+conv"):
            raise UserError(
                f"SwinIR: upsampler is {upsampler!r}; use 'pixelshuffle', 'pixelshuffledirect' or 'nearest+conv'"
            )
        if upsampler == "nearest+conv" and scale == 3:
            raise UserError("SwinIR: upsampler 'nearest+conv' makes x2 and x4, not x3; use 'pixelshuffle'")
        if connection not in ("1conv", "3conv"):
            raise UserError(f"SwinIR: connection is {connection!r}; use '1conv' or '3conv'")
        if dim % n_heads:
            raise UserError(f"SwinIR: dim is {dim}, but must be a multiple of n_heads = {n_heads}")
        from spandrel.architectures.SwinIR import SwinIR as Layers

        layers = Layers(
            img_size=8 * window,
            embed_dim=dim,
            depths=[n_blocks] * n_groups,
            num_heads=[n_heads] * n_groups,
            window_size=window,
            mlp_ratio=mlp_ratio,
            drop_path_rate=0.0,
            upscale=scale,
            upsampler=upsampler,
            resi_connection=connection,
        )
        self.window = window
        self.upsampler = upsampler
        group = {"1conv": 1, "3conv": 2}[connection]
        last = {"pixelshuffle": 1 + tail_radius(scale, 3), "pixelshuffledirect": 1, "nearest+conv": 3}[upsampler]
        reach = 1 + (n_groups + 1) * group + last
        self.capabilities = Capabilities(None, local_receptive_radius=reach, tiling="overlap", size_multiple=window)
        adopt(self, layers)
        for module in self.modules():
            for name in ("attn_mask", "relative_position_index"):  # constants of the layout, not learned
                if name in module._buffers:
                    module.register_buffer(name, getattr(module, name), persistent=False)
            if hasattr(module, "calculate_mask"):
                module.calculate_mask = partial(ShiftMask, module)  # type: ignore[assignment]
        self.register_buffer("mean", div2k_mean(), persistent=False)
        self.initialize_weights()

    @property
    def tail(self) -> nn.ModuleList:
        names = ("conv_before_upsample", "upsample", "conv_up1", "conv_up2", "conv_hr", "conv_last")
        return nn.ModuleList([getattr(self, name) for name in names if hasattr(self, name)])

    def initialize_weights(self) -> None:
        init_copy(self.conv_first, 3)
        last = [module for module in self.conv_after_body.modules() if isinstance(module, nn.Conv2d)][-1]
        init_zero(last)  # the body starts as the identity
        if self.upsampler == "pixelshuffledirect":
            init_pixel_shuffle(self.upsample[0], 3, self.scale)
        else:
            init_copy(self.conv_before_upsample[0], 3, shift=1.0)  # positive, so that it passes LeakyReLU unchanged
        if self.upsampler == "pixelshuffle":
            init_staged(self.upsample, self.scale, self.conv_last, shift=-1.0)
        if self.upsampler == "nearest+conv":
            for name in ("conv_up1", "conv_up2", "conv_hr"):
                if hasattr(self, name):
                    init_copy(getattr(self, name), 3)
            init_zero(self.conv_last)
            init_copy(self.conv_last, 3, shift=-1.0)

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        height, width = (self.scale * side for side in lr.shape[-2:])
        x = self.conv_first(pad_to_multiple(lr - self.mean, self.window))  # (B, dim, h', w')
        x = self.conv_after_body(self.attend(x)) + x
        x = self.enlarge(x) + self.mean
        return x[..., :height, :width]

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        """The Swin layers, (B, dim, h', w') to the same shape."""
        size = (x.shape[2], x.shape[3])
        tokens = self.patch_embed(x)  # (B, h' * w', dim)
        for layer in self.layers:
            tokens = layer(tokens, size)
        return self.patch_unembed(self.norm(tokens), size)

    def enlarge(self, x: torch.Tensor) -> torch.Tensor:
        """(B, dim, h', w') to (B, 3, scale * h', scale * w')."""
        if self.upsampler == "pixelshuffledirect":
            return self.upsample(x)
        x = self.conv_before_upsample(x)
        if self.upsampler == "pixelshuffle":
            return self.conv_last(self.upsample(x))
        for layer in (self.conv_up1, self.conv_up2)[: self.scale // 2]:
            x = self.lrelu(layer(F.interpolate(x, scale_factor=2.0, mode="nearest")))
        return self.conv_last(self.lrelu(self.conv_hr(x)))
