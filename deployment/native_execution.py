"""EDSR computed in place on selected patches by a native kernel: fp32 and bf16 on CPUs with AVX-512, int8 on any.

The kernels are deployment/native/block_sparse.cpp and int8.cpp. Windows cut for every patch
(models/tiling/run_patches.py) compute what lies between neighbours twice, and every layer is a call. The kernels
compute each layer on rows of the dilated patches only, nothing twice, all layers in one call.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from copy import deepcopy

import torch
from torch import Tensor, nn

from deployment.fused_inference import TOLERANCE
from deployment.native.arguments import check_images, checked
from deployment.native.build import INT8, NativeError, cpu_flags, find_library
from deployment.native.interface import MOST_SIDE, Kernel, KernelCall, Program, Step, memory_bytes
from deployment.native_int8 import int8_program
from models.sr_quality import EDSR

LR_CHANNELS = 4  # of the canvas that holds the LR image
GROUP, LANES = 64, 16  # outputs computed together; floats in a register


class NativeNetwork(nn.Module):
    """An EDSR with one PixelShuffle, or its int8 form, everywhere (`forward`) or on selected patches (`run`).

    On patches, every layer is computed on the patches and `halo` pixels around them, and is zero elsewhere: as if the
    image ended there, with zero padding. An isolated patch gets what a window with that halo gives it. Every pixel is
    summed up in the same order whatever is selected and whoever computes it.

    Args:
        network: in evaluation mode, on the CPU.
        dtype: torch.float32 or torch.bfloat16 (weights and feature maps; sums are fp32); int8 gives fp32 images.

    Raises:
        NativeError: another network or type, no library for this machine, or its output differs from the network's.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype):
        super().__init__()
        if network.capabilities.quantised:
            dtype = torch.float32
            program = int8_program(network, find_library(INT8))
        else:
            program = _program(network, dtype)
        self.scale, self.receptive_radius, self.dtype = network.scale, network.capabilities.receptive_radius, dtype
        self.program, self.kernel = program, program.kernel
        self.workspace: Tensor | None = None
        self._check(network)

    def forward(self, lr: Tensor) -> Tensor:
        """Dense: (B, 3, h, w) -> (B, 3, scale * h, scale * w) of `dtype`.

        Raises:
            UserError: shape or type does not fit.
        """
        check_images(lr)
        batch, _, height, width = lr.shape
        canvas = torch.empty(batch, 3, height * self.scale, width * self.scale, dtype=self.dtype)
        return self._in_parts(
            lr, torch.ones(batch, 1, 1, dtype=torch.bool), max(height, width), 0, canvas, min(max(1, batch), MOST_SIDE)
        )

    def run(
        self, lr: Tensor, mask: Tensor, patch: int, halo: int | None, canvas: Tensor, max_pixels: int = 1 << 18
    ) -> Tensor:
        """Replace the selected patches of `canvas` by the network's output; as `run_on_tiles`.

        All tensors lie in ordinary CPU memory, with any strides.

        Args:
            lr: LR images (B, 3, h, w), floating point; B may be 0, then nothing is done.
            mask: bool (B, ceil(h / patch), ceil(w / patch)).
            patch: side of a patch in LR pixels, at least 1.
            halo: LR pixels around the patches that are computed too, at least 0; None, or the network's radius and
                more, is exact.
            canvas: HR images (B, 3, scale * h, scale * w), fp32 or bf16, overwritten.
            max_pixels: most LR pixels of images in work at once, bounds the memory; a single image may be larger.

        Returns:
            The canvas.

        Raises:
            UserError: shapes, types, numbers or memory do not fit, or gradients are asked for.
            MemoryError: out of memory.
        """
        patch, halo, most = checked(self, lr, mask, patch, halo, canvas, max_pixels)
        return self._in_parts(lr, mask, patch, halo, canvas, most)

    def _in_parts(self, lr: Tensor, mask: Tensor, patch: int, halo: int, canvas: Tensor, most: int) -> Tensor:
        """At most `most` images a call; arguments are checked."""
        for first in range(0, len(lr), most):
            part = slice(first, first + most)
            self._call(lr[part], mask[part], patch, halo, canvas[part])
        return canvas

    def _call(self, lr: Tensor, mask: Tensor, patch: int, halo: int, canvas: Tensor) -> None:
        """One call of the kernel; arguments are checked."""
        batch, _, height, width = lr.shape
        program, canvases = self.program, len(self.program.channels)
        steps = type(program.steps).from_buffer_copy(program.steps)
        # What a layer gives is needed only as far as the layers after it reach.
        reach = [min(halo, self.receptive_radius - number) for number in range(len(steps) + 1)]
        for step, far in zip(steps, reach[1:], strict=True):
            step.reach = far
        pixels, item = batch * (height + 2) * (width + 2), self.dtype.itemsize
        sizes = [pixels * channels * bytes_ for channels, bytes_ in zip(program.channels, program.items, strict=True)]
        starts = [0]
        for size in sizes:  # every canvas on a cache line
            starts.append(starts[-1] + -(-size // 64) * 64)
        workspace, self.workspace = self.workspace, None  # ours alone while we run
        if workspace is None or workspace.numel() * item < starts[-1]:
            workspace = torch.empty(starts[-1] // item, dtype=self.dtype)
        places = [workspace.data_ptr() + start for start in starts[:-1]]
        lr, mask = lr.float(), mask.contiguous()
        job = KernelCall(
            job_bytes=ctypes.sizeof(KernelCall), step_bytes=ctypes.sizeof(steps._type_),
            mask=mask.data_ptr(), lr=lr.data_ptr(), hr=canvas.data_ptr(),
            mask_bytes=memory_bytes(mask), lr_bytes=memory_bytes(lr), hr_bytes=memory_bytes(canvas),
            lr_stride=lr.stride(), hr_stride=canvas.stride(), mean=tuple(program.mean),
            batch=batch, rows=mask.shape[1], columns=mask.shape[2], patch=patch, height=height, width=width,
            scale=self.scale, hr_bf16=canvas.dtype == torch.bfloat16, steps=len(steps), canvases=canvases,
            threads=torch.get_num_threads(), channels=(ctypes.c_int32 * canvases)(*program.channels),
            canvas=(ctypes.c_void_p * canvases)(*places), canvas_bytes=(ctypes.c_int64 * canvases)(*sizes),
            reach=(ctypes.c_int32 * canvases)(reach[0], *[reach[1]] * (canvases - 1)),
        )  # fmt: skip
        self.kernel(job, steps)
        self.workspace = workspace

    def _check(self, network: nn.Module) -> None:
        """Raises NativeError where the output differs from the network's by more than rounding."""
        generator = torch.Generator().manual_seed(0)
        lr = torch.rand(2, 3, 13, 21, generator=generator)
        mask = torch.tensor([[[True, False, True], [False, True, True]], [[False] * 3, [True] * 3]])
        with torch.inference_mode():
            expected = deepcopy(network).float()(lr)
            canvas = torch.full_like(expected, math.nan)
            got = self.run(lr, mask, 8, None, canvas)
        selected = mask.repeat_interleave(8 * self.scale, 1).repeat_interleave(8 * self.scale, 2)
        selected = selected[:, None, : expected.shape[2], : expected.shape[3]].expand_as(expected)
        difference = (got - expected)[selected].abs().max().item()
        if not difference <= TOLERANCE[self.dtype] * max(1.0, expected.abs().max().item()):
            raise NativeError(f"the native kernel's output would differ by {difference:.2g}")
        if not got[~selected].isnan().all():
            raise NativeError("the native kernel writes outside its patches")


def refuse_other_networks(network: nn.Module) -> None:
    """Raises NativeError for anything but an EDSR that is a chain of ordinary 3x3 convolutions on the CPU."""
    if type(network) is not EDSR or not isinstance(network.tail[0], nn.Conv2d):
        raise NativeError("the native kernel runs EDSR with tail 'single' only")
    maps = network.head[0].out_channels
    if maps % LANES:
        raise NativeError(f"the native kernel needs a multiple of {LANES} feature maps, not {maps}")
    if network.mean is not None and network.mean.numel() != 3:
        raise NativeError(f"the native kernel needs a mean of 3 colours, not {tuple(network.mean.shape)}")
    convolutions = [conv for conv, *_ in edsr_layers(network)]
    for number, conv in enumerate(convolutions):
        inputs = 3 if number == 0 else maps
        outputs = 3 * network.scale**2 if number == len(convolutions) - 1 else maps
        plain = nn.Conv2d(inputs, outputs, 3, padding=1, device="meta")
        if str(conv) != str(plain) or conv.weight.shape != plain.weight.shape or conv.bias.shape != plain.bias.shape:
            raise NativeError(f"the native kernel needs {plain} as convolution {number}, not {conv}")
        if conv.weight.device.type != "cpu" or conv.bias.device.type != "cpu":
            raise NativeError(f"the native kernel runs on the CPU, convolution {number} is on {conv.weight.device}")


def edsr_layers(network: EDSR) -> Iterator[tuple[nn.Conv2d, int, int, int, bool, float]]:
    """(convolution, source, target, residual, relu, factor) in order; canvas 0 is the LR image, -1 HR image or none."""
    lr, first, inner, x = 0, 1, 2, 3
    yield network.head[0], lr, first, -1, False, 1.0
    now = first
    for block in network.body[:-1]:
        yield block.body[0], now, inner, -1, True, 1.0
        yield block.body[2], inner, x, now, False, block.res_scale
        now = x
    yield network.body[-1], now, inner, first, False, 1.0
    yield network.tail[0], inner, -1, -1, False, 1.0


def _program(network: EDSR, dtype: torch.dtype) -> Program:
    """An EDSR in fp32 or bf16. Raises NativeError, see `NativeNetwork`."""
    refuse_other_networks(network)
    if dtype not in TOLERANCE or (dtype == torch.bfloat16 and "avx512_bf16" not in cpu_flags()):
        raise NativeError(f"no native kernel for {dtype} on this CPU")
    kernel = Kernel(find_library(), dtype)
    packed = [_pack(conv, factor, dtype) for conv, *_, factor in edsr_layers(network)]
    mean = [0.0] * 3 if network.mean is None else network.mean.flatten().tolist()
    # Added to the last layer's outputs, which PixelShuffle sorts by colour.
    packed[-1][1][: 3 * network.scale**2] += torch.tensor(mean).repeat_interleave(network.scale**2)
    maps = network.head[0].out_channels
    kept = [tensor for weight, bias, *_ in packed for tensor in (weight, bias)]
    return Program(kernel, _steps(network, packed), (LR_CHANNELS, maps, maps, maps), (dtype.itemsize,) * 4, mean, kept)


def _steps(network: EDSR, packed: list[tuple[Tensor, Tensor, int, int]]) -> ctypes.Array[Step]:
    """The network's layers as the kernel takes them; `reach` is left to every call."""
    steps = (Step * len(packed))()
    for step, (_, *route, _), (weight, bias, inputs, outputs) in zip(steps, edsr_layers(network), packed, strict=True):
        step.weight, step.weight_bytes = weight.data_ptr(), memory_bytes(weight)
        step.bias, step.bias_bytes = bias.data_ptr(), memory_bytes(bias)
        step.inputs, step.outputs = inputs, outputs
        step.source, step.target, step.residual, step.relu = route
    return steps


def _pack(conv: nn.Conv2d, factor: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, int, int]:
    """Weights in the kernel's order, bias (fp32, filled up), number of inputs (filled up) and outputs."""
    weight, bias = conv.weight.detach().float() * factor, conv.bias.detach().float() * factor
    outputs, inputs = weight.shape[:2]
    filled = LR_CHANNELS if inputs == 3 else inputs
    padding = (0, 0, 0, 0, 0, filled - inputs, 0, -outputs % LANES)
    weight, bias = nn.functional.pad(weight, padding), nn.functional.pad(bias, (0, -outputs % LANES))
    pair = 2 if dtype == torch.bfloat16 else 1  # inputs in one 32-bit lane
    groups = [
        part.permute(2, 3, 1, 0).reshape(9, filled // pair, pair, -1).transpose(2, 3).flatten()
        for part in weight.split(GROUP)
    ]
    return torch.cat(groups).to(dtype), bias, filled, outputs
