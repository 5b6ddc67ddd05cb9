"""What stage 2 looks at after an epoch: PSNR and SSIM on the validation folders."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from configs.schema import OptimConfig, Stage2Config
from evaluation.sr_eval import benchmark, validation_sets
from training.best_weights import BestWeights


class SRValidation:
    """Callable (epoch, step) -> metrics; keeps the best weights so far in ROLE_best.pth.

    Args:
        role: sr_fast or sr_quality.
        network: SR network.
        config: of the stage.
        optim: settings of the network's optimiser.
        folder: run folder.
        device: where the network is.
        scales: that images are made for.
    """

    def __init__(
        self,
        role: str,
        network: nn.Module,
        config: Stage2Config,
        optim: OptimConfig,
        folder: Path,
        device: torch.device,
        scales: list[float],
    ):
        self.network, self.config, self.optim, self.device = network, config, optim, device
        self.sets = validation_sets(config.data.val, scales, config.data.max_pixels)
        meta = {"stage": 2, "role": role, "seed": config.run.seed}
        self.best = BestWeights(folder / f"{role}_best.pth", network, meta)

    def measure(self) -> dict[str, float]:
        return benchmark(self.network, self.sets, self.device)

    def __call__(self, epoch: int, step: int) -> dict[str, float]:
        last = epoch + 1 == self.optim.epochs
        if not (last or (epoch + 1) % self.config.val_every == 0):
            return {}
        metrics = self.measure()
        self.best.offer(metrics, epoch, step)
        return metrics
