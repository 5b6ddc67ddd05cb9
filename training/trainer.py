"""The training loop of stages 2 and 3: steps, checkpoints, resume, logs, stop on non-finite numbers.

Order, augmentation and noise are pure functions of (seed, epoch, sample index), so a resumed run needs only the step
to go on bit for bit. A step is `batch` images, computed in micro-batches of fixed size that are dealt out to the
processes: the loss is the mean over micro-batches, whatever the number of processes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from configs.schema import OptimConfig, RunConfig
from data.sampler import EpochBatchSampler
from training.ema import ModelEMA
from training.host_memory import keep_freed_memory
from training.prefetch import prefetch
from training.tasks.objectives import Progress
from utils.checkpoint import TrainState
from utils.errors import UserError
from utils.logger import MetricsLog
from utils.optimizer_utils import learning_rate_factor, stepped_factor

Metrics = dict[str, float]
MOST_SKIPPED = 50  # a scaler that starts too high needs about 20 steps to come down


class NonFiniteError(UserError):
    """A loss or gradient became NaN or infinite; raised before the optimiser step, so the weights are still good."""


@dataclass(frozen=True)
class TrainingData:
    """What to train on.

    Args:
        dataset: keyed by (epoch, index).
        collate: samples -> batch.
        workers: data-loading processes.
        mix: turns the stream of batches on the device into those to train on; needs `lead` batches more at its start.
    """

    dataset: Dataset
    collate: Callable
    workers: int = 0
    mix: Callable[[Iterator], Iterator] | None = None

    @property
    def lead(self) -> int:
        return 0 if self.mix is None else self.mix.lead


@dataclass
class Window:
    """Sums since the last log line; part of the checkpoint, so that a resumed log continues exactly.

    Each loss has its own count, because not every step has every loss.
    """

    counts: dict[str, int] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, losses: Metrics) -> None:
        for name, value in losses.items():
            self.counts[name] = self.counts.get(name, 0) + 1
            self.sums[name] = self.sums.get(name, 0.0) + value

    def flush(self) -> Metrics:
        means = {name: value / self.counts[name] for name, value in self.sums.items()}
        self.counts, self.sums = {}, {}
        return means


class Trainer:
    """One training run of one objective.

    Args:
        stage: name in messages and the progress bar.
        objective: module whose forward maps (batch, Progress) to losses; "total" is minimised.
        groups: optimiser groups with "name", "params", "lr", "weight_decay".
        data: training data.
        optim: optimiser settings.
        run: seed, precision, checkpoint interval.
        folder: receives `checkpoints/`.
        log: metrics log.
        accelerator: device, precision and processes.
        validate: called at the end of an epoch with (epoch, step) and the averaged weights in place; its metrics are
            logged.
        on_epoch: called at the start of an epoch, for state that is a function of the epoch.
    """

    def __init__(
        self,
        stage: str,
        objective: nn.Module,
        groups: list[dict],
        data: TrainingData,
        optim: OptimConfig,
        run: RunConfig,
        folder: Path,
        log: MetricsLog,
        accelerator: Accelerator,
        validate: Callable[[int, int], Metrics] | None = None,
        on_epoch: Callable[[int], None] | None = None,
    ):
        self.stage, self.optim, self.run, self.log, self.accelerator = stage, optim, run, log, accelerator
        self.data, self.validate, self.on_epoch = data, validate, on_epoch
        self.objective = objective
        self.base_lrs = [group["lr"] for group in groups]
        optimizer = torch.optim.AdamW(groups, lr=optim.lr)
        self.parameters = [p for group in groups for p in group["params"]]
        self.wrapped, self.optimizer = accelerator.prepare(objective, optimizer)
        self.ema = ModelEMA(objective, optim.ema) if optim.ema > 0 else None
        self.state = TrainState(folder / "checkpoints")
        self.window = Window()
        self.step, self.skipped = 0, 0
        self.micro_batch, self.accumulate = micro_batches(optim, accelerator.num_processes)
        self.steps_per_epoch = self.sampler(0, 0).steps
        self.total_steps = self.steps_per_epoch * optim.epochs

    def sampler(self, epoch: int, start_step: int) -> EpochBatchSampler:
        return EpochBatchSampler(
            len(self.data.dataset),
            self.optim.batch,
            self.micro_batch,
            self.run.seed,
            epoch,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
            start_step=start_step,
            lead=self.data.lead,
        )

    # ------------------------------------------------------------------ state

    def restore(self) -> int:
        """Take up the newest good checkpoint, if there is one; returns the step that training continues from."""
        newest = self.state.load_newest()
        if newest is not None:
            payload, _ = newest
            self.objective.load_state_dict(payload["model"])
            self.optimizer.load_state_dict(payload["optimizer"])
            if self.ema is not None:
                self.ema.load_state_dict(payload["ema"])
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(payload["scaler"])
            sums = payload["window_sums"]
            # Older checkpoints hold one count for all losses.
            counts = payload["window_counts"] if "window_counts" in payload else payload["window_steps"]
            self.window = Window(dict.fromkeys(sums, counts) if isinstance(counts, int) else counts, sums)
            self.step = payload["step"]
        return self.step

    def save(self) -> None:
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        self.state.save(
            {
                "step": self.step,
                "model": self.objective.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "ema": None if self.ema is None else self.ema.state_dict(),
                "scaler": None if scaler is None else scaler.state_dict(),
                "window_counts": dict(self.window.counts),
                "window_sums": dict(self.window.sums),
            }
        )

    # ------------------------------------------------------------------ loop

    def fit(self) -> None:
        """Train to the last step; at the end the averaged weights (where there are any) are in the objective."""
        while self.step < self.total_steps:
            epoch, start = divmod(self.step, self.steps_per_epoch)
            if self.on_epoch is not None:
                self.on_epoch(epoch)
            self.objective.train()
            self.run_epoch(epoch, start)
            self.log_window()
            metrics = self.run_validation(epoch)
            self.log.scalars(metrics, self.step)
            self.save()
        if self.ema is not None:
            self.objective.load_state_dict(self.ema.shadow)
        self.objective.eval()

    def run_epoch(self, epoch: int, start: int) -> None:
        bar = tqdm(
            total=self.steps_per_epoch,
            initial=start,
            desc=f"{self.stage} {epoch + 1}/{self.optim.epochs}",
            disable=None if self.accelerator.is_main_process else True,
        )
        batches, began, waited = self.on_device(self.loader(epoch, start)), time.perf_counter(), 0.0
        for _ in range(start, self.steps_per_epoch):
            losses, wait = self.optimise(batches, epoch)
            waited += wait
            self.window.add(losses)
            self.step += 1
            if self.step % self.run.log_every == 0:
                self.log_window()
            if self.step % self.run.checkpoint_every == 0 and self.step % self.steps_per_epoch:
                self.save()
            bar.set_postfix_str(f"loss {losses['total']:.4g}", refresh=False)
            bar.update()
        bar.close()
        share = waited / max(1e-9, time.perf_counter() - began)
        self.accelerator.print(
            f"{self.stage} epoch {epoch + 1}/{self.optim.epochs}: loss {losses['total']:.4g},"
            f" {time.perf_counter() - began:.1f} s, waiting for data {share:.1%}"
        )

    def loader(self, epoch: int, start: int) -> DataLoader:
        """Micro-batches of an epoch from step `start` on, on the CPU."""
        return DataLoader(
            self.data.dataset,
            batch_sampler=self.sampler(epoch, start),
            collate_fn=self.data.collate,
            num_workers=self.data.workers,
            pin_memory=self.accelerator.device.type == "cuda",
        )

    def on_device(self, loader: Iterable) -> Iterator:
        """Batches on the device, as the objective takes them."""
        device = self.accelerator.device
        # Without loading processes nobody could load the next batch meanwhile.
        ready = prefetch if self.data.workers else (lambda source, prepare: map(prepare, source))
        batches = ready(loader, lambda batch: batch.to(device))
        return batches if self.data.mix is None else self.data.mix(batches)

    def learning_rate_factor(self) -> float:
        """Of the step about to be made."""
        optim = self.optim
        if optim.schedule == "step":
            return stepped_factor(self.step, self.steps_per_epoch, optim.warmup, optim.milestones, optim.gamma)
        return learning_rate_factor(self.step, self.total_steps, optim.warmup, optim.lr_final)

    def log_window(self) -> None:
        """Log the mean losses since the last line, and the learning rates."""
        if self.window.counts:
            groups = [g for g in self.optimizer.param_groups if not g["name"].endswith("/vectors")]
            losses = {f"train/{name}": value for name, value in self.window.flush().items()}
            self.log.scalars(losses | {f"lr/{g['name']}": g["lr"] for g in groups}, self.step)

    def optimise(self, batches: Iterator, epoch: int) -> tuple[Metrics, float]:
        """One optimiser step over `accumulate` micro-batches; returns the losses (mean over all processes) and seconds
        spent waiting for data."""
        factor = self.learning_rate_factor()
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = base * factor
        progress, rows, waited, files = Progress(self.step, self.total_steps), [], 0.0, []
        for micro in range(self.accumulate):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            files.append(batch.files)
            last = micro == self.accumulate - 1
            with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                losses = self.wrapped(batch, progress)
                self.accelerator.backward(losses["total"] / self.accumulate)
            rows.append({name: value.detach().float().reshape(()) for name, value in losses.items()})
        mean = self.check_finite(rows, self.clip(), epoch, files)
        self.optimizer.step()
        self.skipped = self.skipped + 1 if self.accelerator.optimizer_step_was_skipped else 0
        if self.skipped > MOST_SKIPPED:
            what = f"{self.skipped} steps in a row skipped by the fp16 gradient scaler"
            raise NonFiniteError(self.message(what, epoch, files))
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update(self.objective)
        return mean, waited

    def clip(self) -> torch.Tensor:
        """Clip the gradients; returns their norm before."""
        limit = self.optim.clip_norm if self.optim.clip_norm > 0 else float("inf")
        norm = self.accelerator.clip_grad_norm_(self.parameters, limit)
        # With fp16 the gradient scaler expects overflows and skips those steps itself.
        expected = self.accelerator.scaler is not None or norm is None
        return torch.zeros((), device=self.accelerator.device) if expected else norm.detach().float()

    def check_finite(self, rows: list[dict], norm: torch.Tensor, epoch: int, files: list[list[str]]) -> Metrics:
        """Mean losses over micro-batches and processes.

        Everything crosses from the device at once: each crossing would let a GPU run dry.

        Raises:
            NonFiniteError: a loss or the gradient norm is not finite, in any process: all have to stop together, or
                the others would wait for this one's gradients for ever.
        """
        names = sorted(rows[0])
        table = torch.stack([torch.stack([row[name] for name in names]) for row in rows])  # (micro-batches, losses)
        bad = (~torch.isfinite(table)).any() | ~torch.isfinite(norm)
        sums = self.accelerator.reduce(torch.cat([table.mean(0), bad.float()[None]]), "mean").tolist()
        if sums.pop() == 0:
            return dict(zip(names, sums, strict=True))
        for row, images in zip(table.tolist(), files, strict=True):
            terms = ", ".join(f"{name}={value}" for name, value in zip(names, row) if not math.isfinite(value))
            if terms:
                raise NonFiniteError(self.message(terms, epoch, [images]))
        here = not math.isfinite(norm.item())
        what = f"gradient norm={norm.item()}" if here else "a loss or gradient of another process"
        raise NonFiniteError(self.message(what, epoch, files))

    def message(self, what: str, epoch: int, batches: list[list[str]]) -> str:
        files = [file for batch in batches for file in batch]
        names = ", ".join(files[:8]) + (f" and {len(files) - 8} more" if len(files) > 8 else "")
        return (
            f"{self.stage}: {what} at step {self.step + 1} (epoch {epoch + 1}); nothing of this step was saved. "
            f"Images: {names}. Look at these files and their labels, or lower the learning rate in a new run."
        )

    def run_validation(self, epoch: int) -> Metrics:
        if self.validate is None:
            return {}
        metrics: Metrics = {}
        if self.accelerator.is_main_process:
            with self.ema.applied(self.objective) if self.ema is not None else nullcontext():
                self.objective.eval()
                metrics = self.validate(epoch, self.step)
        self.accelerator.wait_for_everyone()
        if metrics:
            shown = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items() if value is not None)
            self.accelerator.print(f"{self.stage} validation: {shown}")
        return metrics


def micro_batches(optim: OptimConfig, processes: int) -> tuple[int, int]:
    """(images per forward pass, forward passes per step and process).

    Raises:
        ValueError: batch is no multiple of micro_batch x processes.
    """
    micro = optim.micro_batch or optim.batch // processes
    if micro < 1 or optim.batch % (micro * processes):
        raise UserError(
            f"optim.batch={optim.batch} must be a multiple of optim.micro_batch={micro} x {processes} processes"
        )
    return micro, optim.batch // (micro * processes)


def make_accelerator(run: RunConfig, some_parts_rest: bool = False) -> Accelerator:
    """Device, precision and processes (`accelerate launch` or `torchrun` start several) as one object.

    Args:
        run: device, precision, threads, seed.
        some_parts_rest: there are steps in which some weights get no gradient; the processes then look which ones.

    Raises:
        ValueError: CUDA was asked for and is not there, or fp16 without CUDA.
    """
    if run.device == "cuda" and not torch.cuda.is_available():
        raise UserError("run.device is cuda, but PyTorch sees no CUDA device; use --run.device auto or cpu")
    cpu = run.device == "cpu" or not torch.cuda.is_available()
    if cpu and run.precision == "fp16":
        raise UserError("run.precision fp16 needs CUDA; use bf16 or fp32 on a CPU")
    if run.threads > 0:
        torch.set_num_threads(run.threads)
    if cpu:
        keep_freed_memory()
    torch.manual_seed(run.seed)
    precision = {"fp32": "no"}.get(run.precision, run.precision)
    # The other processes wait while the main one validates.
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=6))
    resting = DistributedDataParallelKwargs(find_unused_parameters=some_parts_rest)
    return Accelerator(cpu=cpu, mixed_precision=precision, kwargs_handlers=[patience, resting])
