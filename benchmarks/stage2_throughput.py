"""How close does stage-2 training come to the network's own forward + backward rate, with and without data?

    python -m benchmarks.stage2_throughput --config configs/stage2_sr_pretrain.yaml --run.out /tmp/throughput

For SR_Fast and SR_Quality, in rounds that alternate in one run: forward, loss and backward of the network alone, on a
batch that lies on the device; the trainer's whole step (losses checked, gradients clipped, optimiser, average) on that
same batch; the trainer's consecutive steps with batches from the data pipeline, degradation on the device included.
Prints patches per second and the two ratios, and writes `throughput.json` into the run folder, which must be new. Takes
any stage-2 YAML; `--run.workers` and `--data.cache` are what the last ratio depends on.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from pathlib import Path

from configs.schema import NetworkConfig, OptimConfig, Stage2Config
from utils.config import parse_config

WARMUP, ROUNDS = 3, 9
SECONDS = 1.0  # a measurement takes about as long, so that prefetched batches do not hide a slow loader


class Quiet:
    """A log that keeps nothing."""

    def scalars(self, values: dict, step: int) -> None: ...


def measure(network_config: NetworkConfig, optim: OptimConfig, config: Stage2Config, folder: Path, accelerator) -> dict:
    """Rates of one network in patches per second."""
    import torch
    from torch.utils.data import DataLoader

    from models.arbitrary_scale import takes_size
    from models.objectives import Progress
    from utils.gradient_checkpointing import checkpoint_blocks
    from utils.load import build_or_load_sr
    from utils.loop import Trainer
    from utils.optimizer_utils import decay_groups
    from utils.sr_training import sr_objective, sr_training_data

    network = build_or_load_sr(network_config, config.scale)
    if config.gradient_checkpointing:
        checkpoint_blocks(network)
    data = sr_training_data(config, optim, folder, accelerator.num_processes, takes_size(network))
    groups = decay_groups("network", network.parameters(), optim.lr, optim.weight_decay)
    trainer = Trainer(
        "throughput", sr_objective(network, config, accelerator.device), groups, data, optim, config.run, folder,
        Quiet(), accelerator,
    )  # fmt: skip
    trainer.objective.train()
    steps = itertools.count()

    def batches():
        for epoch in itertools.count():
            yield from trainer.on_device(
                DataLoader(
                    data.dataset, batch_sampler=trainer.sampler(epoch, 0), collate_fn=data.collate,
                    num_workers=config.run.workers, pin_memory=accelerator.device.type == "cuda",
                )
            )  # fmt: skip

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

    def seconds(call, count: int) -> tuple[float, float]:
        """Per call, and the share of it spent waiting for data."""
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        began, waited = time.perf_counter(), 0.0
        for _ in range(count):
            waited += call() or 0.0
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        elapsed = time.perf_counter() - began
        return elapsed / count, waited / elapsed

    calls = {"pure": pure, "step": step_from(itertools.cycle(held)), "with_data": step_from(stream)}
    for call in calls.values():
        seconds(call, WARMUP)
    count = max(2, round(SECONDS / seconds(pure, WARMUP)[0]))
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            times[name].append(seconds(call, count))
    medians = {name: statistics.median(t for t, _ in values) for name, values in times.items()}
    return {
        "network": network.spec,
        "batch": optim.batch, "micro_batch": trainer.micro_batch, "patch": config.data.patch,
        "ms": {name: 1e3 * value for name, value in medians.items()},
        "patches_per_second": {name: optim.batch / value for name, value in medians.items()},
        "without_data_over_pure": medians["pure"] / medians["step"],
        "with_data_over_pure": medians["pure"] / medians["with_data"],
        "waiting_for_data": statistics.median(share for _, share in times["with_data"]),
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    config = parse_config(Stage2Config, __doc__, argv)

    import torch

    from utils.logger import environment, open_run
    from utils.loop import make_accelerator

    folder = open_run(config)
    results = {"precision": config.run.precision, "workers": config.run.workers, "cache": config.data.cache}
    for role, network, optim in (
        ("sr_fast", config.sr_fast, config.optim_fast),
        ("sr_quality", config.sr_quality, config.optim_quality),
    ):
        torch.manual_seed(config.run.seed)
        results[role] = measure(network, optim, config, folder / role, make_accelerator(config.run))
        print(json.dumps({role: results[role]}, indent=1), flush=True)
    results |= {"rounds": ROUNDS, "environment": environment()}
    (folder / "throughput.json").write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
