"""Stage 3: joint fine-tuning of Masker, SR networks and detector with differential learning rates.

    python stage3_finetune_joint.py --config configs/stage3_joint_finetune.yaml

Modes: joint; frozen_detector (a front end for a detector that must stay as it is); detector_only (the retrained
baseline, with --sr bicubic, sr_fast or sr_quality). Writes conditional_sr_yolo_jointly_tuned.pth into the run folder.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from configs.schema import Stage3Config
from utils.cli import run
from utils.config import parse_config

OUTPUT = "conditional_sr_yolo_jointly_tuned.pth"


def build_system(config: Stage3Config, names: tuple[str, ...]):
    """Front end and detector with the weights of stages 1 and 2."""
    from models.conditional_sr import ConditionalSR
    from models.masker import Masker
    from models.system import ConditionalSRDetector
    from utils.load import build_or_load_detector, build_or_load_sr

    scale, masker = config.data.scale, config.masker
    if config.sr == "conditional":
        front = ConditionalSR(
            Masker(masker.patch, masker.channels, masker.bias),
            build_or_load_sr(config.sr_fast, scale),
            build_or_load_sr(config.sr_quality, scale),
            halo=masker.halo,
        )
    elif config.sr == "bicubic":
        from models import build_sr

        front = build_sr("bicubic", scale, {})
    else:
        front = build_or_load_sr(getattr(config, config.sr), scale)
    return ConditionalSRDetector(front, build_or_load_detector(config.detector, names))


def main(argv: list[str] | None = None) -> int:
    config = parse_config(Stage3Config, __doc__, argv)

    import torch

    from data.detection import DetectionDataset, canvas_size, collate_detection, load_data_spec, scan_split
    from models.objectives import JointObjective, JointWeights
    from utils.checkpoint import save_network
    from utils.flops_counter import fast_share
    from utils.logger import MetricsLog, open_run
    from utils.loop import Trainer, TrainingData, make_accelerator
    from utils.optimizer_utils import stage3_groups
    from utils.stage3_validation import Stage3Validation

    # 1. Run folder, data
    check(config)
    accelerator = make_accelerator(config.run)
    folder = open_run(config, main=accelerator.is_main_process)
    accelerator.wait_for_everyone()
    if (folder / OUTPUT).exists():
        accelerator.print(f"stage 3: already finished, {folder / OUTPUT}")
        return 0
    data = config.data
    spec = load_data_spec(data.yaml)
    records = {}
    for split in ("train", "val"):
        records[split], report = scan_split(
            spec, split, max_pixels=data.max_pixels, on_bad_image=data.on_bad_image, on_bad_label=data.on_bad_label
        )
        accelerator.print(report.summary())

    # 2. System, and what of it learns
    torch.manual_seed(config.run.seed)
    system = build_system(config, spec.names)
    detector = system.detector
    canvas = canvas_size(data.imgsz, data.scale, detector.stride)
    shared = {"canvas": canvas, "scale": data.scale, "lr": data.lr, "lr_folder": data.lr_folder}
    shared |= {"seed": config.run.seed, "max_pixels": data.max_pixels}
    train = DetectionDataset(records["train"], spec.names, augment=config.augment, epochs=config.optim.epochs, **shared)
    val = DetectionDataset(records["val"], spec.names, augment=None, epochs=0, **shared)
    groups = stage3_groups(system, config.mode, config.optim)
    detector.set_epochs(config.optim.epochs)
    if config.freeze_bn:
        detector.freeze_batchnorm()

    # 3. Training
    losses = config.losses
    objective = JointObjective(
        system,
        JointWeights(**asdict(losses)),
        seed=config.run.seed,
        tau=(config.gumbel.start, config.gumbel.end),
        fast_share=fast_share(system.front, *train.lr_canvas) if config.sr == "conditional" else 0.0,
    )
    log = MetricsLog(folder, main=accelerator.is_main_process)
    validation = Stage3Validation(system, val, config, log, accelerator.device)
    trainer = Trainer(
        "stage 3",
        objective,
        groups,
        TrainingData(train, collate_detection, config.run.workers),
        config.optim,
        config.run,
        folder,
        log,
        accelerator,
        validation,
        on_epoch=detector.set_epoch,
    )
    log.resume_from(trainer.restore())
    trainer.fit()

    # 4. Result
    if accelerator.is_main_process:
        trained = {}
        if config.sr == "conditional" and losses.sparsity == "flops":
            trained = {"val/kept_share_before_calibration": validation.calibrate(losses.target)}
        metrics = validation.measure() | trained
        meta = {"stage": 3, "mode": config.mode, "metrics": metrics, "seed": config.run.seed, "lr_protocol": data.lr}
        meta |= {"target": losses.target, "epochs": config.optim.epochs}
        spec = system.spec
        save_network(folder / OUTPUT, "system", spec["name"], spec["args"], system.state_dict(), meta)
        print(f"stage 3: {folder / OUTPUT}  {metrics}")
    accelerator.wait_for_everyone()
    return 0


def check(config: Stage3Config) -> None:
    """Combinations of keys that make no sense together.

    Raises:
        ValueError: naming the keys and the remedy.
    """
    if config.mode == "detector_only" and config.sr == "conditional":
        raise ValueError("mode detector_only trains no masker: set sr to bicubic, sr_fast or sr_quality")
    if config.mode == "frozen_detector" and config.sr == "bicubic":
        raise ValueError("mode frozen_detector with sr bicubic leaves nothing to train: choose another sr or mode")
    if config.losses.rec > 0 and config.data.lr == "native":
        raise ValueError("losses.rec needs HR images, but data.lr is native: set losses.rec to 0")
    if not Path(config.data.yaml).is_file():
        raise FileNotFoundError(f"data.yaml: {config.data.yaml!r} does not exist; give the data set's YAML file")


if __name__ == "__main__":
    run(main)
