"""Stage 3: joint fine-tuning of Masker, SR networks and detector with differential learning rates.

    python stage3_finetune_joint.py --config configs/stage3_joint_finetune.yaml

Modes: joint; frozen_detector (a front end for a detector that must stay as it is); detector_only (the retrained
baseline, with --sr bicubic, sr_fast or sr_quality; with --sr hr its upper bound). Writes
conditional_sr_yolo_jointly_tuned.pth into the run folder.
"""

from __future__ import annotations

from pathlib import Path

from configs.schema import Stage3Config
from utils.cli import run
from utils.config import parse_config

OUTPUT = "conditional_sr_yolo_jointly_tuned.pth"


def main(argv: list[str] | None = None) -> int:
    config = parse_config(Stage3Config, __doc__, argv)

    import torch

    from data.detection import DetectionDataset, canvas_size, collate_detection, load_data_spec, scan_split
    from models.objectives import JointObjective, JointWeights
    from utils.checkpoint import save_network
    from utils.load import build_system
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
    target, fixed_share = cost_target(config, system, train.lr_canvas)
    objective = JointObjective(
        system,
        JointWeights(losses.det, losses.sparse, losses.sparsity, target, losses.ramp, losses.smooth, losses.rec),
        seed=config.run.seed,
        tau=(config.gumbel.start, config.gumbel.end),
        fixed_share=fixed_share,
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
        if config.sr == "conditional" and losses.sparsity != "mean":
            trained = {"val/kept_share_before_calibration": validation.calibrate(target)}
        metrics = validation.measure() | trained
        meta = {"stage": 3, "mode": config.mode, "metrics": metrics, "seed": config.run.seed, "lr_protocol": data.lr}
        meta |= {"target": target, "epochs": config.optim.epochs}
        spec = system.spec
        save_network(folder / OUTPUT, "system", spec["name"], spec["args"], system.state_dict(), meta)
        print(f"stage 3: {folder / OUTPUT}  {metrics}")
    accelerator.wait_for_everyone()
    return 0


def cost_target(config: Stage3Config, system, lr_canvas: tuple[int, int]) -> tuple[float, float]:
    """Kept share to aim at, and what always runs as a share of the cost of running everything.

    In milliseconds from the latency profile for `sparsity: latency`, else in MACs.

    Raises:
        ValueError: the profile is for another system, or the target cannot be met by any kept share.
    """
    from utils.flops_counter import fast_share
    from utils.latency import fingerprint, load_profile

    losses = config.losses
    if config.sr != "conditional":
        return losses.target, 0.0
    if losses.sparsity != "latency":
        return losses.target, fast_share(system.front, *lr_canvas)
    profile = load_profile(losses.profile)
    if profile.system != fingerprint(system):
        raise ValueError(
            f"{losses.profile}: was measured for another architecture; measure it again with `python -m utils.latency "
            "--config THIS_YAML`"
        )
    share = profile.largest_share(losses.latency_ms, *lr_canvas)
    if not 0 < share < 1:
        patches = system.front.masker.grid(*lr_canvas)
        lowest, highest = (profile.total_ms(*lr_canvas, 1, kept) for kept in (1, patches[0] * patches[1]))
        raise ValueError(
            f"losses.latency_ms is {losses.latency_ms:g}, but on {profile.environment['device']} images of "
            f"{lr_canvas[1]}x{lr_canvas[0]} LR pixels take {lowest:.1f} ms with one patch and {highest:.1f} ms with all"
            " of them; choose a number between"
        )
    print(f"stage 3: {losses.latency_ms:g} ms allow a kept share of {share:.3f}")
    return share, profile.sr_share(*lr_canvas)


def check(config: Stage3Config) -> None:
    """Combinations of keys that make no sense together.

    Raises:
        ValueError: naming the keys and the remedy.
    """
    if config.mode == "detector_only" and config.sr == "conditional":
        raise ValueError("mode detector_only trains no masker: set sr to bicubic, sr_fast, sr_quality or hr")
    if config.sr == "hr" and (config.mode != "detector_only" or config.data.lr == "native"):
        raise ValueError("sr hr trains a detector on HR images: it needs mode detector_only, and data.lr not native")
    if config.upscale > 1 and config.sr != "bicubic":
        raise ValueError(f"upscale {config.upscale} is for sr bicubic; leave it at 1 for sr {config.sr}")
    if config.losses.rec > 0 and (config.sr == "hr" or config.upscale > 1):
        raise ValueError("losses.rec compares SR with HR images; set it to 0 for sr hr and for upscale above 1")
    if config.mode == "frozen_detector" and config.sr == "bicubic":
        raise ValueError("mode frozen_detector with sr bicubic leaves nothing to train: choose another sr or mode")
    if config.losses.rec > 0 and config.data.lr == "native":
        raise ValueError("losses.rec needs HR images, but data.lr is native: set losses.rec to 0")
    if config.losses.sparsity == "latency" and None in (config.losses.latency_ms, config.losses.profile):
        raise ValueError(
            "losses.sparsity latency needs losses.latency_ms and losses.profile; measure the profile with "
            "`python -m utils.latency --config THIS_YAML --out FILE`"
        )
    if not Path(config.data.yaml).is_file():
        raise FileNotFoundError(f"data.yaml: {config.data.yaml!r} does not exist; give the data set's YAML file")


if __name__ == "__main__":
    run(main)
