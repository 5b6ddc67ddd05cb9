"""The training loop: steps, turns of optimisers, checkpoints, resume, logs, stop on non-finite numbers.

Order, augmentation and noise are pure functions of (seed, epoch, sample index), so a resumed run needs only the step
to go on bit for bit. A step is `batch` images, computed in micro-batches of fixed size that are dealt out to the
processes: the loss is the mean over micro-batches, whatever the number of processes.

Learning rates, and everything else that changes in the course of a training, are pure functions of the step and the
number of steps. A run that is resumed with another number of epochs therefore goes on as a run of that length would
from this step on: the schedule does not start again, it jumps to the place of the new one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch.utils.data import DataLoader

from configs.schema import OptimConfig, RunConfig
from data.sampler import EpochBatchSampler
from training.ema import ModelEMA
from training.faults import batchnorm_statistics, first_not_finite, largest, memory_advice
from training.loss_terms import LossSums, NonFiniteError, Terms, files_shown, mean_terms, shown
from training.optimizers import others_frozen, prepare_optimizers
from training.prefetch import prefetch
from training.processes import micro_batches
from training.result import in_words
from training.stop_request import StopRequest, ignore_interrupts
from training.task import Progress, Task
from training.train_state import TrainState
from training.training_data import TrainingData
from utils.checkpoint import CheckpointError
from utils.device import is_out_of_memory
from utils.errors import UserError
from utils.logger import MetricsLog
from utils.progress import ProgressBar

OTHER_TASK = "it was written by another kind of training: delete the run folder, or choose another --run.out"
MOST_SKIPPED = 50  # a scaler that starts too high needs about 20 steps to come down


class Trainer:
    """One training run of one task.

    Args:
        stage: name in messages and the progress bar.
        task: networks, and how they learn.
        data: training data.
        optim: epochs, batch, average; and the settings of optimisers that have none of their own.
        run: seed, precision, checkpoint interval.
        folder: receives `checkpoints/`.
        log: metrics log.
        accelerator: device, precision and processes.
        validate: called at the end of an epoch with (epoch, step) and the averaged weights in place; its metrics are
            logged.

    Raises:
        ValueError: several optimisers in several processes, whose accelerator does not look for unused parameters.
    """

    def __init__(
        self,
        stage: str,
        task: Task,
        data: TrainingData,
        optim: OptimConfig,
        run: RunConfig,
        folder: Path,
        log: MetricsLog,
        accelerator: Accelerator,
        validate: Callable[[int, int], Terms] | None = None,
    ):
        self.stage, self.optim, self.run, self.log, self.accelerator = stage, optim, run, log, accelerator
        self.task, self.data, self.validate = task, data, validate
        specs = task.optimizers(optim)
        unused = accelerator.ddp_handler is not None and accelerator.ddp_handler.find_unused_parameters
        if len(specs) > 1 and accelerator.num_processes > 1 and not unused:
            raise ValueError(f"{stage}: optimisers take turns: make_accelerator(run, some_get_no_gradient=True)")
        self.wrapped, self.optimizers = prepare_optimizers(task, specs, accelerator)
        self.ema = ModelEMA(task, optim.ema, lambda key: task.keeps(key) and task.averages(key)) if optim.ema else None
        self.state, self.statistics = TrainState(folder / "checkpoints"), batchnorm_statistics(task)
        self.window, self.epoch_window = LossSums(), LossSums()
        self.numbers: dict[str, Any] | None = None
        self.step, self.began = 0, (0.0, 0)
        self.unvalidated = False  # an epoch's steps are made, its validation is not
        self.micro_batch, self.accumulate = micro_batches(optim, accelerator.num_processes)
        self.steps_per_epoch = self.sampler(0, 0).steps
        self.total_steps = self.steps_per_epoch * optim.epochs

    @property
    def epochs_made(self) -> int:
        """Epochs that the weights have behind them, one that was begun included."""
        return -(-self.step // self.steps_per_epoch)

    # ------------------------------------------------------------------ state

    def restore(self) -> int:
        """Take up the newest good checkpoint, if there is one; returns the step that training continues from.

        Raises:
            CheckpointError: no checkpoint is good, or it is one of another task.
        """
        newest = self.state.load_newest()
        if newest is None:
            return 0
        payload, path = newest
        self._restore_weights(payload["model"], path)
        # Older checkpoints hold one optimiser without a name, and one count for all losses.
        states = (
            payload["optimizers"] if "optimizers" in payload else {next(iter(self.optimizers)): payload["optimizer"]}
        )
        if states.keys() != self.optimizers.keys():
            raise CheckpointError(
                f"{path}: has optimisers {sorted(states)}, not {sorted(self.optimizers)}; {OTHER_TASK}"
            )
        for name, state in states.items():
            self.optimizers[name].optimizer.load_state_dict(state)
        if self.ema is not None:
            self.ema.load_state_dict(payload["ema"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(payload["scaler"])
        sums = payload["window_sums"]
        counts = payload["window_counts"] if "window_counts" in payload else payload["window_steps"]
        self.window = LossSums(dict.fromkeys(sums, counts) if isinstance(counts, int) else counts, sums)
        self.numbers = payload.get("numbers")
        self.step, self.unvalidated = payload["step"], payload.get("unvalidated", False)
        if self.step > self.total_steps:
            self.accelerator.print(
                f"{self.stage}: {self.step} steps are made, more than {self.optim.epochs} epochs have"
            )
        return self.step

    def _restore_weights(self, kept: dict[str, torch.Tensor], path: Path) -> None:
        wanted = {name for name in self.task.state_dict() if self.task.keeps(name)}
        if wanted != kept.keys():
            differ = sorted(wanted ^ kept.keys())
            raise CheckpointError(f"{path}: {len(differ)} tensors are missing or unknown ({differ[0]}); {OTHER_TASK}")
        self.task.load_state_dict(kept, strict=False)

    def save(self) -> None:
        """Write the checkpoint. Raises NonFiniteError where something in it is not finite; see `TrainState.save`."""
        self.check_finite()
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        state = {
            "step": self.step,
            "unvalidated": self.unvalidated,
            "model": self.kept_weights(),
            "optimizers": {name: turn.optimizer.state_dict() for name, turn in self.optimizers.items()},
            "ema": None if self.ema is None else self.ema.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "window_counts": dict(self.window.counts),
            "window_sums": dict(self.window.sums),
            "numbers": self.numbers,
        }
        self.state.save(state)

    def kept_weights(self) -> dict[str, torch.Tensor]:
        return {name: value for name, value in self.task.state_dict().items() if self.task.keeps(name)}

    def check_finite(self) -> None:
        """Raises NonFiniteError where weights, their average or an optimiser are no numbers, in every process alike."""
        state = {"weights": self.kept_weights(), "average": self.ema.shadow if self.ema else {}}
        state |= {f"optimiser {name}": turn.optimizer.state_dict()["state"] for name, turn in self.optimizers.items()}
        found = first_not_finite(state)
        if found:
            raise NonFiniteError(
                f"{self.stage}: {found} is not finite after step {self.step}; it was not saved, the last checkpoint is "
                "good. Lower the learning rate in a new run"
            )

    # ------------------------------------------------------------------ loop

    def fit(self) -> dict[str, Any]:
        """Train to the last step; at the end the averaged weights (where there are any) are in the task.

        Returns:
            The task's numbers for a later phase.
        """
        if self.step < self.total_steps:
            self.numbers = None  # those of a shorter training
        self.began = time.monotonic(), self.step
        while self.step < self.total_steps or self.unvalidated:
            epoch, start = divmod(self.step - self.unvalidated, self.steps_per_epoch)
            self.task.start_epoch(epoch)
            if not self.unvalidated:
                self.task.train()
                self.run_epoch(epoch, start)
            self.finish_epoch(epoch)
        self.find_numbers()
        if self.ema is not None:
            self.ema.put_into(self.task)
        self.task.eval()
        return self.numbers or {}

    def finish_epoch(self, epoch: int) -> None:
        """Validate and save; where that is interrupted, the steps are saved, and a resumed run validates first."""
        self.unvalidated = True
        try:
            self.log_window()
            self.check_finite()
            metrics = self.run_validation(epoch)
            self.unvalidated = False
            self.log.scalars(metrics, self.step)
        except KeyboardInterrupt:
            self.save()
            raise
        self.save()

    def run_epoch(self, epoch: int, start: int) -> None:
        name = f"{self.stage} {epoch + 1}/{self.optim.epochs}"
        bar = ProgressBar(self.steps_per_epoch, name, start, self.accelerator.is_main_process)
        batches, began, waited = self.on_device(self.loader(epoch, start)), time.perf_counter(), 0.0
        # Several processes would stop at different steps.
        with StopRequest(self.accelerator.num_processes == 1) as stop:
            for _ in range(start, self.steps_per_epoch):
                losses, wait = self.optimise(batches, epoch)
                waited += wait
                self.window.add(losses)
                self.epoch_window.add(losses)
                self.step += 1
                if self.step % self.run.log_every == 0:
                    self.log_window()
                due, ends = self.step % self.run.checkpoint_every == 0, self.step % self.steps_per_epoch == 0
                if stop.asked or (due and not ends):
                    self.unvalidated = ends
                    self.save()
                if stop.asked:
                    raise KeyboardInterrupt
                bar.update(f"{shown(self.on_bar(losses))}, {self.time_left()} to the last step")
        bar.close()
        took = time.perf_counter() - began
        self.accelerator.print(
            f"{self.stage} epoch {epoch + 1}/{self.optim.epochs}: {shown(self.epoch_window.flush())}, {took:.1f} s,"
            f" waiting for data {waited / max(1e-9, took):.1%}, {self.time_left()} left"
        )

    def on_bar(self, losses: Terms) -> Terms:
        """The terms that stand behind the progress bar: sums, and what the task names."""
        wanted = ("total", *self.task.on_bar)
        return {key: value for key, value in losses.items() if key.rpartition("/")[2] in wanted}

    def time_left(self) -> str:
        """Until the last step, at the mean speed so far, validation included; h:mm:ss."""
        began, first = self.began
        seconds = (time.monotonic() - began) / (self.step - first) * (self.total_steps - self.step)
        return str(timedelta(seconds=round(seconds)))

    def sampler(self, epoch: int, start_step: int, dealt: bool = True) -> EpochBatchSampler:
        """Keys of an epoch's micro-batches; `dealt`: those of this process only."""
        return EpochBatchSampler(
            len(self.data.dataset),
            self.optim.batch,
            self.micro_batch,
            self.run.seed,
            epoch,
            rank=self.accelerator.process_index if dealt else 0,
            world=self.accelerator.num_processes if dealt else 1,
            start_step=start_step,
            lead=self.data.lead,
        )

    def loader(self, epoch: int, start: int, dealt: bool = True) -> DataLoader:
        """Micro-batches of an epoch from step `start` on, on the CPU."""
        return DataLoader(
            self.data.dataset,
            batch_sampler=self.sampler(epoch, start, dealt),
            collate_fn=self.data.collate,
            num_workers=self.data.workers,
            pin_memory=self.accelerator.device.type == "cuda",
            worker_init_fn=ignore_interrupts,
        )

    def on_device(self, loader: Iterable) -> Iterator:
        """Batches on the device, as the task takes them."""
        device = self.accelerator.device
        # Without loading processes nobody could load the next batch meanwhile.
        ready = prefetch if self.data.workers else (lambda source, prepare: map(prepare, source))
        batches = ready(loader, lambda batch: batch.to(device))
        return batches if self.data.mix is None else self.data.mix(batches)

    def log_window(self) -> None:
        """Log the mean losses since the last line, and the learning rates."""
        if self.window.counts:
            losses = {f"train/{name}": value for name, value in self.window.flush().items()}
            rates = {f"lr/{name}": rate for turn in self.optimizers.values() for name, rate in turn.rates().items()}
            self.log.scalars(losses | rates, self.step)

    # ------------------------------------------------------------------ step

    def optimise(self, batches: Iterator, epoch: int) -> tuple[Terms, float]:
        """One step: every turn that it has, on the same `accumulate` micro-batches.

        Returns:
            Loss terms (mean over all processes; `turn/name` where a task has several optimisers), and seconds spent
            waiting for data.
        """
        turns, waits, losses = self.task.turns(self.step), [], {}
        step: Iterable = timed(islice(batches, self.accumulate), waits)
        if len(turns) > 1:
            step = list(step)
        for name in turns:
            try:
                terms = self.make_turn(name, step, epoch)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                advice = memory_advice(self.optim, self.run, self.micro_batch, self.accelerator.device)
                raise UserError(f"{self.stage}: {advice}") from error
            losses |= terms if len(self.optimizers) == 1 else {f"{name}/{key}": value for key, value in terms.items()}
        if self.ema is not None:
            self.ema.update(self.task)
        return losses, sum(waits)

    def make_turn(self, name: str, batches: Iterable, epoch: int) -> Terms:
        """One update by one optimiser; returns the loss terms.

        Raises:
            NonFiniteError: a loss term, the norm of the gradients or a statistic of BatchNorm is not finite, in any
                process; before the update.
        """
        optimizer, progress, rows, files = self.optimizers[name], Progress(self.step, self.total_steps, name), [], []
        optimizer.set_rates(optimizer.factor(self.step, self.steps_per_epoch, self.total_steps))
        with others_frozen(self.optimizers, name):
            for micro, batch in enumerate(batches):
                files.append(batch.files)
                last = micro == self.accumulate - 1
                with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                    losses = self.wrapped(batch, progress)
                    self.accelerator.backward(losses["total"] / self.accumulate)
                rows.append({key: value.detach().float().reshape(()) for key, value in losses.items()})
        extremes = {"gradient norm": optimizer.clip()}
        if self.statistics:
            extremes["BatchNorm statistics"] = largest(self.statistics)
        mean, bad, images = mean_terms(rows, extremes, files, self.accelerator)
        if bad:
            raise NonFiniteError(self.message(bad, name, epoch, images))
        optimizer.step()
        if optimizer.skipped > MOST_SKIPPED:
            what = f"{optimizer.skipped} steps in a row skipped by the fp16 gradient scaler"
            raise NonFiniteError(self.message(what, name, epoch, [file for images in files for file in images]))
        return mean

    def message(self, what: str, turn: str, epoch: int, files: list[str]) -> str:
        where = f"epoch {epoch + 1}" + (f", turn of {turn}" if len(self.optimizers) > 1 else "")
        return (
            f"{self.stage}: {what} at step {self.step + 1} ({where}); nothing of this step was saved. Images: "
            f"{files_shown(files)}. Look at these files and their labels, or lower the learning rate in a new run."
        )

    # ------------------------------------------------------------------ between and after the steps

    def run_validation(self, epoch: int) -> Terms:
        if self.validate is None:
            return {}
        metrics: Terms = {}
        if self.accelerator.is_main_process:
            with self.ema.applied(self.task) if self.ema is not None else nullcontext():
                self.task.eval()
                metrics = self.validate(epoch, self.step)
        self.accelerator.wait_for_everyone()
        if metrics:
            self.accelerator.print(f"{self.stage} validation: {in_words(metrics)}")
        return metrics

    def find_numbers(self) -> None:
        """The task's numbers for a later phase, into `numbers` and the checkpoint, unless they are there already."""
        if self.numbers is not None:
            return
        found = [{}]
        if self.accelerator.is_main_process:
            batches = self.further_batches()
            with self.ema.applied(self.task) if self.ema is not None else nullcontext(), torch.no_grad():
                self.task.eval()
                found = [self.task.numbers(batches)]
            batches.close()
        self.numbers = broadcast_object_list(found)[0]
        if self.numbers:
            self.save()

    def further_batches(self) -> Iterator:
        """Those of one more epoch, all of them in this process."""
        yield from self.on_device(self.loader(self.optim.epochs, 0, dealt=False))


def timed(source: Iterator, waits: list[float]) -> Iterator:
    """The same, with the seconds that each item was waited for noted in `waits`."""
    while True:
        asked = time.perf_counter()
        try:
            item = next(source)
        except StopIteration:
            return
        waits.append(time.perf_counter() - asked)
        yield item
