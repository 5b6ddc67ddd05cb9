"""EDSR computed in place on selected patches by the native kernel, on CPUs with AVX-512.

The kernel is deployment/native/block_sparse.cpp. Windows cut for every patch (models/tiling/execution.py) compute what
lies between neighbours twice, and every layer is a call. The kernel computes each layer on rows of the dilated patches
only, nothing twice, all layers in one call.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from copy import deepcopy

import torch
from torch import Tensor, nn

from deployment.fused_inference import TOLERANCE
from deployment.native.build import NativeError, cpu_flags, find_library
from models.sr_quality import EDSR
from utils.errors import UserError

LR_CHANNELS = 4  # of the canvas that holds the LR image
GROUP, LANES = 64, 16  # outputs computed together; floats in a register


class Step(ctypes.Structure):
    """One convolution; as in the C++ source."""

    _fields_ = [("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p)] + [
        (name, ctypes.c_int32) for name in ("inputs", "outputs", "source", "target", "residual", "relu", "reach")
    ]


class Job(ctypes.Structure):
    """One call; as in the C++ source."""

    _fields_ = [
        ("mask", ctypes.c_void_p),
        ("lr", ctypes.c_void_p),
        ("hr", ctypes.c_void_p),
        ("lr_stride", ctypes.c_int64 * 4),
        ("hr_stride", ctypes.c_int64 * 4),
        ("mean", ctypes.c_float * 3),
        *((name, ctypes.c_int32) for name in ("batch", "rows", "columns", "patch", "height", "width", "scale")),
        *((name, ctypes.c_int32) for name in ("hr_bf16", "steps", "canvases", "threads")),
        ("channels", ctypes.POINTER(ctypes.c_int32)),
        ("canvas", ctypes.POINTER(ctypes.c_void_p)),
        ("reach", ctypes.POINTER(ctypes.c_int32)),
    ]


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
        if type(network) is not EDSR or not isinstance(network.tail[0], nn.Conv2d):
            raise NativeError("the native kernel runs EDSR with tail 'single' only")
        if network.head[0].out_channels % LANES:
            raise NativeError(f"the native kernel needs a multiple of {LANES} feature maps")
        if dtype not in TOLERANCE or (dtype == torch.bfloat16 and "avx512_bf16" not in cpu_flags()):
            raise NativeError(f"no native kernel for {dtype} on this CPU")
        try:
            library = ctypes.CDLL(str(find_library()))
            self.function = getattr(library, f"run_{str(dtype).removeprefix('torch.')}")
        except (OSError, AttributeError) as error:
            raise NativeError(f"the native kernel cannot be loaded: {error}") from error
        self.function.argtypes, self.function.restype = [ctypes.POINTER(Job), ctypes.POINTER(Step)], None
        self.scale, self.radius, self.dtype = network.scale, network.capabilities.radius, dtype
        self.packed = [_pack(conv, factor, dtype) for conv, *_, factor in _layers(network)]
        self.plan = [(source, target, residual, relu) for _, source, target, residual, relu, _ in _layers(network)]
        self.mean = [0.0] * 3 if network.mean is None else network.mean.flatten().tolist()
        # Added to the last layer's outputs, which PixelShuffle sorts by colour.
        self.packed[-1][1][: 3 * self.scale**2] += torch.tensor(self.mean).repeat_interleave(self.scale**2)
        maps = network.head[0].out_channels
        self.channels = (LR_CHANNELS, maps, maps, maps)
        self.workspace: Tensor | None = None
        self._check(network)

    def forward(self, lr: Tensor) -> Tensor:
        """Dense: (B, 3, h, w) -> (B, 3, scale * h, scale * w) of `dtype`."""
        batch, _, height, width = lr.shape
        canvas = torch.empty(batch, 3, height * self.scale, width * self.scale, dtype=self.dtype)
        return self._call(lr, torch.ones(batch, 1, 1, dtype=torch.bool), max(height, width), 0, canvas)

    def run(
        self, lr: Tensor, mask: Tensor, patch: int, halo: int | None, canvas: Tensor, max_pixels: int = 1 << 18
    ) -> Tensor:
        """Replace the selected patches of `canvas` by the network's output; as `run_on_tiles`.

        Args:
            lr: LR images (B, 3, h, w).
            mask: bool (B, ceil(h / patch), ceil(w / patch)).
            patch: side of a patch in LR pixels.
            halo: LR pixels around the patches that are computed too; None is exact.
            canvas: HR images (B, 3, scale * h, scale * w), fp32 or bf16, overwritten.
            max_pixels: most LR pixels of images in work at once, bounds the memory; a single image may be larger.

        Returns:
            The canvas.

        Raises:
            ValueError: shapes or types do not fit.
        """
        batch, _, height, width = lr.shape
        grid, size = (batch, -(-height // patch), -(-width // patch)), (height * self.scale, width * self.scale)
        if mask.shape != grid or canvas.shape != (batch, 3, *size):
            raise UserError(
                f"mask {tuple(mask.shape)} and canvas {tuple(canvas.shape)} must be {grid} and {(batch, 3, *size)} "
                f"for images {tuple(lr.shape)} and patches of {patch}"
            )
        if mask.dtype != torch.bool:
            raise UserError(f"the mask is {mask.dtype}; use torch.bool")
        if canvas.dtype not in TOLERANCE:
            raise UserError(f"the canvas is {canvas.dtype}; use torch.float32 or torch.bfloat16")
        most = max(1, max_pixels // (height * width))
        for first in range(0, batch, most):
            part = slice(first, first + most)
            self._call(lr[part], mask[part], patch, self.radius if halo is None else halo, canvas[part])
        return canvas

    def _call(self, lr: Tensor, mask: Tensor, patch: int, halo: int, canvas: Tensor) -> Tensor:
        """One call of the kernel; arguments as checked by `run`."""
        batch, _, height, width = lr.shape
        # What a layer gives is needed only as far as the layers after it reach.
        reach = [min(halo, self.radius - number) for number in range(len(self.plan) + 1)]
        steps = (Step * len(self.plan))()
        for step, (weight, bias, inputs, outputs), route, far in zip(
            steps, self.packed, self.plan, reach[1:], strict=True
        ):
            step.weight, step.bias, step.inputs, step.outputs = weight.data_ptr(), bias.data_ptr(), inputs, outputs
            step.source, step.target, step.residual, step.relu = route
            step.reach = far
        starts = [0]
        for channels in self.channels:  # every canvas on a cache line
            starts.append(starts[-1] + -(-batch * (height + 2) * (width + 2) * channels // 64) * 64)
        workspace, self.workspace = self.workspace, None  # ours alone while we run
        if workspace is None or workspace.numel() < starts[-1]:
            workspace = torch.empty(starts[-1], dtype=self.dtype)
        places = [workspace.data_ptr() + start * workspace.element_size() for start in starts[:-1]]
        lr, mask = lr.float(), mask.contiguous()
        job = Job(
            mask=mask.data_ptr(), lr=lr.data_ptr(), hr=canvas.data_ptr(),
            lr_stride=lr.stride(), hr_stride=canvas.stride(), mean=tuple(self.mean),
            batch=batch, rows=mask.shape[1], columns=mask.shape[2], patch=patch, height=height, width=width,
            scale=self.scale, hr_bf16=canvas.dtype == torch.bfloat16, steps=len(steps), canvases=len(places),
            threads=torch.get_num_threads(),
            channels=(ctypes.c_int32 * len(places))(*self.channels), canvas=(ctypes.c_void_p * len(places))(*places),
            reach=(ctypes.c_int32 * len(places))(reach[0], *[reach[1]] * (len(places) - 1)),
        )  # fmt: skip
        self.function(ctypes.byref(job), steps)
        self.workspace = workspace
        return canvas

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


def _layers(network: EDSR) -> Iterator[tuple[nn.Conv2d, int, int, int, bool, float]]:
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
