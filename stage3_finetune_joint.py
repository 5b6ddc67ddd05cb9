"""Stage 3: joint fine-tuning of Masker, SR networks and detector with differential learning rates.

    python stage3_finetune_joint.py --config configs/stage3_joint_finetune.yaml

With `warm_up` the front end first learns without labels, in phases of the same run, each in a folder of its own. Modes:
joint; frozen_detector (a front end for a detector that must stay as it is); detector_only (the retrained baseline, with
--sr bicubic, sr_fast or sr_quality; with --sr hr its upper bound). Writes conditional_sr_yolo_jointly_tuned.pth into
the run folder.
"""

from __future__ import annotations

from pathlib import Path

from configs.stage3_schema import Stage3Config
from loading.stage3_checks import check_stage3, some_get_no_gradient
from loading.warm_up import OUTPUT, Stage3Phase, stage3_phases
from utils.cli import run
from utils.config import parse_config


def main(argv: list[str] | None = None) -> int:
    config = parse_config(Stage3Config, __doc__, argv)
    check_stage3(config)

    from training.processes import make_accelerator
    from training.result import finished_epochs, is_finished
    from training.run_start import start_run

    # 1. Run folder
    accelerator, output = make_accelerator(config.run, some_get_no_gradient(config)), Path(config.run.out) / OUTPUT
    made = {"optim.epochs": finished_epochs(output)}
    start_run(config, accelerator.is_main_process, extends=made)
    accelerator.wait_for_everyone()
    if is_finished(output, config.optim.epochs):
        accelerator.print(f"stage 3: already finished, {output}")
        return 0

    # 2. Phase after phase; a finished one has its output
    phases = stage3_phases(config)
    for number, phase in enumerate(phases, 1):
        if phase.name and phase.output.exists():
            accelerator.print(f"stage 3: phase {number} of {len(phases)} is finished, {phase.output}")
        else:
            name = f"stage 3 ({number} of {len(phases)})" if len(phases) > 1 else "stage 3"
            train(phase, name, proposes=number == 1 and config.sr == "conditional")
    return 0


def train(phase: Stage3Phase, name: str, proposes: bool) -> None:
    """Train one phase, from where it was interrupted, and write its checkpoint.

    Args:
        phase: what to train.
        name: in messages.
        proposes: say how many epochs the data set would need.
    """
    from training.joint_training import build_joint_training
    from training.processes import make_accelerator
    from training.published_epochs import proposal
    from training.run_start import start_run
    from training.stage3_validation import Stage3Validation
    from training.trainer import Trainer
    from utils.logger import MetricsLog

    # 1. Folder; an accelerator for each phase, whose gradient scaler knows nothing that a resumed run would not know
    config, folder = phase.config, Path(phase.config.run.out)
    accelerator = make_accelerator(config.run, some_get_no_gradient(config))
    if phase.name:
        start_run(config, accelerator.is_main_process)
        accelerator.wait_for_everyone()

    # 2. Data, system, and what of it learns
    joint = build_joint_training(config, accelerator.device, accelerator.print)
    if proposes:
        accelerator.print(f"{name}: {proposal(len(joint.train))}")

    # 3. Training
    log = MetricsLog(folder, main=accelerator.is_main_process)
    validation = Stage3Validation(joint.task.system, joint.val, config, log, accelerator.device)
    trainer = Trainer(
        name,
        joint.task,
        joint.data(config.run.workers),
        config.optim,
        config.run,
        folder,
        log,
        accelerator,
        validation,
    )
    log.resume_from(trainer.restore())
    trainer.fit()

    # 4. Result
    if accelerator.is_main_process:
        save_result(phase.output, config, joint, validation, trainer.epochs_made)
    accelerator.wait_for_everyone()


def save_result(output: Path, config: Stage3Config, joint, validation, epochs: int) -> None:
    """Calibrate the masker, measure the trained system once more, and write it.

    Args:
        output: checkpoint to write.
        config: of the stage.
        joint: JointTraining, after the last step.
        validation: Stage3Validation.
        epochs: that the system has behind it.
    """
    from training.result import in_words
    from utils.checkpoint import save_network

    losses, target, trained = config.losses, joint.task.weights.target, {}
    if config.sr == "conditional" and losses.sparsity != "mean" and "masker" not in config.freeze:
        trained = validation.calibrate(target)
    metrics = validation.measure() | trained
    meta = {"stage": 3, "mode": config.mode, "metrics": metrics, "seed": config.run.seed, "lr_protocol": config.data.lr}
    meta |= {"target": target, "epochs": epochs}
    meta |= {"training_images": len(joint.train), "labelled_images": 0 if losses.det == 0 else joint.labelled}
    spec = joint.task.system.spec
    save_network(output, "system", spec["name"], spec["args"], joint.task.system.state_dict(), meta)
    print(f"stage 3: {output}  {in_words(metrics)}")


if __name__ == "__main__":
    run(main)
