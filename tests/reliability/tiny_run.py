"""A run of the Trainer of milliseconds a step, in forked children that are killed and stopped at random."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator

from configs.schema import OptimConfig, RunConfig
from tests.training.test_trainer import Fit, Line, Points, collate
from training.trainer import Trainer
from training.training_data import TrainingData
from utils.logger import MetricsLog

OPTIM = OptimConfig(epochs=6, batch=4, lr=0.1, warmup=1, clip_norm=10.0, ema=0.9)
RUN = RunConfig(device="cpu", workers=0, checkpoint_every=1, log_every=1)
STEPS = 12


class Normalised(Fit):
    """Has BatchNorm statistics, and weights that take a moment to write."""

    def __init__(self, numbers: int = 20_000):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(1)
        self.register_buffer("table", torch.zeros(numbers))

    def losses(self, batch: Points, progress) -> dict[str, torch.Tensor]:
        self.table += progress.step
        return super().losses(replace(batch, x=self.norm(batch.x[:, None])[:, 0]), progress)


class Quiet(MetricsLog):
    """metrics.jsonl alone: TensorBoard's threads do not outlive a fork."""

    def scalars(self, values: dict, step: int) -> None:
        writer, self._writer = self._writer, _Nothing()
        super().scalars(values, step)
        self._writer = writer


class _Nothing:
    def add_scalar(self, *_: object) -> None:
        pass


def trainer_of(folder: Path, task: Fit | None = None, epochs: int = 6, every: int = 1) -> Trainer:
    torch.manual_seed(0)
    optim, run, data = (
        replace(OPTIM, epochs=epochs),
        replace(RUN, checkpoint_every=every),
        TrainingData(Line(8), collate),
    )
    return Trainer("tiny", task or Normalised(), data, optim, run, folder, Quiet(folder), Accelerator(cpu=True))


def train(folder: Path, every: int = 1) -> None:
    """From wherever the folder's run stands to its end; result.pt is written last."""
    trainer = trainer_of(folder, every=every)
    trainer.log.resume_from(trainer.restore())
    trainer.fit()
    torch.save(trainer.task.state_dict(), folder / "result.pt")


def forked(work: Callable[[], None], after: float | None, number: int = signal.SIGKILL) -> int:
    """Run `work` in a child that gets a signal after so many seconds; returns its exit status, -n for signal n."""
    requests = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, requests)  # until the child has its handlers
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            for request in requests:  # as `utils.cli.run` does
                signal.signal(request, signal.default_int_handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, requests)
            work()
            status = 0
        except KeyboardInterrupt:
            status = 130
        finally:
            os._exit(status)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, requests)
    if after is not None:
        time.sleep(after)
        os.kill(child, number)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def whole_run(folder: Path) -> tuple[dict, str, float]:
    """Result, metrics and seconds of an unbroken run."""
    began = time.monotonic()
    assert forked(lambda: train(folder), None) == 0
    return *outcome(folder), time.monotonic() - began


def outcome(folder: Path) -> tuple[dict, str]:
    return torch.load(folder / "result.pt", weights_only=True), (folder / "metrics.jsonl").read_text()


def interrupted_run(folder: Path, chance: random.Random, seconds: float, number: int, every: int = 1) -> list[int]:
    """Interrupt a run at up to three random instants, then let it end; the exit statuses of the interrupted lives."""
    statuses = []
    for _ in range(3):
        status = forked(lambda: train(folder, every), chance.random() * seconds, number)
        if status == 0:
            break
        statuses.append(status)
    assert forked(lambda: train(folder, every), None) == 0
    return statuses


def same(a: tuple[dict, str], b: tuple[dict, str]) -> bool:
    return a[1] == b[1] and a[0].keys() == b[0].keys() and all(torch.equal(x, b[0][key]) for key, x in a[0].items())
