"""Modules from the checkpoints that the stage scripts write: each says how to build what it holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

from loading.bounded_build import at_most
from loading.build_network import build_network, network_of_role
from loading.published_weights import check_finite
from models.build_front import build_front
from models.front_end import FrontEnd
from models.sr_network import SRNetwork
from utils.checkpoint import CheckpointError, load_network

Module = TypeVar("Module", bound=nn.Module)
FRONT = "front."  # of the names of a front end's weights in a system


def checkpoint_kind(path: str | Path) -> str | None:
    """What a checkpoint of the stage scripts holds: sr, detector or system; None for any other file."""
    try:
        return load_network(path)["kind"]
    except CheckpointError:
        return None


def rebuilt(path: str | Path, build: Callable[[], Module], weights: dict[str, Tensor]) -> Module:
    """The module from `build()` with these weights, in evaluation mode.

    Raises:
        CheckpointError: it cannot be built, or the weights are not its own or not finite.
    """
    try:
        with at_most(path, weights):
            module = build()
        check_finite(path, weights)
        module.load_state_dict(weights)
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        first = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{path}: cannot be rebuilt from what it says of itself ({type(error).__name__}: {first}); it was written"
            " by another version of this project: train the stage again"
        ) from error
    return module.eval()


def load_stage2(path: str | Path) -> SRNetwork:
    """SR network of a stage-2 checkpoint, on the CPU, in evaluation mode. Raises CheckpointError."""
    payload = load_network(path, kind="sr")
    args = dict(payload["args"])
    return rebuilt(path, lambda: build_network(payload["name"], args.pop("scale"), args), payload["weights"])


def load_front(path: str | Path) -> FrontEnd:
    """Front end of a stage-3 checkpoint, without its detector; on the CPU, in evaluation mode.

    Raises:
        CheckpointError: missing, damaged, or not a stage-3 checkpoint.
    """
    payload = load_network(path, kind="system")
    weights = {key.removeprefix(FRONT): x for key, x in payload["weights"].items() if key.startswith(FRONT)}
    return rebuilt(path, lambda: build_front(payload["args"]["front"], network_of_role), weights)
