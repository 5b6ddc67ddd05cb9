"""LPIPS from the weight files that the user names; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from models.lpips import LPIPS, lpips_from_state
from utils.checkpoint import CheckpointError

WHERE = (
    "LPIPS needs torchvision's backbone (alexnet-owt-7be5be79.pth or vgg16-397923af.pth) and the channel weights of the"
    " lpips package (lpips/weights/v0.1/alex.pth or vgg.pth), or one file with both"
)


def load_lpips(files: Sequence[str | Path]) -> LPIPS:
    """LPIPS on the CPU, in evaluation mode, with fixed weights.

    Args:
        files: backbone and channel weights, in any order; .pth or .safetensors.

    Raises:
        CheckpointError: no file, one that is missing or damaged, or not the weights of LPIPS.
    """
    if not files:
        raise CheckpointError(f"no weights of LPIPS are named; {WHERE}")
    state: dict[str, Tensor] = {}
    for file in files:
        state |= _read(Path(file))
    try:
        return lpips_from_state(state)
    except ValueError as error:
        raise CheckpointError(f"{', '.join(map(str, files))}: {error}") from error


def _read(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise CheckpointError(f"{file}: does not exist; {WHERE}")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files fail in any way
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(
            f"{file}: cannot be read as a state dict ({type(error).__name__}: {reason}); use another copy of it"
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{file}: not a state dict; {WHERE}")
    return state
