"""The phases in which an SR network is trained (stage 2): one for most, several for diffusion systems."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from configs.schema import OptimConfig, Stage2Config
from configs.sr_schema import SRDataConfig
from training.phases import fit_phases
from training.processes import make_accelerator
from training.sr_training import Say, sr_task, sr_training_data, trained_scales
from training.sr_validation import SRValidation
from training.task import Task
from training.tasks import SR_PHASES
from training.trainer import Trainer
from utils.logger import MetricsLog


@dataclass(frozen=True)
class Phase:
    """One phase of a training.

    Args:
        name: of its folder and in the log; empty for the only one.
        optim: its settings; those of the last phase are those of the network's role.
        make: numbers of the earlier phases -> task. Called when the phase begins, also where it is finished already.
        data: training data, where they differ from those of the stage.
        turns: several optimisers take turns.
    """

    name: str
    optim: OptimConfig
    make: Callable[[dict[str, Any]], Task]
    data: SRDataConfig | None = None
    turns: bool = False


def sr_phases(
    role: str, network: nn.Module, config: Stage2Config, optim: OptimConfig, device: torch.device
) -> list[Phase]:
    """How the network is trained: as the module says that SR_PHASES names, else in one phase; see `sr_task`."""
    name = network.spec["name"]
    if name not in SR_PHASES:
        return [Phase("", optim, lambda numbers: sr_task(role, network, config, device))]
    return import_module(SR_PHASES[name]).phases(network, config, optim, device)


def train_in_phases(
    role: str, network: nn.Module, config: Stage2Config, optim: OptimConfig, folder: Path, say: Say = print
) -> int:
    """Train a network, phase after phase, each resumed where it was interrupted; the last one is validated.

    Args:
        role: sr_fast or sr_quality.
        network: on the CPU; trained in place.
        config: of the stage.
        optim: of this role.
        folder: run folder.
        say: tells what is left out.

    Returns:
        Epochs that the last phase has made.
    """
    device = make_accelerator(config.run).device
    trainers: list[Trainer] = []
    phases = sr_phases(role, network, config, optim, device)
    scales = trained_scales(network, config.data.val_scales) or [config.scale]

    def trainer_of(phase: Phase) -> Callable[[dict[str, Any]], Trainer]:
        def make(numbers: dict[str, Any]) -> Trainer:
            # A fresh one per phase: a gradient scaler must not carry over what a resumed run would not know.
            accelerator = make_accelerator(config.run, some_get_no_gradient=phase.turns)
            own, main = replace(config, data=phase.data or config.data), accelerator.is_main_process
            data = sr_training_data(own, phase.optim, folder, accelerator.num_processes, network, say)
            task, place = phase.make(numbers), folder / role / phase.name
            name, log = f"stage 2 {role} {phase.name}".rstrip(), MetricsLog(place, main=main)
            validation = None
            if phase is phases[-1]:
                validation = SRValidation(role, network, config, optim, folder, accelerator.device, scales, log)
            trainers.append(Trainer(name, task, data, phase.optim, config.run, place, log, accelerator, validation))
            return trainers[-1]

        return make

    fit_phases([trainer_of(phase) for phase in phases])
    return trainers[-1].epochs_made
