"""EDSR computed in place on selected patches by the native kernel, on CPUs with AVX-512.

The kernel is deployment/native/block_sparse.cpp. Windows cut for every patch (models/tiling/run_patches.py) compute
what lies between neighbours twice, and every layer is a call. The kernel computes each layer on rows of the dilated
patches only, nothing twice, all layers in one call.
"""

from __future__ import annotations

import ctypes
import math
import operator
from collections.abc import Iterator
from copy import deepcopy

import torch
from torch import Tensor, nn

from deployment.fused_inference import TOLERANCE
from deployment.native.build import NativeError, cpu_flags, find_library
from deployment.native.interface import MOST_SIDE, Kernel, KernelCall, Step, memory_bytes
from models.masker import patch_grid
from models.sr_quality import EDSR
from utils.errors import UserError

LR_CHANNELS = 4  # of the canvas that holds the LR image
GROUP, LANES = 64, 16  # outputs computed together; floats in a register


class NativeNetwork(nn.Module):
    """An EDSR with one PixelShuffle, everywhere (`forward`) or on selected patches (`run`).

    On patches, every layer is computed on the patches and `halo` pixels around them, and is zero elsewhere: as if the
    image ended there, with zero padding. An isolated patch gets what a window with that halo gives it. Every pixel is
    summed up in the same order whatever is selected and whoever computes it.

    Args:
        network: in evaluation mode, on the CPU.
        dtype: torch.float32 or torch.bfloat16 (weights and feature maps; sums are fp32).

    Raises:
        NativeError: another network or type, no library for this machine, or its output differs from the network's.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype):
        super().__init__()
        refuse_other_networks(network)
        if dtype not in TOLERANCE or (dtype == torch.bfloat16 and "avx512_bf16" not in cpu_flags()):
            raise NativeError(f"no native kernel for {dtype} on this CPU")
        self.kernel = Kernel(find_library(), dtype)
        self.scale, self.receptive_radius, self.dtype = network.scale, network.capabilities.receptive_radius, dtype
        self.packed = [_pack(conv, factor, dtype) for conv, *_, factor in edsr_layers(network)]
        self.mean = [0.0] * 3 if network.mean is None else network.mean.flatten().tolist()
        # Added to the last layer's outputs, which PixelShuffle sorts by colour.
        self.packed[-1][1][: 3 * self.scale**2] += torch.tensor(self.mean).repeat_interleave(self.scale**2)
        self.steps = _steps(network, self.packed)  # holds addresses of `packed`
        maps = network.head[0].out_channels
        self.channels = (LR_CHANNELS, maps, maps, maps)
        self.workspace: Tensor | None = None
        self._check(network)

    def forward(self, lr: Tensor) -> Tensor:
        """Dense: (B, 3, h, w) -> (B, 3, scale * h, scale * w) of `dtype`.

        Raises:
            UserError: shape or type does not fit.
        """
        _check_images(lr)
        batch, _, height, width = lr.shape
        canvas = torch.empty(batch, 3, height * self.scale, width * self.scale, dtype=self.dtype)
        return self._in_parts(lr, torch.ones(batch, 1, 1, dtype=torch.bool), max(height, width), 0, canvas, batch)

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
        patch, max_pixels = _whole_number("patch", patch, 1), _whole_number("max_pixels", max_pixels, 1)
        halo = self.receptive_radius if halo is None else _whole_number("halo", halo, 0)
        _check_images(lr)
        batch, _, height, width = lr.shape
        _check_tensor("the mask", mask, (torch.bool,), (batch, *patch_grid(height, width, patch)))
        _check_tensor("the canvas", canvas, tuple(TOLERANCE), (batch, 3, height * self.scale, width * self.scale))
        if _overlaps_itself(canvas):
            raise UserError(
                f"elements of the canvas share memory, its strides are {canvas.stride()}; use canvas.contiguous()"
            )
        patch = min(patch, max(height, width))
        return self._in_parts(lr, mask, patch, halo, canvas, max(1, max_pixels // (height * width)))

    def _in_parts(self, lr: Tensor, mask: Tensor, patch: int, halo: int, canvas: Tensor, most: int) -> Tensor:
        """At most `most` images a call; arguments are checked."""
        most = max(1, min(most, MOST_SIDE))
        for first in range(0, len(lr), most):
            part = slice(first, first + most)
            self._call(lr[part], mask[part], patch, halo, canvas[part])
        return canvas

    def _call(self, lr: Tensor, mask: Tensor, patch: int, halo: int, canvas: Tensor) -> None:
        """One call of the kernel; arguments are checked."""
        batch, _, height, width = lr.shape
        steps = type(self.steps).from_buffer_copy(self.steps)
        # What a layer gives is needed only as far as the layers after it reach.
        reach = [min(halo, self.receptive_radius - number) for number in range(len(steps) + 1)]
        for step, far in zip(steps, reach[1:], strict=True):
            step.reach = far
        item, canvases = self.dtype.itemsize, len(self.channels)
        sizes = [batch * (height + 2) * (width + 2) * channels * item for channels in self.channels]
        starts = [0]
        for size in sizes:  # every canvas on a cache line
            starts.append(starts[-1] + -(-size // 64) * 64)
        workspace, self.workspace = self.workspace, None  # ours alone while we run
        if workspace is None or workspace.numel() * item < starts[-1]:
            workspace = torch.empty(starts[-1] // item, dtype=self.dtype)
        places = [workspace.data_ptr() + start for start in starts[:-1]]
        lr, mask = lr.float(), mask.contiguous()
        job = KernelCall(
            job_bytes=ctypes.sizeof(KernelCall), step_bytes=ctypes.sizeof(Step),
            mask=mask.data_ptr(), lr=lr.data_ptr(), hr=canvas.data_ptr(),
            mask_bytes=memory_bytes(mask), lr_bytes=memory_bytes(lr), hr_bytes=memory_bytes(canvas),
            lr_stride=lr.stride(), hr_stride=canvas.stride(), mean=tuple(self.mean),
            batch=batch, rows=mask.shape[1], columns=mask.shape[2], patch=patch, height=height, width=width,
            scale=self.scale, hr_bf16=canvas.dtype == torch.bfloat16, steps=len(steps), canvases=canvases,
            threads=torch.get_num_threads(), channels=(ctypes.c_int32 * canvases)(*self.channels),
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


def _whole_number(name: str, value: int, least: int) -> int:
    """The value as an int of at least `least`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or isinstance(value, bool):
        raise UserError(f"{name} is {value!r}; it must be a whole number of at least {least}")
    return number


