"""Does a stage-3 step cost more than its parts, and does it wait for data?

    python -m benchmarks.stage3_throughput --config configs/demo/stage3_joint_finetune.yaml --run.out /tmp/throughput

Times, interleaved in one run: front end forward + backward, detector loss forward + backward, optimiser (with clipping
and averaging), and the whole step as the trainer makes it; then consecutive steps, for the share of time spent waiting
for data. Prints medians and writes `throughput.json` into the run folder, which must be new. Takes any stage-3 YAML.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

from configs.schema import Stage3Config
from utils.config import parse_config

WARMUP, ROUNDS = 3, 15


class Quiet:
    """A log that keeps nothing."""

    def scalars(self, values: dict, step: int) -> None: ...


def main(argv: list[str] | None = None) -> int:
    config = parse_config(Stage3Config, __doc__, argv)

    import torch
    from torch.utils.data import DataLoader

    from data.detection import DetectionDataset, canvas_size, collate_detection, load_data_spec, scan_split
    from loading.systems import build_system
    from training.tasks.objectives import JointObjective
    from training.trainer import Trainer, TrainingData, make_accelerator
    from utils.gumbel import gumbel_noise
    from utils.logger import environment, open_run
    from utils.optimizer_utils import stage3_groups

    accelerator = make_accelerator(config.run)
    folder = open_run(config)
    data, spec = config.data, load_data_spec(config.data.yaml)
    records, _ = scan_split(spec, "train", max_pixels=data.max_pixels)
    torch.manual_seed(config.run.seed)
    system = build_system(config, spec.names)
    canvas = canvas_size(data.imgsz, data.scale, system.detector.stride)
    train = DetectionDataset(
        records, spec.names, canvas, data.scale, data.lr, data.lr_folder, config.augment, config.optim.epochs,
        config.run.seed, data.max_pixels,
    )  # fmt: skip
    groups = stage3_groups(system, config.mode, config.optim)
    if config.freeze_bn:
        system.detector.freeze_batchnorm()
    objective = JointObjective(system, config.losses, config.run.seed)
    trainer = Trainer(
        "throughput", objective, groups, TrainingData(train, collate_detection, config.run.workers), config.optim,
        config.run, folder, Quiet(), accelerator,
    )  # fmt: skip
    objective.train()

    loader = trainer.on_device(DataLoader(train, batch_sampler=trainer.sampler(0, 0), collate_fn=collate_detection,
                                          num_workers=config.run.workers))  # fmt: skip
    batch = next(iter(DataLoader(train, batch_sampler=trainer.sampler(1, 0), collate_fn=collate_detection)))
    batch = batch.to(accelerator.device)
    front, detector, epoch = system.front, system.detector, 0

    def synchronize() -> None:
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize()

    def run_front() -> None:
        with accelerator.autocast():
            noise = None
            if front.patch is not None:
                noise = gumbel_noise(batch.indices, 0, 0, front.masker.grid(*batch.lr.shape[-2:]))
                noise = noise.to(accelerator.device)
            sr = front(batch.lr, 1.0, noise).sr
        if sr.requires_grad:
            sr.float().mean().backward()

    def run_detector() -> None:
        image = batch.hr.clone().requires_grad_(True)
        with accelerator.autocast():
            loss = detector.loss(image, batch.boxes, batch.classes, batch.image_index)["det"]
        loss.backward()

    def run_optimizer() -> None:
        accelerator.clip_grad_norm_(trainer.parameters, config.optim.clip_norm or float("inf"))
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        if trainer.ema is not None:
            trainer.ema.update(objective)

    def run_step() -> float:
        nonlocal loader, epoch
        if trainer.step and trainer.step % trainer.steps_per_epoch == 0:
            epoch += 1
            loader = trainer.on_device(DataLoader(train, batch_sampler=trainer.sampler(epoch, 0),
                                                  collate_fn=collate_detection,
                                                  num_workers=config.run.workers))  # fmt: skip
        _, wait = trainer.optimise(loader, epoch)
        trainer.step += 1
        return wait

    parts = {"front": run_front, "detector": run_detector, "optimizer": run_optimizer, "step": run_step}
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(WARMUP + ROUNDS):
        for name, part in parts.items():
            synchronize()
            began = time.perf_counter()
            part()
            synchronize()
            times[name].append((time.perf_counter() - began) * 1e3)
    # Consecutive steps: the interleaved ones give the loader time that training does not give it.
    for _ in range(2 * max(1, config.run.workers)):
        run_step()
    waited, began = 0.0, time.perf_counter()
    for _ in range(ROUNDS):
        waited += run_step()
    synchronize()
    total = time.perf_counter() - began
    medians = {name: statistics.median(values[WARMUP:]) for name, values in times.items()}
    micro = trainer.accumulate
    parts_ms = micro * (medians["front"] + medians["detector"]) + medians["optimizer"]
    result = {
        "micro_batch": trainer.micro_batch, "accumulate": micro, "ms": medians, "sum_of_parts_ms": parts_ms,
        "step_over_parts": medians["step"] / parts_ms, "consecutive_step_ms": total / ROUNDS * 1e3,
        "data_wait_share": waited / total, "rounds": ROUNDS, "environment": environment(),
    }  # fmt: skip
    Path(folder / "throughput.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "environment"}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
