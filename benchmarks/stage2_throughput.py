"""How close does stage-2 training come to the network's own forward + backward rate, with and without data?

    python -m benchmarks.stage2_throughput --config configs/stage2_sr_pretrain.yaml --run.out /tmp/throughput

For SR_Fast and SR_Quality, in rounds that alternate in one run: forward, loss and backward of the network alone, on a
batch that lies on the device; the trainer's whole step (losses checked, gradients clipped, optimiser, average) on that
same batch; the trainer's consecutive steps with batches from the data pipeline, degradation on the device included.
Prints patches per second and the two ratios, each the median of the rounds' own ratios, so that a change of the
machine's load between rounds drops out, by the clock and by the CPU time of this process (without the data-loading
processes; what loading a batch costs one of them stands in `loading_cpu_ms`). Writes `throughput.json` into the run
folder, which must be new. Takes any stage-2 YAML; `--run.workers` and `--data.cache` are what the last ratio depends
on. `--run.threads 0` is taken as 1: the number has to be fixed.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from configs.schema import NetworkConfig, OptimConfig, Stage2Config
from utils.config import parse_config

WARMUP, ROUNDS = 3, 9
LOADED = 20  # batches by which the cost of loading is measured
SECONDS = 1.0  # a measurement takes about as long, so that prefetched batches do not hide a slow loader


@dataclass(frozen=True)
class StepTiming:
    """Of one step: seconds by the clock, seconds of CPU of this process, share spent waiting for data."""

    wall: float
    cpu: float
    waiting: float


def stage2_trainer(network_config: NetworkConfig, optim: OptimConfig, config: Stage2Config, folder: Path, accelerator):
    """The trainer of stage 2 for one network; it logs nothing."""
    from training.sr_training import build_network, sr_task, sr_training_data
    from training.trainer import Trainer
    from utils.logger import MetricsLog

    network = build_network("network", network_config, config)
    data = sr_training_data(config, optim, folder, accelerator.num_processes, network)
    task, log = sr_task("network", network, config, accelerator.device), MetricsLog(folder, main=False)
    trainer = Trainer("throughput", task, data, optim, config.run, folder, log, accelerator)
    trainer.task.train()
    return trainer


def ways(trainer) -> dict[str, Callable]:
    """What is compared, each one step: the network alone, the trainer's step on held batches, and with data.

    The steps return the seconds that they waited for data.
    """
    from training.task import Progress

    steps = itertools.count()

    def batches():
        for epoch in itertools.count():
            yield from trainer.on_device(trainer.loader(epoch, 0))

    stream = batches()
    held = [next(stream) for _ in range(trainer.accumulate)]

    def pure() -> None:
        for batch in held:
            with trainer.accelerator.autocast():
                losses = trainer.task(batch, Progress(0, 1))
            losses["total"].backward()
        for parameter in trainer.task.parameters():
            parameter.grad = None

    def step_from(source):
        def step() -> float:
            trainer.step = next(steps) % trainer.total_steps
            return trainer.optimise(source, 0)[1]

        return step

    return {"pure": pure, "step": step_from(itertools.cycle(held)), "with_data": step_from(stream)}


def seconds(call: Callable, count: int, device) -> StepTiming:
    """Of one call, the mean over `count` of them."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()
    began, cpu, waited = time.perf_counter(), time.process_time(), 0.0
    for _ in range(count):
        waited += call() or 0.0
    if device.type == "cuda":
        torch.cuda.synchronize()
    elapsed = time.perf_counter() - began
    return StepTiming(elapsed / count, (time.process_time() - cpu) / count, waited / elapsed)


def measure_rates(trainer, patch: int) -> dict:
    """Rates of one network in patches per second; `patch`: side of its LR patches, for the report."""
    calls, device, batch = ways(trainer), trainer.accelerator.device, trainer.optim.batch
    for call in calls.values():
        seconds(call, WARMUP, device)
    count = max(2, round(SECONDS / seconds(calls["pure"], WARMUP, device).wall))
    rounds = [{name: seconds(call, count, device) for name, call in calls.items()} for _ in range(ROUNDS)]
    keys = itertools.cycle(trainer.sampler(0, 0))

    def load() -> None:
        for _ in range(trainer.accumulate):
            trainer.data.collate(trainer.data.dataset.__getitems__(next(keys)))

    loading = seconds(load, LOADED, device)
    ms = {name: 1e3 * statistics.median(timings[name].wall for timings in rounds) for name in calls}
    return {
        "network": trainer.task.network.spec,
        "batch": batch,
        "micro_batch": trainer.micro_batch,
        "patch": patch,
        "ms": ms,
        "cpu_ms": {name: 1e3 * statistics.median(timings[name].cpu for timings in rounds) for name in calls},
        "loading_cpu_ms": 1e3 * loading.cpu,
        "patches_per_second": {name: 1e3 * batch / value for name, value in ms.items()},
        "without_data_over_pure": ratio(rounds, "step", "wall"),
        "with_data_over_pure": ratio(rounds, "with_data", "wall"),
        "without_data_over_pure_cpu": ratio(rounds, "step", "cpu"),
        "with_data_over_pure_cpu": ratio(rounds, "with_data", "cpu"),
        "waiting_for_data": statistics.median(timings["with_data"].waiting for timings in rounds),
    }


def ratio(rounds: list[dict[str, StepTiming]], name: str, clock: str) -> float:
    """Speed of a kind of step as a share of the network's own: the median of the rounds' ratios."""
    return statistics.median(getattr(timings["pure"], clock) / getattr(timings[name], clock) for timings in rounds)


def main(argv: list[str] | None = None) -> int:
    config = parse_config(Stage2Config, __doc__, argv)
    config = replace(config, run=replace(config.run, threads=config.run.threads or 1))

    from training.processes import make_accelerator
    from utils.logger import environment, open_run

    folder = open_run(config)
    results: dict = {
        "precision": config.run.precision,
        "threads": config.run.threads,
        "workers": config.run.workers,
        "cache": config.data.cache,
    }
    for role, network, optim in (
        ("sr_fast", config.sr_fast, config.optim_fast),
        ("sr_quality", config.sr_quality, config.optim_quality),
    ):
        trainer = stage2_trainer(network, optim, config, folder / role, make_accelerator(config.run))
        results[role] = measure_rates(trainer, config.data.patch)
        print(json.dumps({role: results[role]}, indent=1), flush=True)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    results |= {"rounds": ROUNDS, "load_average": load, "environment": environment()}
    (folder / "throughput.json").write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
