"""Networks no larger than the file that describes them: a few bytes may ask for a billion blocks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from utils.checkpoint import CheckpointError

# Generous: some readers try several networks, and heads for other classes have other sizes.
PARAMETERS, MODULES = 8, 20  # per number, and per tensor, that the file holds
SLACK_PARAMETERS, SLACK_MODULES = 30_000_000, 2_000
_state = threading.local()


@contextmanager
def at_most(path: str | Path, weights: dict[str, Tensor]) -> Iterator[None]:
    """While the body builds networks in this thread, stop it where they outgrow the weights that they are to hold.

    Args:
        path: for the message.
        weights: that the file holds.

    Raises:
        CheckpointError: from within the body, as soon as a module or parameter too many is made.
    """
    left = {
        "parameters": PARAMETERS * sum(x.numel() for x in weights.values()) + SLACK_PARAMETERS,
        "modules": MODULES * len(weights) + SLACK_MODULES,
    }
    thread = threading.get_ident()

    def spend(kind: str, amount: int) -> None:
        if threading.get_ident() != thread or getattr(_state, "unbounded", False):
            return
        left[kind] -= amount
        if left[kind] < 0:
            raise CheckpointError(
                f"{path}: describes a network with far more {kind} than its {len(weights)} tensors hold; it is damaged "
                "or made to fill the memory: get it anew from its source"
            )

    def on_parameter(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        spend("parameters", 0 if parameter is None else parameter.numel())

    hooks = [
        register_module_parameter_registration_hook(on_parameter),
        register_module_module_registration_hook(lambda module, name, child: spend("modules", 1)),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def unbounded() -> Iterator[None]:
    """Within `at_most`: what is built here has weights in another file."""
    _state.unbounded = True
    try:
        yield
    finally:
        _state.unbounded = False
