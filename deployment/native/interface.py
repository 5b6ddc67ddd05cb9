"""The kernel's entry points as Python sees them: the structures of job.h, and errors instead of return codes."""

from __future__ import annotations

import ctypes
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
        try:
            self.function = getattr(ctypes.CDLL(str(library)), f"run_{dtype_name(dtype)}")
        except (OSError, AttributeError) as error:
            raise NativeError(f"the native kernel cannot be loaded: {error}") from error
        self.function.argtypes = [ctypes.POINTER(KernelCall), ctypes.POINTER(Step), ctypes.c_char_p, ctypes.c_int64]
        self.function.restype = ctypes.c_int32

    def __call__(self, job: KernelCall, steps: ctypes.Array[Step]) -> None:
        """Run a job, or nothing of it.

        Raises:
            UserError: the kernel's own checks refuse it; the message names the argument, its value and what is right.
            MemoryError: out of memory; what was selected may be written in part.
        """
        message = ctypes.create_string_buffer(256)
        code = self.function(job, steps, message, len(message))
        if code == OUT_OF_MEMORY:
            raise MemoryError(f"native kernel: {message.value.decode()}")
        if code:
            raise UserError(f"native kernel: {message.value.decode()}")


def memory_bytes(tensor: Tensor) -> int:
    """Bytes of memory from a tensor's first element on, whatever its shape says."""
    return max(0, tensor.untyped_storage().nbytes() - tensor.storage_offset() * tensor.element_size())
