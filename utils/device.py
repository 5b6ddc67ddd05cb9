"""Where and in which precision to compute: the names that users give, and what PyTorch makes of them."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor

from utils.errors import UserError

CARD = Path("/dev/nvidia0")  # there once a driver has found a GPU
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str, key: str = "device") -> torch.device:
    """Device for auto, cpu or cuda.

    Args:
        name: as the user gave it.
        key: the option or key by which it was given, for the message.

    Raises:
        UserError: cuda was asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(f"{key} cuda: PyTorch finds no CUDA device; use --{key} cpu, or install its CUDA build")
    if name == "auto" and torch.version.cuda and CARD.exists() and not torch.cuda.is_available():
        warnings.warn(
            f"an NVIDIA GPU is here, but PyTorch for CUDA {torch.version.cuda} cannot use it (driver too old? see "
            f"nvidia-smi): computing on the CPU; --{key} cpu says that you know",
            stacklevel=2,
        )
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def check_precision(precision: str, device: torch.device, key: str = "precision") -> None:
    """Raises UserError for fp16 without CUDA; `key` is the option or key by which it was given."""
    if precision == "fp16" and device.type != "cuda":
        raise UserError(f"{key} fp16 needs CUDA; use bf16 or fp32 on a CPU")


def compute_type(device: torch.device, half: bool) -> torch.dtype:
    """fp32, or the 16-bit type that the device is fast in."""
    if not half:
        return torch.float32
    return torch.float16 if device.type == "cuda" else torch.bfloat16


def dtype_name(dtype: torch.dtype) -> str:
    """torch.bfloat16 -> "bfloat16"."""
    return str(dtype).removeprefix("torch.")


def set_threads(count: int) -> None:
    """Let PyTorch use so many CPU threads; 0 keeps its choice. Raises UserError below 0."""
    if count < 0:
        raise UserError(f"threads is {count}; give 1 or more, or 0 for PyTorch's choice")
    if count:
        torch.set_num_threads(count)


def sent(host: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on the device; out of page-locked memory, so that the host need not wait for the copy."""
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host


def is_out_of_memory(error: BaseException) -> bool:
    """Whether CUDA or the machine itself ran out of memory."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
