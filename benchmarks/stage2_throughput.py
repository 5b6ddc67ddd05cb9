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
from dataclasses import dataclass, replace
from pathlib import Path

from configs.schema import NetworkConfig, OptimConfig, Stage2Config
from utils.config import parse_config

WARMUP, ROUNDS = 3, 9
LOADED = 20  # batches by which the cost of loading is measured
SECONDS = 1.0  # a measurement takes about as long, so that prefetched batches do not hide a slow loader


@dataclass(frozen=True)
class Timing:
    """Of one step: seconds by the clock, seconds of CPU of this process, share spent waiting for data."""

    wall: float
    cpu: float
    waiting: float


class Quiet:
    """A log that keeps nothing."""

    def scalars(self, values: dict, step: int) -> None: ...


def measure(network_config: NetworkConfig, optim: OptimConfig, config: Stage2Config, folder: Path, accelerator) -> dict:
    """Rates of one network in patches per second."""
    import torch

    from loading.sr_networks import build_or_load_sr
    from training.gradient_checkpointing import checkpoint_blocks
    from training.sr_training import sr_objective, sr_training_data
    from training.tasks.objectives import Progress
    from training.trainer import Trainer
    from utils.optimizer_utils import decay_groups

    network = build_or_load_sr(network_config, config.scale)
    if config.gradient_checkpointing:
        checkpoint_blocks(network)
    data = sr_training_data(config, optim, folder, accelerator.num_processes, network.capabilities.takes_size)
    groups = decay_groups("network", network.parameters(), optim.lr, optim.weight_decay)
    trainer = Trainer(
        "throughput", sr_objective(network, config, accelerator.device), groups, data, optim, config.run, folder,
        Quiet(), accelerator,
    )  # fmt: skip
    trainer.objective.train()
    steps = itertools.count()

    def batches():
        for epoch in itertools.count():
            yield from trainer.on_device(trainer.loader(epoch, 0))

    stream = batches()
    held = [next(stream) for _ in range(trainer.accumulate)]

    def pure() -> None:
        for batch in held:
            with accelerator.autocast():
                losses = trainer.objective(batch, Progress(0, 1))
            losses["total"].backward()
        for parameter in trainer.parameters:
            parameter.grad = None

    def step_from(source):
        def step() -> float:
            trainer.step = next(steps) % trainer.total_steps
            return trainer.optimise(source, 0)[1]

        return step

    def seconds(call, count: int) -> Timing:
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        began, cpu, waited = time.perf_counter(), time.process_time(), 0.0
        for _ in range(count):
            waited += call() or 0.0
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        elapsed = time.perf_counter() - began
        return Timing(elapsed / count, (time.process_time() - cpu) / count, waited / elapsed)

    calls = {"pure": pure, "step": step_from(itertools.cycle(held)), "with_data": step_from(stream)}
    for call in calls.values():
        seconds(call, WARMUP)
    count = max(2, round(SECONDS / seconds(pure, WARMUP).wall))
    rounds = [{name: seconds(call, count) for name, call in calls.items()} for _ in range(ROUNDS)]
    keys = itertools.cycle(trainer.sampler(0, 0))

    def load() -> None:
        for _ in held:
            data.collate(data.dataset.__getitems__(next(keys)))

    loading = seconds(load, LOADED)
    ms = {name: 1e3 * statistics.median(timings[name].wall for timings in rounds) for name in calls}
    return {
        "network": network.spec,
        "batch": optim.batch, "micro_batch": trainer.micro_batch, "patch": config.data.patch,
        "ms": ms,
        "cpu_ms": {name: 1e3 * statistics.median(timings[name].cpu for timings in rounds) for name in calls},
        "loading_cpu_ms": 1e3 * loading.cpu,
        "patches_per_second": {name: 1e3 * optim.batch / value for name, value in ms.items()},
        "without_data_over_pure": ratio(rounds, "step", "wall"),
        "with_data_over_pure": ratio(rounds, "with_data", "wall"),
        "without_data_over_pure_cpu": ratio(rounds, "step", "cpu"),
        "with_data_over_pure_cpu": ratio(rounds, "with_data", "cpu"),
        "waiting_for_data": statistics.median(timings["with_data"].waiting for timings in rounds),
    }  # fmt: skip


def ratio(rounds: list[dict[str, Timing]], name: str, clock: str) -> float:
    """Speed of a kind of step as a share of the network's own: the median of the rounds' ratios."""
    return statistics.median(getattr(timings["pure"], clock) / getattr(timings[name], clock) for timings in rounds)


def main(argv: list[str] | None = None) -> int:
    config = parse_config(Stage2Config, __doc__, argv)
    config = replace(config, run=replace(config.run, threads=config.run.threads or 1))

    import torch

    from training.trainer import make_accelerator
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
        torch.manual_seed(config.run.seed)
        results[role] = measure(network, optim, config, folder / role, make_accelerator(config.run))
        print(json.dumps({role: results[role]}, indent=1), flush=True)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    results |= {"rounds": ROUNDS, "load_average": load, "environment": environment()}
    (folder / "throughput.json").write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
