"""EDSR in 8-bit integers: 3x3 convolutions of bytes with exact sums, as the native int8 kernel computes them.

A convolution rounds its input to bytes with one step size, which was calibrated on images; its weights are bytes with a
step size for each output (Jacob et al. 2018, arXiv:1712.05877). The first layer, the last one, and what the residual
blocks add up stay in fp32: rounding these is what costs quality. Such a network is made of a trained EDSR by
`quantised` and is not trained itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.capabilities import Capabilities, checked_scale
from models.networks.mean_colour import div2k_mean as mean_colour
from models.sr_network import SRNetwork
from models.sr_quality import EDSR, conv
from utils.errors import UserError

LEVELS, LARGEST = 255, 127  # of a byte; of a weight
SIGNED, UNSIGNED = 128, 0  # zero points: of what may be negative, of what comes out of a ReLU
EXACT = 1 << 24  # integers up to here are exact in fp32


class Int8Conv(nn.Module):
    """3x3 convolution of rounded inputs with integer weights.

    The state: `weight` int8 (outputs, inputs, 3, 3); `weight_step` (outputs,), what a unit of them is worth; `bias`
    (outputs,); `input_step` (), what a unit of the inputs is worth.

    Args:
        inputs, outputs: channels.
        zero: the byte that stands for zero, SIGNED or UNSIGNED.
    """

    weight: nn.Parameter
    weight_step: Tensor
    input_step: Tensor

    def __init__(self, inputs: int, outputs: int, zero: int):
        super().__init__()
        self.zero = zero
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, 3, 3, dtype=torch.int8), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(outputs), requires_grad=False)
        self.register_buffer("weight_step", torch.ones(outputs))
        self.register_buffer("input_step", torch.ones(()))
        self.sum_type = torch.float32
        self.register_load_state_dict_post_hook(_check_loaded)

    @torch.no_grad()
    def set_from(self, source: nn.Conv2d, factor: float, low: float, high: float) -> None:
        """The weights of a convolution times a factor, and the range of its inputs."""
        weight = source.weight.float() * factor
        bias = torch.zeros(len(weight)) if source.bias is None else source.bias.float() * factor
        largest = weight.abs().amax((1, 2, 3))
        step = torch.where(largest > 0, largest / LARGEST, 1.0)
        self.weight.copy_((weight / step[:, None, None, None]).round())
        self.weight_step.copy_(step)
        self.bias.copy_(bias)
        reach = max(high / (LEVELS - self.zero), -low / self.zero if self.zero else 0.0)
        self.input_step.fill_(reach if reach > 0 else 1.0)
        self.check()

    def check(self) -> None:
        """Raises UserError for steps that are none; decides in which type sums are exact."""
        if self.weight.is_meta:
            return
        steps = {"input_step": self.input_step, "weight_step": self.weight_step}
        for name, step in steps.items():
            if not bool((step.isfinite() & (step > 0)).all()):
                raise UserError(
                    f"{name} of an int8 convolution is {step.flatten()[:4].tolist()}; steps are positive numbers: "
                    "quantise the network anew with `python -m tools.quantise_sr`"
                )
        largest = self.weight.abs().sum((1, 2, 3), dtype=torch.int64).max() * max(self.zero, LEVELS - self.zero)
        self.sum_type = torch.float32 if largest < EXACT else torch.float64

    @property
    def unit(self) -> Tensor:
        """Rounded inputs are inputs times this."""
        return self.input_step.reciprocal()

    @property
    def sum_step(self) -> Tensor:
        """What a unit of the sums is worth, (outputs,)."""
        return self.weight_step * self.input_step

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h, w), fp32; values beyond the range of the bytes are clipped."""
        rounded = (x * self.unit).clamp(-self.zero, LEVELS - self.zero).round()
        sums = F.conv2d(rounded.to(self.sum_type), self.weight.to(self.sum_type), padding=1)
        return sums.float() * self.sum_step[:, None, None] + self.bias[:, None, None]


def _check_loaded(module: Int8Conv, keys: object) -> None:
    module.check()


class OrderedConv(nn.Conv2d):
    """3x3 convolution in fp32 that adds up products in a fixed order, so that every machine rounds alike."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, outputs, h, w)."""
        height, width = x.shape[-2:]
        padded = F.pad(x, (1, 1, 1, 1))
        total = x.new_zeros(len(x), self.out_channels, height, width)
        for ky in range(3):
            for kx in range(3):
                for channel in range(self.in_channels):
                    pixels = padded[:, channel : channel + 1, ky : ky + height, kx : kx + width]
                    total += pixels * self.weight[:, channel, ky, kx, None, None]
        return total if self.bias is None else total + self.bias[:, None, None]


