"""The optimisers of a task at work: rates of the step, clipping, updates, and whose gradients are computed."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer

from training.task import OptimizerSpec, frozen
from utils.optimizer_utils import learning_rate_factor, stepped_factor


class TurnOptimizer:
    """One AdamW of a task.

    Args:
        spec: its groups and settings.
        optimizer: made of these groups, prepared by the accelerator.
        accelerator: of the run.

    Attributes:
        skipped: steps in a row that the gradient scaler of fp16 has skipped.
    """

    def __init__(self, spec: OptimizerSpec, optimizer: AcceleratedOptimizer, accelerator: Accelerator):
        self.settings, self.optimizer, self.accelerator = spec.settings, optimizer, accelerator
        self.base_rates = [group["lr"] for group in spec.groups]
        self.parameters = [parameter for group in spec.groups for parameter in group["params"]]
        self.skipped = 0

    def factor(self, step: int, steps_per_epoch: int, total_steps: int) -> float:
        """Learning rate in this step as a share of the highest one."""
        settings = self.settings
        if settings.schedule == "step":
            return stepped_factor(step, steps_per_epoch, settings.warmup, settings.milestones, settings.gamma)
        return learning_rate_factor(step, total_steps, settings.warmup, settings.lr_final)

    def set_rates(self, factor: float) -> None:
        for group, base in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = base * factor

    def rates(self) -> dict[str, float]:
        """Present learning rate by group; vectors have that of their matrices."""
        groups = self.optimizer.param_groups
        return {group["name"]: group["lr"] for group in groups if not group["name"].endswith("/vectors")}

    def clip(self) -> torch.Tensor:
        """Clip the gradients; returns their norm before (0 where it is not to be looked at)."""
        limit = self.settings.clip_norm if self.settings.clip_norm > 0 else float("inf")
        norm = self.accelerator.clip_grad_norm_(self.parameters, limit)
        # With fp16 the gradient scaler expects overflows and skips those steps itself.
        expected = self.accelerator.scaler is not None or norm is None
        return torch.zeros((), device=self.accelerator.device) if expected else norm.detach().float()

    def step(self) -> None:
        """Make the update and drop the gradients."""
        self.optimizer.step()
        self.skipped = self.skipped + 1 if self.optimizer.step_was_skipped else 0
        self.optimizer.zero_grad()


def prepare_optimizers(
    task: torch.nn.Module, specs: dict[str, OptimizerSpec], accelerator: Accelerator
) -> tuple[torch.nn.Module, dict[str, TurnOptimizer]]:
    """The task as the processes call it, on the device, and its optimisers by name."""
    raw = [torch.optim.AdamW(spec.groups, lr=spec.settings.lr) for spec in specs.values()]
    wrapped, *prepared = accelerator.prepare(task, *raw)
    turns = (TurnOptimizer(spec, made, accelerator) for spec, made in zip(specs.values(), prepared, strict=True))
    return wrapped, dict(zip(specs, turns, strict=True))


def others_frozen(optimizers: dict[str, TurnOptimizer], name: str) -> AbstractContextManager[None]:
    """Within, the parameters that only the other optimisers update get no gradient."""
    own = {id(parameter) for parameter in optimizers[name].parameters}
    others = (parameter for other in optimizers.values() for parameter in other.parameters)
    return frozen(parameter for parameter in others if id(parameter) not in own)
