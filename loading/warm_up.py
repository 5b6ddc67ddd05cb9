"""The phases of a stage 3: a warm-up of the front end without labels, if any, then the training as configured.

Each phase is a stage 3 of its own in a folder of its own, begun from what the one before has written; the same as if
they had been started one after the other with these configurations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from configs.stage3_schema import Stage3Config, WarmUpConfig

OUTPUT = "conditional_sr_yolo_jointly_tuned.pth"
QUALITY, ALL = "warm_up_sr_quality", "warm_up"  # folders


@dataclass(frozen=True)
class Stage3Phase:
    """One phase.

    Args:
        name: of its folder within the run folder; empty for the last phase, which has the run folder itself.
        config: its whole configuration, `run.out` included.
    """

    name: str
    config: Stage3Config

    @property
    def output(self) -> Path:
        """The checkpoint that it writes."""
        return Path(self.config.run.out) / OUTPUT


def stage3_phases(config: Stage3Config) -> list[Stage3Phase]:
    """The phases of a stage 3, in their order; one where there is no warm-up."""
    warm_up, own = config.warm_up, replace(config, warm_up=WarmUpConfig())
    if warm_up.epochs == 0:
        return [Stage3Phase("", own)]
    phases, start = [], without_labels(own, warm_up)
    if warm_up.quality_epochs:
        alone = replace(start, sr="sr_quality", freeze=[], optim=replace(start.optim, epochs=warm_up.quality_epochs))
        phases.append(in_folder(QUALITY, alone))
        quality = replace(start.sr_quality, weights=str(phases[0].output), init=None)
        start = replace(start, sr_quality=quality, freeze=sorted({*start.freeze, "sr_quality"}))
    phases.append(in_folder(ALL, start))
    return [*phases, Stage3Phase("", replace(own, start=str(phases[-1].output)))]


def without_labels(config: Stage3Config, warm_up: WarmUpConfig) -> Stage3Config:
    """The front end through the frozen detector, which shall see in SR images what it sees in HR images; from all
    images, whatever share of them has labels."""
    micro = config.optim.micro_batch
    optim = replace(
        config.optim, epochs=warm_up.epochs, batch=warm_up.batch, lr=warm_up.lr, lr_sr=warm_up.lr,
        lr_masker=warm_up.lr_masker, micro_batch=math.gcd(warm_up.batch, micro) if micro else 0,
    )  # fmt: skip
    losses = replace(
        config.losses, det=0.0, rec=0.0, hr_share=0.0, alternate=False, distill=warm_up.distill,
        distill_outputs=warm_up.distill_outputs,
    )  # fmt: skip
    data = replace(config.data, label_share=1.0, unlabelled=False)
    return replace(config, mode="frozen_detector", upscale=1.0, data=data, optim=optim, losses=losses)


def in_folder(name: str, config: Stage3Config) -> Stage3Phase:
    """A phase in a folder of its own, which is its alone: there it always goes on with what it finds."""
    run = replace(config.run, out=str(Path(config.run.out) / name), resume=True)
    return Stage3Phase(name, replace(config, run=run))
