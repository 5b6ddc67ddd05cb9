"""A front end for a deployed detector, trained on HR pictures without labels: the detector shall see in SR images what
it sees in HR images. The recipe is that of configs/stage3_warm_up.yaml at a learning rate that every detector bears."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

from configs.adapt_schema import AdaptConfig
from configs.evaluate_schema import EvaluateConfig
from configs.schema import AugmentConfig, DetectionDataConfig, OptimConfig
from configs.stage3_schema import GumbelConfig, LossConfig, MaskerConfig, Stage3Config
from data.data_spec import Record, load_data_spec, scan_splits
from data.detection import DetectionDataset, canvas_size
from data.images import list_images
from data.sampler import EpochBatchSampler
from data.unlabelled import hold_out, unlabelled_records
from evaluation.agreement import baseline_rows
from evaluation.rows import Row
from loading.deployed_detector import load_deployed_detector
from loading.load_sr import build_or_load_sr
from loading.systems import check_classes, configured_front, load_system
from models.detector_yolo import YoloDetector
from models.system import ConditionalSRDetector
from training.joint_training import JointTraining, joint_training
from training.processes import make_accelerator
from training.stage3_validation import Stage3Validation
from training.trainer import Trainer
from utils.checkpoint import save_network
from utils.errors import UserError
from utils.logger import MetricsLog

OUTPUT = "conditional_sr_yolo_jointly_tuned.pth"
CONF = 0.001  # lowest score of a detection that counts in mAP


@dataclass(frozen=True)
class Adaptation:
    """A deployed detector, and pictures to adapt a front end on.

    Args:
        config: of the run.
        detector: as deployed.
        train: pictures of the training.
        held: pictures that are measured.
        labelled: the labels of these are known.
    """

    config: AdaptConfig
    detector: YoloDetector
    train: list[Record]
    held: DetectionDataset
    labelled: bool

    def baselines(self) -> list[Row]:
        """Rows that need no training, their weights loaded.

        Raises:
            UserError, CheckpointError: see `build_or_load_sr`.
        """
        config, networks = self.config, {}
        for role in ("sr_fast", "sr_quality"):
            network = getattr(config, role)
            if network.weights is not None:  # as drawn it would tell nothing
                networks[role] = build_or_load_sr(network, config.scale).eval()
        return baseline_rows(self.detector, networks, config.scale)

    @property
    def batch(self) -> int:
        """Pictures per step."""
        return min(self.config.batch, len(self.train))

    @property
    def epochs(self) -> int:
        """Passes over the pictures that make so many steps, at least."""
        steps = EpochBatchSampler(len(self.train), self.batch, self.batch, self.config.run.seed, 0).steps
        return math.ceil(self.config.steps / steps)


def read_adaptation(config: AdaptConfig, say: Callable[[str], None] = print) -> Adaptation:
    """Detector and pictures of a run, checked.

    Raises:
        UserError, CheckpointError: naming the file or key and the remedy.
    """
    spec = load_data_spec(config.data) if config.data else None
    names = spec.names if spec else None
    detector = load_deployed_detector(config.detector, config.detector_model, names)
    canvas, data = canvas_size(config.imgsz, config.scale, detector.stride), detection_data(config)
    if spec is not None:
        check_classes(config.detector, detector.names, spec.names)
    files = list_images(config.images) if config.images else spec.images("train")
    if len(files) < 2 and spec is None:
        raise UserError(
            f"images: {config.images} holds {len(files)} pictures; give more: some are trained on, some held out"
        )
    train = unlabelled_records(files, config.on_bad_image, config.max_pixels, say)
    if spec is not None:
        held = scan_splits(spec, data, ["val"], say)["val"]
        seen = {record.image.resolve() for record in held}
        train = [record for record in train if record.image.resolve() not in seen]
        if not train:
            raise UserError(f"{config.data}: all pictures are held out, none is left to train on; give --images")
    else:
        train, held = hold_out(train, config.holdout, config.run.seed)
    shown = DetectionDataset(held, detector.names, canvas, config.scale, max_pixels=config.max_pixels)
    say(f"{len(train)} pictures to train on, {len(held)} held out")
    return Adaptation(config, detector, train, shown, spec is not None)


def detection_data(config: AdaptConfig) -> DetectionDataConfig:
    """The pictures as the stages describe them."""
    return DetectionDataConfig(
        config.data or "", config.imgsz, config.scale, on_bad_image=config.on_bad_image, max_pixels=config.max_pixels
    )


def measuring(config: AdaptConfig, timing_runs: int) -> EvaluateConfig:
    """How rows are measured."""
    return EvaluateConfig(run=config.run, data=detection_data(config), conf=CONF, timing_runs=timing_runs, overlays=0)


def stage3_config(config: AdaptConfig, epochs: int, batch: int) -> Stage3Config:
    """The training as a stage 3 of so many epochs and pictures a step: no labels, the detector frozen, all of the front
    end learns."""
    return Stage3Config(
        run=config.run,
        data=detection_data(config),
        mode="frozen_detector",
        masker=MaskerConfig(patch="auto", budget_dropout=[0.05, 1.0]),
        sr_fast=config.sr_fast,
        sr_quality=config.sr_quality,
        optim=OptimConfig(
            epochs=epochs,
            batch=batch,
            lr=config.lr,
            lr_sr=config.lr,
            lr_masker=config.lr_masker,
            warmup=min(100, max(1, config.steps // 10)),
            weight_decay=5e-4,
            ema=0.99,
        ),
        losses=LossConfig(det=0.0, distill=1.0, distill_outputs=0.5, objects=1.0, target=config.target),
        gumbel=GumbelConfig(2.0, 0.1),
        augment=AugmentConfig(scale=0.25, translate=0.1, flip_lr=config.flip_lr, hsv_v=0.2),
        val_images=0,
    )


def adapt_accelerator(config: AdaptConfig) -> Accelerator:
    """Device and precision of the run. Raises UserError in several processes."""
    accelerator = make_accelerator(config.run, some_get_no_gradient=True)
    if accelerator.num_processes > 1:
        raise UserError("adapt.py runs in one process; start it with python, not with accelerate launch")
    return accelerator


def trained_system(adaptation: Adaptation, folder: Path, accelerator: Accelerator) -> ConditionalSRDetector:
    """The system with a trained front end, from the run folder where it is finished already.

    Raises:
        UserError: see `joint_training` and `Trainer`.
    """
    if (folder / OUTPUT).exists():
        return load_system(folder / OUTPUT)
    config = stage3_config(adaptation.config, adaptation.epochs, adaptation.batch)
    joint, log = train_front_end("adapt", config, adaptation.detector, adaptation.train, folder, accelerator)
    save_trained(folder / OUTPUT, config, joint, log, accelerator.device)
    return load_system(folder / OUTPUT)


def train_front_end(
    name: str,
    config: Stage3Config,
    detector: YoloDetector,
    pictures: list[Record],
    folder: Path,
    accelerator: Accelerator,
) -> tuple[JointTraining, MetricsLog]:
    """Train the front end of a stage 3 through a detector that stays as it is, from where it was interrupted.

    Args:
        name: in messages.
        config: of the training.
        detector: as deployed.
        pictures: to train on; held-out ones only judge.
        folder: receives checkpoints and the log.
        accelerator: device and precision.

    Returns:
        What was trained, its averaged weights in place, and its log, which is closed.

    Raises:
        UserError: see `joint_training` and `Trainer`.
    """
    torch.manual_seed(config.run.seed)
    system = ConditionalSRDetector(configured_front(config), deepcopy(detector))
    joint = joint_training(config, system, {"train": pictures, "val": pictures}, accelerator.device)
    log = MetricsLog(folder)
    trainer = Trainer(
        name, joint.task, joint.data(config.run.workers), config.optim, config.run, folder, log, accelerator
    )
    log.resume_from(trainer.restore())
    trainer.fit()
    log.close()
    return joint, log


def save_trained(path: Path, config: Stage3Config, joint: JointTraining, log: MetricsLog, device: torch.device) -> None:
    """Set the masker's offset to the wanted share on the training pictures as they are, and write the system."""
    Stage3Validation(joint.task.system, joint.val, config, log, device).calibrate(config.losses.target)
    save_system(path, joint.task.system, {"stage": 3, "mode": config.mode, "epochs": config.optim.epochs})


def save_system(path: Path, system: ConditionalSRDetector, meta: dict) -> None:
    """Write a system that inference.py and the API take."""
    save_network(path, "system", system.spec["name"], system.spec["args"], system.state_dict(), meta)
