"""RCAN, SPAN and SwinIR: layers from spandrel (MIT licence), interface and first weights of this project.

LR images (B, 3, h, w) in [0, 1] become (B, 3, scale * h, scale * w); the output is not clamped. Weights are named as in
the authors' repositories. `radius` is None where attention sees more than a neighbourhood; `local_radius` is then the
reach of the convolutions alone. spandrel is imported when a network is built: it takes seconds.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from models.networks.interpolation_init import init_copy, init_pixel_shuffle
from models.networks.mean_colour import div2k_mean
from models.sr_quality import UPSAMPLING_STAGES, tail_radius
from utils.errors import UserError


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


def init_staged(stages: nn.Sequential, scale: int, last: nn.Conv2d, shift: float = 0.0) -> None:
    """PixelShuffle stages and the convolution after them become bilinear interpolation plus `shift`."""
    for convolution, factor in zip(list(stages)[::2], UPSAMPLING_STAGES[scale], strict=True):
        init_pixel_shuffle(convolution, 3, factor)
    nn.init.zeros_(last.weight)
    init_copy(last, 3, shift=shift)


#################################################################################
#                                      RCAN                                     #
#################################################################################


class RCAN(nn.Module):
    """RCAN (Zhang et al. 2018, arXiv:1807.02758): EDSR with channel attention in every block, in groups with skips.

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

    radius = None
    size_multiple = 1

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
        if n_feats < reduction:
            raise UserError(f"RCAN: n_feats is {n_feats}, but must be at least reduction = {reduction}")
        from spandrel.architectures.RCAN import RCAN as Layers

        sizes = {"n_resgroups": n_groups, "n_resblocks": n_blocks, "n_feats": n_feats, "reduction": reduction}
        layers = Layers(scale=scale, norm=False, **sizes)
        self.scale = scale
        self.local_radius = 1 + n_groups * (2 * n_blocks + 1) + 1 + tail_radius(scale, 3)
        self.head, self.body, self.tail = layers.head, layers.body, layers.tail
        self.register_buffer("mean", _mean_or_zero(div2k_mean), persistent=False)
        self.initialize_weights()

    def initialize_weights(self) -> None:
        init_copy(self.head[0], 3)
        nn.init.zeros_(self.body[-1].weight)  # the body starts as the identity
        nn.init.zeros_(self.body[-1].bias)
        init_staged(self.tail[0], self.scale, self.tail[1])

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        x = self.head(lr - self.mean)  # (B, n_feats, h, w)
        x = x + self.body(x)
        return self.tail(x) + self.mean  # (B, 3, scale * h, scale * w)


def _mean_or_zero(wanted: bool) -> torch.Tensor:
    return div2k_mean() * float(wanted)


#################################################################################
#                                      SPAN                                     #
#################################################################################


class SPAN(nn.Module):
    """SPAN (Wan et al. 2024, arXiv:2311.12770): six blocks whose attention is a function of each value itself.

    It has the deployed form: the branches that the paper trains beside each 3x3 convolution are merged into it, and
    training here trains the merged convolutions.

    Args:
        scale: 2, 3 or 4.
        n_feats: feature maps; the paper has 48 and 52.
        div2k_mean: subtract the mean colour of DIV2K before the first layer; the last one learns to add it.
    """

    size_multiple = 1

    def __init__(self, scale: int, n_feats: int = 52, div2k_mean: bool = True):
        super().__init__()
        from spandrel.architectures.SPAN import SPAN as Layers

        layers = Layers(num_in_ch=3, num_out_ch=3, feature_channels=n_feats, upscale=scale)
        self.scale = scale
        self.radius = 1 + 6 * 3 + 1 + 1
        adopt(self, merge_branches(layers))
        self.register_buffer("mean", _mean_or_zero(div2k_mean), persistent=False)
        self.initialize_weights()

    @property
    def tail(self) -> nn.Sequential:
        return self.upsampler

    @torch.no_grad()
    def initialize_weights(self) -> None:
        init_copy(self.conv_1, 3)
        init_copy(self.conv_cat, 3)
        init_pixel_shuffle(self.upsampler[0], 3, self.scale)
        self.upsampler[0].bias.copy_(self.mean.flatten().repeat_interleave(self.scale**2))

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


#################################################################################
#                                     SwinIR                                    #
#################################################################################


class SwinIR(nn.Module):
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

    radius = None

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
        self.scale = scale
        self.size_multiple = window
        self.upsampler = upsampler
        reach = {"1conv": 1, "3conv": 2}[connection]
        last = {"pixelshuffle": 1 + tail_radius(scale, 3), "pixelshuffledirect": 1, "nearest+conv": 3}[upsampler]
        self.local_radius = 1 + (n_groups + 1) * reach + last
        adopt(self, layers)
        for module in self.modules():
            for name in ("attn_mask", "relative_position_index"):  # constants of the layout, not learned
                if name in module._buffers:
                    module.register_buffer(name, getattr(module, name), persistent=False)
        self.register_buffer("mean", div2k_mean(), persistent=False)
        self.initialize_weights()

    @property
    def tail(self) -> nn.ModuleList:
        names = ("conv_before_upsample", "upsample", "conv_up1", "conv_up2", "conv_hr", "conv_last")
        return nn.ModuleList([getattr(self, name) for name in names if hasattr(self, name)])

    def initialize_weights(self) -> None:
        init_copy(self.conv_first, 3)
        last = [module for module in self.conv_after_body.modules() if isinstance(module, nn.Conv2d)][-1]
        nn.init.zeros_(last.weight)  # the body starts as the identity
        nn.init.zeros_(last.bias)
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
            nn.init.zeros_(self.conv_last.weight)
            init_copy(self.conv_last, 3, shift=-1.0)

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        height, width = (self.scale * side for side in lr.shape[-2:])
        x = self.conv_first(pad_to_multiple(lr - self.mean, self.size_multiple))  # (B, dim, h', w')
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
