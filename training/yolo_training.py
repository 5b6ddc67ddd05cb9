"""Ultralytics' own detection trainer around a `YoloDetector` (stage 1).

What differs from Ultralytics: the loss is computed in fp32, a non-finite loss or gradient stops the run before the
optimiser step, bf16 works on a CPU, checkpoints are replaced in one step, thread and worker counts are the caller's,
and the best epoch is not validated a second time at the end.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from models.detector_output import float32
from models.detector_yolo import YoloDetector, read_ultralytics
from models.ultralytics_offline import offline_ultralytics
from training.faults import batchnorm_statistics, first_not_finite, largest
from utils.checkpoint import CheckpointError
from utils.device import is_out_of_memory, set_threads
from utils.errors import UserError

with offline_ultralytics():
    from ultralytics.models.yolo.detect import DetectionTrainer

EpochCallback = Callable[[int, dict[str, float]], None]
MAP = {"metrics/mAP50-95(B)": "val/map50_95", "metrics/mAP50(B)": "val/map50"}
MAP |= {"metrics/precision(B)": "val/precision", "metrics/recall(B)": "val/recall"}


class NonFiniteLossError(UserError):
    """Loss or gradient of the detector became NaN or infinite; raised before the optimiser step."""


class Float32Criterion:
    """Ultralytics' criterion outside autocast: box decoding needs more digits than 16 bit have."""

    def __init__(self, criterion):
        self.criterion = criterion

    def __call__(self, preds, batch):
        """Loss vector (times batch size) and its named terms, as the wrapped criterion."""
        raw = preds[1] if isinstance(preds, tuple) else preds
        with torch.autocast(batch["img"].device.type, enabled=False):
            return self.criterion(float32(raw), batch)

    def update(self) -> None:
        """End of an epoch, for criteria with a schedule."""
        if hasattr(self.criterion, "update"):
            self.criterion.update()


