"""Does a stage-3 step cost more than its parts, and does it wait for data?

    python -m benchmarks.stage3_throughput --config configs/demo/stage3_joint_finetune.yaml --run.out /tmp/throughput

Data, system and loss are those of stage 3 with this YAML. Times, interleaved in one run, on one micro-batch: what the
teacher makes of the HR images (where there is one), front end forward + backward with the loss terms that need no
detector, detector forward + backward with the others, one update by the optimiser (with clipping and averaging); and
the whole step as the trainer makes it. Then consecutive steps, for the share of time spent waiting for data. With
losses.hr_share or losses.alternate some steps have fewer parts. Prints medians and writes `throughput.json` into the
run folder, which must be new. Takes any stage-3 YAML.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from configs.stage3_schema import Stage3Config
from loading.stage3_checks import check_stage3, some_get_no_gradient
from utils.config import parse_config

WARMUP, ROUNDS = 3, 15


def stage3_trainer(config: Stage3Config, folder: Path):
    """The trainer of stage 3 with this configuration; it logs nothing."""
    from training.joint_training import build_joint_training
    from training.processes import make_accelerator
    from training.trainer import Trainer
    from utils.logger import MetricsLog

    accelerator = make_accelerator(config.run, some_get_no_gradient(config))
    joint = build_joint_training(config, accelerator.device)
    data, log = joint.data(config.run.workers), MetricsLog(folder, main=False)
    trainer = Trainer("throughput", joint.task, data, config.optim, config.run, folder, log, accelerator)
    trainer.task.train()
    return trainer


def parts_of(trainer, batch) -> dict[str, Callable[[], None]]:
    """What a step consists of, on this micro-batch of the training."""
    from training.task import Progress

    task, accelerator, progress = trainer.task, trainer.accelerator, Progress(0, trainer.total_steps)
    optimizer = next(iter(trainer.optimizers.values()))
    with accelerator.autocast():
        teacher_output = task.teacher_output(batch)

    def teacher() -> None:
        with accelerator.autocast():
            task.teacher_output(batch)

    def front() -> None:
        with accelerator.autocast():
            sr, total, _ = task.front_terms(batch, progress, teacher_output)
        loss = total + sr.float().mean()
        if loss.requires_grad:
            loss.backward()

    def detector() -> None:
        image = batch.hr.clone().requires_grad_(True)
        with accelerator.autocast():
            total, _ = task.detector_terms(image, batch, teacher_output)
        total.backward()

    def update() -> None:
        optimizer.clip()
        optimizer.step()
        if trainer.ema is not None:
            trainer.ema.update(task)

    parts = {"front": front, "detector": detector, "optimizer": update}
    return parts if task.distillation is None else {"teacher": teacher} | parts


def steps_of(trainer) -> Iterator[float]:
    """Makes one step after the other, epoch after epoch; seconds spent waiting for data."""

    def batches():
        for epoch in itertools.count():
            yield from trainer.on_device(trainer.loader(epoch, 0))

    stream = batches()
    for step in itertools.count():
        trainer.step = step % trainer.total_steps
        yield trainer.optimise(stream, 0)[1]


def measure_parts(trainer) -> dict:
    """Milliseconds of the parts and of the whole step, and the share of time that consecutive steps wait."""
    import torch

    device = trainer.accelerator.device
    steps, batch = steps_of(trainer), next(trainer.on_device(trainer.loader(1, 0)))
    parts = parts_of(trainer, batch)
    calls: dict[str, Callable] = parts | {"step": lambda: next(steps)}
    times: dict[str, list[float]] = {name: [] for name in calls}

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    for _ in range(WARMUP + ROUNDS):
        for name, call in calls.items():
            wait()
            began = time.perf_counter()
            call()
            wait()
            times[name].append((time.perf_counter() - began) * 1e3)
    # Consecutive steps: the interleaved ones give the loader time that training does not give it.
    for _ in range(2 * max(1, trainer.data.workers)):
        next(steps)
    began = time.perf_counter()
    waited = sum(next(steps) for _ in range(ROUNDS))
    wait()
    total = time.perf_counter() - began
    medians = {name: statistics.median(values[WARMUP:]) for name, values in times.items()}
    parts_ms = medians["optimizer"] + trainer.accumulate * sum(medians[name] for name in parts if name != "optimizer")
    return {
        "micro_batch": trainer.micro_batch,
        "accumulate": trainer.accumulate,
        "ms": medians,
        "sum_of_parts_ms": parts_ms,
        "step_over_parts": medians["step"] / parts_ms,
        "consecutive_step_ms": total / ROUNDS * 1e3,
        "data_wait_share": waited / total,
        "rounds": ROUNDS,
    }


def main(argv: list[str] | None = None) -> int:
    config = parse_config(Stage3Config, __doc__, argv)
    check_stage3(config)

    from utils.logger import environment, open_run

    folder = open_run(config)
    result = measure_parts(stage3_trainer(config, folder))
    print(json.dumps(result, indent=1))
    (folder / "throughput.json").write_text(json.dumps(result | {"environment": environment()}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
