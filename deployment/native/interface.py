"""The kernel's entry points as Python sees them: the structures of job.h, and errors instead of return codes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from deployment.native.build import NativeError
from utils.device import dtype_name
from utils.errors import UserError

MOST_SIDE = 1 << 24  # of an image, in pixels, and most images of one call; as in job.h
OUT_OF_MEMORY = 2


class Step(ctypes.Structure):
    """One convolution; as in the C++ source."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("weight", "bias")),
        *((name, ctypes.c_int64) for name in ("weight_bytes", "bias_bytes")),
        *((name, ctypes.c_int32) for name in ("inputs", "outputs", "source", "target", "residual", "relu", "reach")),
    ]


class Int8Step(ctypes.Structure):
    """One convolution of the int8 kernel; as in int8.h."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "scale", "offset")),
        *((f"{name}_bytes", ctypes.c_int64) for name in ("weight", "bias", "scale", "offset")),
        *((name, ctypes.c_int32) for name in ("inputs", "outputs", "source", "residual", "rounded", "target")),
        *((name, ctypes.c_int32) for name in ("relu", "reach")),
        ("unit", ctypes.c_float),
    ]


class KernelCall(ctypes.Structure):
    """One call, `Job` in the C++ source."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("job_bytes", "step_bytes")),
        *((name, ctypes.c_void_p) for name in ("mask", "lr", "hr")),
        *((name, ctypes.c_int64) for name in ("mask_bytes", "lr_bytes", "hr_bytes")),
        ("lr_stride", ctypes.c_int64 * 4),
        ("hr_stride", ctypes.c_int64 * 4),
        ("mean", ctypes.c_float * 3),
        *((name, ctypes.c_int32) for name in ("batch", "rows", "columns", "patch", "height", "width", "scale")),
        *((name, ctypes.c_int32) for name in ("hr_bf16", "steps", "canvases", "threads")),
        ("channels", ctypes.POINTER(ctypes.c_int32)),
        ("canvas", ctypes.POINTER(ctypes.c_void_p)),
        ("canvas_bytes", ctypes.POINTER(ctypes.c_int64)),
        ("reach", ctypes.POINTER(ctypes.c_int32)),
    ]


class Kernel:
    """The entry point for weights and feature maps of one type.

    Raises:
        NativeError: the library cannot be loaded, or has no such entry point.
    """

    def __init__(self, library: Path, dtype: torch.dtype):
        self.function = entry_points(library, f"run_{dtype_name(dtype)}")[0]
        self.function.argtypes = [ctypes.POINTER(KernelCall), ctypes.POINTER(Step), ctypes.c_char_p, ctypes.c_int64]

    def __call__(self, job: KernelCall, steps: ctypes.Array[Step]) -> None:
        """Run a job, or nothing of it.

        Raises:
            UserError: the kernel's own checks refuse it; the message names the argument, its value and what is right.
            MemoryError: out of memory; what was selected may be written in part.
        """
        message = ctypes.create_string_buffer(256)
        raise_for(self.function(job, steps, message, len(message)), message)


class Int8Kernel:
    """The entry point for 8-bit maps.

    Args:
        library: of int8.cpp.
        zero: zero points of the canvases, see int8.h.

    Raises:
        NativeError: see `Kernel`.
    """

    def __init__(self, library: Path, zero: tuple[int, ...]):
        self.function, lane = entry_points(library, "run_int8", "int8_lane")
        numbers, text = ctypes.POINTER(ctypes.c_int32), (ctypes.c_char_p, ctypes.c_int64)
        self.function.argtypes = [ctypes.POINTER(KernelCall), ctypes.POINTER(Int8Step), numbers, *text]
        self.zero, self.lane = (ctypes.c_int32 * len(zero))(*zero), lane()

    def __call__(self, job: KernelCall, steps: ctypes.Array[Int8Step]) -> None:
        """See `Kernel`."""
        message = ctypes.create_string_buffer(256)
        raise_for(self.function(job, steps, self.zero, message, len(message)), message)


@dataclass(frozen=True)
class Program:
    """A network as a kernel takes it.

    Args:
        kernel: (job, steps) -> None.
        steps: the layers; `reach` is left to every call.
        channels: of every canvas.
        items: bytes of a value in every canvas.
        mean: colour that is subtracted from the LR images.
        kept: tensors whose addresses the steps hold.
    """

    kernel: Callable[[KernelCall, ctypes.Array], None]
    steps: ctypes.Array
    channels: tuple[int, ...]
    items: tuple[int, ...]
    mean: list[float]
    kept: list[Tensor]


def entry_points(library: Path, *names: str) -> list:
    """Functions of a library that return int32.

    Raises:
        NativeError: it cannot be loaded, or has no such function.
    """
    try:
        loaded = ctypes.CDLL(str(library))
        functions = [getattr(loaded, name) for name in names]
    except (OSError, AttributeError) as error:
        raise NativeError(f"the native kernel cannot be loaded: {error}") from error
    for function in functions:
        function.restype = ctypes.c_int32
    return functions


def raise_for(code: int, message: ctypes.Array) -> None:
    """The exception for a return code that is not 0; see `Kernel`."""
    if code == OUT_OF_MEMORY:
        raise MemoryError(f"native kernel: {message.value.decode()}")
    if code:
        raise UserError(f"native kernel: {message.value.decode()}")


def memory_bytes(tensor: Tensor) -> int:
    """Bytes of memory from a tensor's first element on, whatever its shape says."""
    return max(0, tensor.untyped_storage().nbytes() - tensor.storage_offset() * tensor.element_size())
