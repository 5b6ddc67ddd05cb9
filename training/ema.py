"""Exponential moving average of weights and buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ModelEMA:
    """shadow <- d * shadow + (1 - d) * weights, with d = min(decay, (1 + n) / (10 + n)) after n updates.

    The rising decay keeps the untrained first weights from dominating short runs.

    Args:
        model: its state dict is followed; integer buffers are copied.
        decay: upper bound of d.
        averages: which entries of the state dict are followed; the others stay as they are in the model.
    """

    def __init__(self, model: nn.Module, decay: float, averages: Callable[[str], bool] = lambda name: True):
        self.decay = decay
        self.updates = 0
        state = model.state_dict()
        self.shadow = {name: value.detach().clone() for name, value in state.items() if averages(name)}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        state = model.state_dict()
        averaged = [name for name, value in self.shadow.items() if value.is_floating_point()]
        if averaged:
            # One call for all of them: on a GPU a call per tensor would cost as much as a small network's step.
            torch._foreach_lerp_([self.shadow[n] for n in averaged], [state[n].detach() for n in averaged], 1 - decay)
        for name, value in self.shadow.items():
            if not value.is_floating_point():
                value.copy_(state[name])

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Run the body with the averaged weights in `model`; the trained ones return afterwards."""
        state = model.state_dict()
        trained = {name: state[name].detach().clone() for name in self.shadow}
        self.put_into(model)
        try:
            yield
        finally:
            model.load_state_dict(trained, strict=False)

    def put_into(self, model: nn.Module) -> None:
        """Replace the trained weights by the averaged ones."""
        model.load_state_dict(self.shadow, strict=False)  # what is not averaged is not in it

    def state_dict(self) -> dict[str, int | dict[str, Tensor]]:
        return {"updates": self.updates, "shadow": self.shadow}

    def load_state_dict(self, state: dict) -> None:
        self.updates = state["updates"]
        for name, value in self.shadow.items():
            value.copy_(state["shadow"][name])
