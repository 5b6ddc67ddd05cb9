"""Differential learning rates: which parameter learns how fast in which stage, and the schedule of all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from torch import nn

Group = dict
Parts = dict[str, list[nn.Parameter]]


class HasTail(Protocol):
    """An SR network."""

    @property
    def tail(self) -> nn.Module | None: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...


class LearningFront(Protocol):
    """A front end in stage 3."""

    def parameter_parts(self) -> Parts: ...

    def requires_grad_(self, requires_grad: bool) -> object: ...


class LearningDetector(Protocol):
    """A detector in stage 3."""

    def parameter_groups(self) -> Parts: ...

    def freeze(self) -> None: ...


class LearningSystem(Protocol):
    """What stage 3 trains: a ConditionalSRDetector."""

    @property
    def front(self) -> LearningFront: ...

    @property
    def detector(self) -> LearningDetector: ...


def decay_groups(name: str, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> list[Group]:
    """Trainable parameters as optimiser groups; vectors and scalars (biases, norms) are not decayed."""
    parameters = [p for p in parameters if p.requires_grad]
    matrices = [p for p in parameters if p.ndim >= 2]
    vectors = [p for p in parameters if p.ndim < 2]
    groups = [
        {"name": name, "params": matrices, "lr": lr, "weight_decay": weight_decay},
        {"name": f"{name}/vectors", "params": vectors, "lr": lr, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def split_tail(network: HasTail) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(parameters of the last one or two layers, all others) of an SR network."""
    tail = [] if network.tail is None else list(network.tail.parameters())
    ids = {id(p) for p in tail}
    return tail, [p for p in network.parameters() if id(p) not in ids]


def learning_rate_factor(step: int, total_steps: int, warmup: int, final: float) -> float:
    """Linear warm-up over `warmup` steps, then cosine from 1 to `final`: a pure function of the step."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total_steps - 1 - warmup)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def stepped_factor(step: int, steps_per_epoch: int, warmup: int, milestones: list[int], gamma: float) -> float:
    """Linear warm-up, then gamma^n after n of the milestones (in epochs): a pure function of the step."""
    if step < warmup:
        return (step + 1) / warmup
    return gamma ** sum(step >= epoch * steps_per_epoch for epoch in milestones)


def freeze_parts(system: LearningSystem, mode: str, freeze: Sequence[str] = ()) -> None:
    """Take `requires_grad` from the parameters of stage 3 that stay as they are.

    Args:
        system: front end and detector.
        mode: joint, frozen_detector (the detector stays) or detector_only (the front end stays).
        freeze: parts of a conditional front end that stay: masker, sr_fast, sr_quality.
    """
    front = system.front
    if mode == "detector_only":
        front.requires_grad_(False)
    elif mode == "frozen_detector":
        system.detector.freeze()
    for name, parameters in front.parameter_parts().items():
        if name.partition("/")[0] in freeze:
            for parameter in parameters:
                parameter.requires_grad_(False)


def stage3_groups(system: LearningSystem, optim) -> list[Group]:
    """Optimiser groups of stage 3, of the parameters that `freeze_parts` has left.

    High rate (optim.lr): masker (or optim.lr_masker), detector head, last layers of both SR networks. Low rate
    (optim.lr_low): detector backbone, all other SR layers (these at optim.lr_sr where it is given).

    Args:
        system: front end and detector.
        optim: OptimConfig.
    """
    rates = {
        "masker": optim.lr if optim.lr_masker is None else optim.lr_masker,
        "tail": optim.lr,
        "body": optim.lr_low if optim.lr_sr is None else optim.lr_sr,
    }
    front, parts = system.front.parameter_parts(), system.detector.parameter_groups()
    named = [(name, parameters, rates[name.rpartition("/")[2]]) for name, parameters in front.items()]
    named += [("head", parts["head"], optim.lr), ("backbone", parts["backbone"], optim.lr_low)]
    return [group for name, params, lr in named for group in decay_groups(name, params, lr, optim.weight_decay)]