class Int8Block(nn.Module):
    """conv - ReLU - conv with a skip in fp32."""

    def __init__(self, n_feats: int):
        super().__init__()
        self.body = nn.Sequential(
            Int8Conv(n_feats, n_feats, SIGNED), nn.ReLU(inplace=True), Int8Conv(n_feats, n_feats, UNSIGNED)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + x


class EDSRInt8(SRNetwork):
    """EDSR with tail "single" whose body is computed in 8-bit integers; its modules are named as in EDSR.

    LR images (B, 3, h, w) in [0, 1] become (B, 3, scale * h, scale * w), fp32, not clamped.

    Args:
        scale: 2, 3 or 4.
        n_blocks, n_feats, div2k_mean: see EDSR.
    """

    tail: nn.Sequential
    mean: Tensor | None

    def __init__(self, scale: int, n_blocks: int = 16, n_feats: int = 64, div2k_mean: bool = False):
        super().__init__()
        self.scale = checked_scale(self, scale)
        self.capabilities = Capabilities(
            receptive_radius=1 + 2 * n_blocks + 1 + 1, dtypes=(torch.float32,), quantised=True
        )
        self.head = nn.Sequential(OrderedConv(3, n_feats, 3, padding=1))
        self.body = nn.Sequential(*[Int8Block(n_feats) for _ in range(n_blocks)], Int8Conv(n_feats, n_feats, SIGNED))
        self.tail = nn.Sequential(conv(n_feats, 3 * scale**2), nn.PixelShuffle(scale))
        self.register_buffer("mean", mean_colour() if div2k_mean else None, persistent=False)
        self.requires_grad_(False)

    def forward(self, lr: Tensor) -> Tensor:
        x = self.head(lr if self.mean is None else lr - self.mean)  # (B, n_feats, h, w)
        x = self.tail(self.body(x) + x)  # (B, 3, scale * h, scale * w)
        return x if self.mean is None else x + self.mean


def check_quantisable(network: SRNetwork) -> EDSR:
    """The same network. Raises UserError for anything but an EDSR with tail "single"."""
    if not isinstance(network, EDSR) or not isinstance(network.tail[0], nn.Conv2d):
        raise UserError(f"int8: {network.spec['name']} has no 8-bit form here; take an edsr with tail single")
    return network


@torch.no_grad()
def quantised(network: SRNetwork, images: Iterable[Tensor]) -> EDSRInt8:
    """The 8-bit form of a trained EDSR, in evaluation mode.

    Args:
        network: EDSR with tail "single", in evaluation mode, on the CPU.
        images: LR images (B, 3, h, w) in [0, 1] like those of the use; what its layers make of them sets the ranges.

    Raises:
        UserError: another network, or not an image.
    """
    source = check_quantisable(network)
    args = {key: value for key, value in source.spec["args"].items() if key not in ("res_scale", "tail")}
    result = EDSRInt8(**args)
    result.spec = {"name": "edsr_int8", "args": args}
    for ours, theirs in ((result.head[0], source.head[0]), (result.tail[0], source.tail[0])):
        ours.load_state_dict(theirs.state_dict())
    pairs = list(_integer_layers(result, source))
    ranges = _input_ranges([theirs for _, theirs, _ in pairs], network, images)
    for (ours, theirs, factor), (low, high) in zip(pairs, ranges, strict=True):
        ours.set_from(theirs, factor, low, high)
    return result.eval()


def _integer_layers(result: EDSRInt8, network: EDSR):
    """(integer convolution, the one that it is made of, factor of its output) in order."""
    for block, theirs in zip(result.body[:-1], network.body[:-1], strict=True):
        yield block.get_submodule("body.0"), theirs.get_submodule("body.0"), 1.0
        yield block.get_submodule("body.2"), theirs.get_submodule("body.2"), theirs.res_scale
    yield result.body[-1], network.body[-1], 1.0


def _input_ranges(
    layers: Sequence[nn.Module], network: SRNetwork, images: Iterable[Tensor]
) -> list[tuple[float, float]]:
    """Smallest and largest value that enters each of these layers."""
    ranges = [(0.0, 0.0)] * len(layers)

    def note(number: int, module: nn.Module, inputs: tuple[Tensor]) -> None:
        low, high = inputs[0].aminmax()
        ranges[number] = min(ranges[number][0], low.item()), max(ranges[number][1], high.item())

    hooks = [layer.register_forward_pre_hook(partial(note, number)) for number, layer in enumerate(layers)]
    try:
        count = sum(1 for image in images if network(image) is not None)
    finally:
        for hook in hooks:
            hook.remove()
    if not count:
        raise UserError("int8: no image to calibrate on")
    return ranges
