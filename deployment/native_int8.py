"""A quantised EDSR as the native int8 kernel takes it (deployment/native/int8.cpp); see native_execution.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from deployment.native.build import NativeError
from deployment.native.interface import Int8Kernel, Int8Step, Program, memory_bytes
from models.edsr_int8 import SIGNED, UNSIGNED, EDSRInt8, Int8Conv

LR_CHANNELS, GROUP = 4, 16
LR, FIRST, STREAM, BYTES, RECTIFIED = range(5)  # canvases: image; fp32 maps; bytes of what may be negative, and may not
ZERO = (-1, -1, -1, SIGNED, UNSIGNED)  # see int8.h
HR, NONE = -1, -2


@dataclass(frozen=True)
class Layer:
    """A convolution, the canvases that it reads and writes, and the convolution for which it rounds."""

    conv: nn.Conv2d | Int8Conv
    source: int
    target: int
    residual: int = -1
    rounded: int = -1
    reader: Int8Conv | None = None
    relu: bool = False


def int8_program(network: EDSRInt8, library: Path) -> Program:
    """The network's layers.

    Raises:
        NativeError: its maps fill no vectors, or the library cannot be loaded.
    """
    maps = network.head[0].out_channels
    if maps % GROUP:
        raise NativeError(f"the native int8 kernel needs a multiple of {GROUP} feature maps, not {maps}")
    kernel = Int8Kernel(library, ZERO)
    layers = list(_layers(network))
    steps, kept = (Int8Step * len(layers))(), []
    mean = [0.0] * 3 if network.mean is None else network.mean.flatten().tolist()
    for step, layer in zip(steps, layers, strict=True):
        tensors = _integers(layer.conv, kernel.lane) if isinstance(layer.conv, Int8Conv) else _floats(layer.conv)
        if layer.target == HR:  # PixelShuffle sorts channels by colour
            tensors["bias"][: 3 * network.scale**2] += torch.tensor(mean).repeat_interleave(network.scale**2)
        for name, tensor in tensors.items():
            setattr(step, name, tensor.data_ptr())
            setattr(step, f"{name}_bytes", memory_bytes(tensor))
        step.inputs, step.outputs = layer.conv.weight.shape[1], layer.conv.weight.shape[0]
        if layer.source == LR:
            step.inputs = LR_CHANNELS
        step.source, step.target, step.residual = layer.source, layer.target, layer.residual
        step.rounded, step.relu = layer.rounded, layer.relu
        step.unit = 1.0 if layer.reader is None else layer.reader.unit.item()
        kept += tensors.values()
    items = tuple(4 if zero < 0 else 1 for zero in ZERO)
    return Program(kernel, steps, (LR_CHANNELS, maps, maps, maps, maps), items, mean, kept)


def _layers(network: EDSRInt8) -> Iterator[Layer]:
    """The layers in order; a block's sum is kept in fp32 as long as another block adds to it."""
    *blocks, last = network.body
    readers = [block.body[0] for block in blocks] + [last]
    yield Layer(network.head[0], LR, FIRST, rounded=BYTES, reader=readers[0])
    now = FIRST
    for number, block in enumerate(blocks):
        first, second = block.body[0], block.body[2]
        yield Layer(first, BYTES, NONE, rounded=RECTIFIED, reader=second, relu=True)
        to = NONE if block is blocks[-1] else STREAM
        yield Layer(second, RECTIFIED, to, residual=now, rounded=BYTES, reader=readers[number + 1])
        now = STREAM
    yield Layer(last, BYTES, STREAM, residual=FIRST)
    yield Layer(network.tail[0], STREAM, HR)


def _floats(conv: nn.Conv2d) -> dict[str, Tensor]:
    """Weights of a layer that reads fp32: [group of outputs][tap][input][output]; and its bias."""
    weight, bias = conv.weight.detach().float(), conv.bias.detach().float()
    outputs, inputs = weight.shape[:2]
    filled = LR_CHANNELS if inputs == 3 else inputs
    weight = nn.functional.pad(weight, (0, 0, 0, 0, 0, filled - inputs, 0, -outputs % GROUP))
    groups = [part.permute(2, 3, 1, 0).flatten() for part in weight.split(GROUP)]
    return {"weight": torch.cat(groups), "bias": nn.functional.pad(bias, (0, -outputs % GROUP)).clone()}


def _integers(conv: Int8Conv, lane: int) -> dict[str, Tensor]:
    """Weights of a layer of integers, [group of outputs][position][lane][output][input of the lane], and what turns
    their sums into values."""
    weight = conv.weight.detach().int()
    sums = weight.sum((1, 2, 3), dtype=torch.int32)
    if lane == 2:  # for pairs of outputs, twice the values; see int8.cpp
        left, middle, right = weight.unbind(3)
        weight = torch.stack([2 * left, left + middle + right, left - middle + right, 2 * right])
        weight, kind = weight.permute(1, 0, 3, 2), torch.int16  # (outputs, position, ky, inputs)
    else:
        weight, kind = weight.permute(0, 2, 3, 1).flatten(1, 2)[:, None], torch.int8  # (outputs, 1, tap, inputs)
    positions = weight.shape[1]
    groups = [
        part.flatten(2).unflatten(2, (-1, lane)).permute(1, 2, 0, 3).reshape(positions, -1)
        for part in weight.split(GROUP)
    ]
    return {
        "weight": torch.stack(groups).to(kind).contiguous(),
        "bias": conv.bias.detach().clone(),
        "scale": conv.sum_step.contiguous(),
        "offset": -conv.zero * sums,
    }