class HRDetectionTrainer(DetectionTrainer):
    """DetectionTrainer that trains the network of the given detector in place.

    Args:
        detector: receives the training; its weights are the start.
        arguments: Ultralytics training arguments (`data`, `save_dir`, `epochs`, ...); `resume` is the path of last.pt.
        precision: fp32, bf16, or fp16 (CUDA only).
        threads: CPU threads of PyTorch; Ultralytics would leave one processor idle.
        workers: data-loading processes; Ultralytics would take none on a CPU.
        on_epoch: called after each epoch's validation with (epochs done, metrics of `epoch_metrics`).
    """

    def __init__(
        self,
        detector: YoloDetector,
        arguments: dict,
        precision: str,
        threads: int,
        workers: int,
        on_epoch: EpochCallback,
    ):
        self.detector = detector
        self.precision = precision
        self.on_epoch = on_epoch
        self.files: list[str] = []
        super().__init__(overrides={"model": "detector.yaml", **arguments})
        set_threads(threads)
        self.args.workers = workers
        # On resuming, Ultralytics would take the number that the run was begun with.
        self.args.epochs = self.epochs = arguments["epochs"]

    def epoch_metrics(self) -> dict[str, float]:
        """train/box, train/cls, train/dfl (or l1), the same of val/, val/map50_95, val/map50, ..., and lr."""
        terms = {**self.label_loss_items(self.tloss), **self.metrics}
        return {MAP.get(k, k.removesuffix("_loss")): float(v) for k, v in terms.items()} | {"lr": self.lr["lr/pg0"]}

    def get_model(self, cfg=None, weights: nn.Module | None = None, verbose: bool = True) -> nn.Module:
        """The detector's network; `weights` come from last.pt when a run is resumed."""
        if weights is not None:
            self.detector.net.load_state_dict(weights.float().state_dict())
        return self.detector.net

    def _setup_train(self):
        super()._setup_train()
        if self.precision != "fp32":  # here, since Ultralytics' own switch downloads a model and knows no bf16 on a CPU
            self.amp = True
            if self.precision == "bf16" and self.device.type == "cuda":
                self.args.amp = "bf16"
            self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.model.criterion = Float32Criterion(getattr(self.model, "criterion", None) or self.model.init_criterion())

    def train(self) -> None:
        """Ultralytics' training.

        Raises:
            NonFiniteLossError: see `optimizer_step` and `save_model`.
            UserError: out of memory.
        """
        try:
            super().train()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            smaller = f"batch {self.args.batch // 2} or " if self.args.batch > 1 else ""
            raise UserError(f"stage 1: out of memory; take {smaller}smaller data.imgsz in a new run") from error

    def preprocess_batch(self, batch: dict) -> dict:
        """Ultralytics' preprocessing; remembers the files for error messages."""
        self.files = list(batch["im_file"])
        return super().preprocess_batch(batch)

    def optimizer_step(self):
        """Clip, check, step, update the moving average.

        Raises:
            NonFiniteLossError: naming epoch, loss term and image files.
        """
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), max_norm=10.0)
        checked = {name: value.detach().float().sum() for name, value in self.loss_items.items()}
        if not self.scaler.is_enabled():  # with it, an infinite gradient only skips the step
            checked["gradient"] = norm
        statistics = batchnorm_statistics(self.model)
        if statistics:
            checked["a statistic of BatchNorm"] = largest(statistics)
        # Everything crosses from a GPU at once.
        finite = torch.isfinite(torch.stack(list(checked.values()))).tolist()
        bad = [name for name, good in zip(checked, finite, strict=True) if not good]
        bad = [name for name in bad if name in self.loss_items] or bad[:1]  # what follows from a loss is no news
        if bad:
            files = ", ".join(os.path.realpath(file) for file in self.files)
            raise NonFiniteLossError(
                f"stage 1, epoch {self.epoch + 1}: {', '.join(bad)} is not finite on {files}; stopped before the "
                f"optimiser step. Lower lr, or look at these images and labels; --run.resume goes on from the last "
                "epoch"
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.ema.update(self.model)

    def save_model(self) -> bool:
        """Log the epoch, then write best.pt and last.pt as Ultralytics does, but each in one step.

        Raises:
            NonFiniteLossError: weights or their average are not finite, for which Ultralytics would put others.
        """
        found = first_not_finite({"weights": self.model.state_dict(), "average": self.ema.ema.state_dict()})
        if found:
            raise NonFiniteLossError(
                f"stage 1, epoch {self.epoch + 1}: {found} is not finite; it was not saved, the checkpoints before it "
                "are good. Lower lr in a new run"
            )
        self.on_epoch(self.epoch + 1, self.epoch_metrics())
        finals = self.best, self.last
        self.best, self.last = parts = [file.with_suffix(".part") for file in finals]
        try:
            saved = super().save_model()
        finally:
            self.best, self.last = finals
        for part, final in zip(parts, finals, strict=True):
            if part.exists():
                os.replace(part, final)
        return saved

    def final_eval(self) -> None:
        """Nothing: the best epoch was validated when it was reached."""


def epochs_done(last: Path) -> int:
    """How many epochs the training that wrote this last.pt has behind it; 0 if there is no such file.

    Raises:
        CheckpointError: the file is damaged.
    """
    if not last.is_file():
        return 0
    try:
        return int(read_whole(last)["epoch"]) + 1
    except Exception as error:
        raise CheckpointError(f"{last}: damaged ({type(error).__name__}); delete it to train from the start") from error


def read_whole(path: Path) -> dict:
    """`read_ultralytics` of a file that is as it was written: PyTorch stores a CRC-32 of every part, but does not look.

    Raises:
        ValueError, BadZipFile: it is not; and what `read_ultralytics` raises.
    """
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged:
        raise ValueError(f"{damaged} does not match its checksum")
    return read_ultralytics(path)


def take_best(detector: YoloDetector, best: Path) -> dict[str, float | int]:
    """Load the moving-average weights of best.pt into the detector (fp32).

    Returns:
        {"best_epoch", "map50_95", "map50"} of the validation that made it the best.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        content = read_whole(best)
    except Exception as error:
        reason = f"damaged ({type(error).__name__}: {error}), and the best epoch with it"
        raise CheckpointError(f"{best}: {reason}; delete the run folder and train again") from error
    detector.net.load_state_dict(content["ema"].float().state_dict())
    metrics = content["train_metrics"]
    scores = {name.removeprefix("val/"): float(metrics[key]) for key, name in MAP.items() if "mAP" in key}
    return {"best_epoch": int(content["epoch"]) + 1, **scores}
