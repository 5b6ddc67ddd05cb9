"""NaN at every place and step, and a disk that is full: training stops, and what was saved stays good."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import torch

from tests.reliability.tiny_run import STEPS, Normalised, Points, trainer_of
from tests.small_disk import small_disk
from training.faults import first_not_finite
from training.loss_terms import NonFiniteError
from utils.checkpoint import CheckpointError, load_checkpoint


class Poisoned(Normalised):
    """Something becomes NaN or infinite in one step."""

    def __init__(self, where: str, step: int, value: float):
        super().__init__(1)
        self.where, self.at, self.value = where, step, value

    def losses(self, batch: Points, progress) -> dict[str, torch.Tensor]:
        if progress.step != self.at:
            return super().losses(batch, progress)
        if self.where == "input":
            batch = Points(torch.full_like(batch.x, self.value), batch.files)
        losses = super().losses(batch, progress)
        if self.where == "loss":
            losses["total"] = losses["total"] * self.value
        elif self.where == "gradient":
            losses["total"].register_hook(lambda gradient: gradient * self.value)
        elif self.where != "input":
            getattr(self.norm, self.where).data.fill_(self.value)
        return losses


def test_nan_stops_before_the_update(tmp_path: Path, count, record):
    places, tried, good = ["loss", "gradient", "input", "running_mean", "running_var"], count(5, 150), 0
    for index in range(tried):
        step, value = 1 + index // len(places) % (STEPS - 1), float("nan" if index % 2 else "inf")
        trainer = trainer_of(tmp_path / str(index), Poisoned(places[index % len(places)], step, value))
        try:
            trainer.fit()
        except NonFiniteError as error:
            kept = load_checkpoint(tmp_path / str(index) / "checkpoints" / "last.pth")
            named = f"at step {step + 1} " in str(error) and ".png" in str(error)
            same = torch.equal(kept["model"]["weight"], trainer.task.weight.detach())
            good += named and same and kept["step"] == step and not first_not_finite(kept)
    what = "NaN or inf in loss, gradient, input, BatchNorm: stopped before the update, saved state good"
    record("Faults in training", what, good, tried)


def test_a_full_disk_keeps_the_last_state(tmp_path: Path, count, record):
    tried, good, chance = count(2, 20), 0, random.Random(0)
    for index in range(tried):
        with small_disk(tmp_path / str(index), chance.randint(280, 600)) as disk:
            trainer = trainer_of(disk / "run", Normalised(10_000))
            for _ in range(2):
                trainer.step += 1
                trainer.save()
            with (disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
                while filler.write(bytes(4096)):
                    pass
            trainer.step += 1
            try:
                trainer.save()
            except CheckpointError as error:
                kept = trainer_of(disk / "run", Normalised(10_000))
                good += "No space left on device" in str(error) and 0 < kept.restore() < trainer.step
    record("Faults in training", "full disk: says so, the last state is good", good, tried)
