"""What callers hand to the native kernels: checked here, so that a refusal says what would be right."""

from __future__ import annotations

import operator
from typing import Protocol

import torch
from torch import Tensor

from deployment.native.interface import MOST_SIDE, memory_bytes
from models.masker import patch_grid
from utils.errors import UserError

CANVAS_TYPES = (torch.float32, torch.bfloat16)


class Runner(Protocol):
    """What a kernel says of its network: the factor, and the reach in LR pixels."""

    scale: int
    receptive_radius: int


def checked(
    runner: Runner, lr: Tensor, mask: Tensor, patch: int, halo: int | None, canvas: Tensor, max_pixels: int
) -> tuple[int, int, int]:
    """Side of the patches, halo, and most images a call, for the arguments of `NativeNetwork.run`.

    Raises:
        UserError: shapes, types, numbers or memory do not fit, or gradients are asked for.
    """
    patch, max_pixels = whole_number("patch", patch, 1), whole_number("max_pixels", max_pixels, 1)
    halo = runner.receptive_radius if halo is None else whole_number("halo", halo, 0)
    check_images(lr)
    batch, _, height, width = lr.shape
    check_tensor("the mask", mask, (torch.bool,), (batch, *patch_grid(height, width, patch)))
    check_tensor("the canvas", canvas, CANVAS_TYPES, (batch, 3, height * runner.scale, width * runner.scale))
    if overlaps_itself(canvas):
        raise UserError(
            f"elements of the canvas share memory, its strides are {canvas.stride()}; use canvas.contiguous()"
        )
    return min(patch, max(height, width)), halo, max(1, min(max_pixels // (height * width), MOST_SIDE))


def whole_number(name: str, value: int, least: int) -> int:
    """The value as an int of at least `least`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or isinstance(value, bool):
        raise UserError(f"{name} is {value!r}; it must be a whole number of at least {least}")
    return number


def check_images(lr: Tensor) -> None:
    """Raises UserError for anything but LR images (B, 3, h, w) of at least one pixel that the kernel can address."""
    check_tensor("the LR images", lr, (torch.float32, torch.bfloat16, torch.float16, torch.float64))
    if lr.dim() != 4 or lr.shape[1] != 3 or not all(1 <= side <= MOST_SIDE for side in lr.shape[2:]):
        raise UserError(
            f"the LR images are {tuple(lr.shape)}; the native kernel needs (B, 3, h, w) with sides of 1 to {MOST_SIDE}"
        )


def check_tensor(name: str, tensor: Tensor, dtypes: tuple[torch.dtype, ...], shape: tuple | None = None) -> None:
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


def overlaps_itself(tensor: Tensor) -> bool:
    """Whether two elements may lie in one place, as after `expand`; slices, permutations and paddings do not."""
    end = 0  # of what the dimensions so far span, in elements
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride <= end:
            return True
        end += stride * (size - 1)
    return False
