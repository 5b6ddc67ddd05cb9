"""Exponential moving average of weights and buffers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ModelEMA:
    """shadow <- d * shadow + (1 - d) * weights, with d = min(decay, (1 + n) / (10 + n)) after n updates.

    The rising decay keeps the untrained first weights from dominating short runs.

    Args:
        model: its state dict is followed; integer buffers are copied.
        decay: upper bound of d.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.updates = 0
        self.shadow = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        state = model.state_dict()
        averaged = [name for name, value in state.items() if value.is_floating_point()]
        if averaged:
            # One call for all of them: on a GPU a call per tensor would cost as much as a small network's step.
            torch._foreach_lerp_([self.shadow[n] for n in averaged], [state[n].detach() for n in averaged], 1 - decay)
        for name, value in state.items():
            if not value.is_floating_point():
                self.shadow[name].copy_(value)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Run the body with the averaged weights in `model`; the trained ones return afterwards."""
        trained = {name: value.detach().clone() for name, value in model.state_dict().items()}
        model.load_state_dict(self.shadow)
        try:
            yield
        finally:
            model.load_state_dict(trained)

    def state_dict(self) -> dict[str, int | dict[str, Tensor]]:
        return {"updates": self.updates, "shadow": self.shadow}

    def load_state_dict(self, state: dict) -> None:
        self.updates = state["updates"]
        for name, value in self.shadow.items():
            value.copy_(state["shadow"][name])
