"""What stops a training: numbers that are not finite, and lack of memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from configs.schema import OptimConfig, RunConfig


def batchnorm_statistics(module: nn.Module) -> list[Tensor]:
    """Running means and variances of all BatchNorm layers. A loss does not show when they are damaged: training
    normalises by the batch."""
    layers = (layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm))
    return [x for layer in layers for x in (layer.running_mean, layer.running_var) if x is not None]


def largest(tensors: list[Tensor]) -> Tensor:
    """Largest absolute value, NaN where there is one, a scalar on their device; 0 for none. Nothing is waited for."""
    if not tensors:
        return torch.zeros(())
    return torch.stack(torch._foreach_norm(tensors, float("inf"))).float().max()


def first_not_finite(state: dict, place: str = "") -> str:
    """Where in a nested state a tensor with NaN or an infinite value is, "" where all is finite.

    The answers of a device cross to the host at once.
    """
    found: dict[torch.device, dict[str, Tensor]] = {}
    for name, x in _tensors(state, place):
        found.setdefault(x.device, {})[name] = torch.isfinite(x).all()
    for flags in found.values():
        for name, finite in zip(flags, torch.stack(list(flags.values())).tolist(), strict=True):
            if not finite:
                return name
    return ""


def _tensors(value: object, place: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield place, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _tensors(item, f"{place}.{key}" if place else str(key))


def memory_advice(optim: OptimConfig, run: RunConfig, micro_batch: int, device: torch.device) -> str:
    """What to change against lack of memory, of what was not changed already."""
    ways = []
    if micro_batch > 1:
        ways.append(f"optim.micro_batch {micro_batch // 2} (the result stays that of optim.batch {optim.batch})")
    if device.type == "cuda" and run.precision == "fp32":
        ways.append("run.precision bf16")
    if device.type == "cpu" and run.workers > 0:
        ways.append(f"fewer run.workers than {run.workers}")
    return f"out of memory; take {' or '.join([*ways, 'smaller images or patches'])} in a new run"