def _check_images(lr: Tensor) -> None:
    """Raises UserError for anything but LR images (B, 3, h, w) of at least one pixel that the kernel can address."""
    _check_tensor("the LR images", lr, (torch.float32, torch.bfloat16, torch.float16, torch.float64))
    if lr.dim() != 4 or lr.shape[1] != 3 or not all(1 <= side <= MOST_SIDE for side in lr.shape[2:]):
        raise UserError(
            f"the LR images are {tuple(lr.shape)}; the native kernel needs (B, 3, h, w) with sides of 1 to {MOST_SIDE}"
        )


def _check_tensor(name: str, tensor: Tensor, dtypes: tuple[torch.dtype, ...], shape: tuple | None = None) -> None:
    """Raises UserError where the kernel cannot read, or write, a tensor as it lies in memory."""
    if not isinstance(tensor, Tensor):
        raise UserError(f"{name}: {type(tensor).__name__} given; use a torch.Tensor")
    if tensor.device.type != "cpu" or tensor.layout != torch.strided or tensor.is_neg():
        raise UserError(
            f"{name}: on {tensor.device}, {tensor.layout}{', negated lazily' if tensor.is_neg() else ''}; the native "
            "kernel needs ordinary memory of the CPU (.cpu(), .to_dense(), .resolve_neg())"
        )
    if tensor.dtype not in dtypes:
        raise UserError(f"{name}: {tensor.dtype} given; use {' or '.join(map(str, dtypes))}")
    if shape is not None and tensor.shape != shape:
        raise UserError(f"{name}: {tuple(tensor.shape)} given; for these LR images it must be {shape}")
    span = sum(stride * (size - 1) for stride, size in zip(tensor.stride(), tensor.shape, strict=True)) + 1
    if tensor.numel() and memory_bytes(tensor) < span * tensor.element_size():
        raise UserError(f"{name}: its memory was given back; use a tensor that still holds its values")
    if tensor.requires_grad and torch.is_grad_enabled():
        raise UserError(f"{name}: requires a gradient, which the native kernel has not; call it under torch.no_grad()")


def _overlaps_itself(tensor: Tensor) -> bool:
    """Whether two elements may lie in one place, as after `expand`; slices, permutations and paddings do not."""
    end = 0  # of what the dimensions so far span, in elements
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride <= end:
            return True
        end += stride * (size - 1)
    return False


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
