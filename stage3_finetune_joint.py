"""Stage 3: joint fine-tuning of Masker, SR networks and detector with differential learning rates.

    python stage3_finetune_joint.py --config configs/stage3_joint_finetune.yaml

Modes: joint; frozen_detector (a front end for a detector that must stay as it is); detector_only (the retrained
baseline, with --sr bicubic, sr_fast or sr_quality; with --sr hr its upper bound). Writes
conditional_sr_yolo_jointly_tuned.pth into the run folder.
"""

from __future__ import annotations

from dataclasses import replace

from configs.schema import Stage3Config
from loading.stage3_checks import check_stage3, distills, some_parts_rest
from utils.cli import run
from utils.config import parse_config
from utils.errors import UserError

OUTPUT = "conditional_sr_yolo_jointly_tuned.pth"


def main(argv: list[str] | None = None) -> int:
    config = parse_config(Stage3Config, __doc__, argv)

    import torch

    from data.detection import DetectionDataset, canvas_size, collate_detection, load_data_spec, scan_splits
    from data.label_share import label_counts, share_labels
    from loading.load import build_system, build_teacher
    from training.distillation import Distillation
    from training.stage3_validation import Stage3Validation
    from training.tasks.objectives import JointObjective
    from training.trainer import Trainer, TrainingData, make_accelerator
    from utils.checkpoint import save_network
    from utils.logger import MetricsLog, open_run
    from utils.optimizer_utils import stage3_groups

    # 1. Run folder, data
    check_stage3(config)
    accelerator = make_accelerator(config.run, some_parts_rest(config))
    folder = open_run(config, main=accelerator.is_main_process)
    accelerator.wait_for_everyone()
    if (folder / OUTPUT).exists():
        accelerator.print(f"stage 3: already finished, {folder / OUTPUT}")
        return 0
    data = config.data
    spec = load_data_spec(data.yaml)
    records = scan_splits(spec, data, ("train", "val"), accelerator.print)
    records["train"] = share_labels(records["train"], data.label_share, data.label_seed, data.unlabelled)
    labelled = sum(record.labelled for record in records["train"])
    accelerator.print(f"stage 3: {label_counts(records['train'])}")

    # 2. System, and what of it learns
    torch.manual_seed(config.run.seed)
    system = build_system(config, spec.names)
    detector = system.detector
    system.to(memory_format=torch.channels_last)
    canvas = canvas_size(data.imgsz, data.scale, detector.stride)
    shared = {"canvas": canvas, "scale": data.scale, "lr": data.lr, "lr_folder": data.lr_folder}
    shared |= {"seed": config.run.seed, "max_pixels": data.max_pixels}
    train = DetectionDataset(records["train"], spec.names, augment=config.augment, epochs=config.optim.epochs, **shared)
    val = DetectionDataset(records["val"], spec.names, augment=None, epochs=0, **shared)
    groups = stage3_groups(system, config.mode, config.optim, config.freeze)
    detector.set_epochs(config.optim.epochs)
    if config.freeze_bn:
        detector.freeze_batchnorm()

    # 3. Training
    losses = config.losses
    target, fixed_share = cost_target(config, system, train)
    distillation = None
    if distills(config):
        teacher = build_teacher(config, detector).to(accelerator.device, memory_format=torch.channels_last)
        distillation = Distillation(teacher, losses.distill, losses.distill_outputs)
    objective = JointObjective(
        system,
        replace(losses, target=target),
        seed=config.run.seed,
        tau=(config.gumbel.start, config.gumbel.end),
        fixed_share=fixed_share,
        budgets=config.masker.budget_dropout,
        distillation=distillation,
        label_share=labelled / len(train),
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
        if config.sr == "conditional" and losses.sparsity != "mean" and "masker" not in config.freeze:
            trained = {"val/kept_share_before_calibration": validation.calibrate(target)}
        metrics = validation.measure() | trained
        meta = {"stage": 3, "mode": config.mode, "metrics": metrics, "seed": config.run.seed, "lr_protocol": data.lr}
        meta |= {"target": target, "epochs": config.optim.epochs}
        meta |= {"training_images": len(train), "labelled_images": 0 if losses.det == 0 else labelled}
        spec = system.spec
        save_network(folder / OUTPUT, "system", spec["name"], spec["args"], system.state_dict(), meta)
        print(f"stage 3: {folder / OUTPUT}  {metrics}")
    accelerator.wait_for_everyone()
    return 0


def cost_target(config: Stage3Config, system, dataset) -> tuple[float, float]:
    """Kept share to aim at, and what always runs as a share of the cost of running everything, canvas filled.

    In milliseconds from the latency profile for `sparsity: latency`, else in MACs. Milliseconds buy a number of
    patches; where images of the data set leave a part of the canvas to padding, that is a larger share of theirs.

    Raises:
        ValueError: the profile is for another system, or the target cannot be met by any kept share.
    """
    from deployment.latency_profile import fingerprint, load_profile
    from models.conditional_cost import fast_share

    losses, lr_canvas = config.losses, dataset.lr_canvas
    if config.sr != "conditional":
        return losses.target, 0.0
    if losses.sparsity != "latency":
        return losses.target, fast_share(system.front, *lr_canvas)
    profile = load_profile(losses.profile)
    if profile.system != fingerprint(system):
        raise UserError(
            f"{losses.profile}: was measured for another architecture; measure it again with `python -m tools.latency "
            "--config THIS_YAML`"
        )
    share = profile.largest_share(losses.latency_ms, *lr_canvas)
    if not 0 < share < 1:
        patches = system.front.masker.grid(*lr_canvas)
        lowest, highest = (profile.total_ms(*lr_canvas, 1, kept) for kept in (1, patches[0] * patches[1]))
        raise UserError(
            f"losses.latency_ms is {losses.latency_ms:g}, but on {profile.environment['device']} images of "
            f"{lr_canvas[1]}x{lr_canvas[0]} LR pixels take {lowest:.1f} ms with one patch and {highest:.1f} ms with all"
            " of them; choose a number between"
        )
    share = min(1.0, share / image_share(dataset, system.front.patch))
    print(f"stage 3: {losses.latency_ms:g} ms allow a kept share of {share:.3f}")
    return share, profile.sr_share(*lr_canvas)


def image_share(dataset, patch: int) -> float:
    """Share of the canvas' patches that hold image, the mean over a data set as it is without augmentation."""
    import torch

    from models.content import image_cells

    content = torch.tensor([[dataset.letterbox(index).lr_rectangle(dataset.scale)] for index in range(len(dataset))])
    return image_cells(content, dataset.lr_canvas, patch).double().mean().item()


if __name__ == "__main__":
    run(main)
