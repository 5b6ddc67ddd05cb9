"""A frozen network with trained low-rank additions: only these are in checkpoint and average."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.schema import OptimConfig
from tests.training.tiny_gan import OPTIM, RUN, Images, make_trainer
from training.task import MAIN, OptimizerSpec, Progress, Task
from training.trainer import Trainer
from utils.optimizer_utils import decay_groups


class LowRank(nn.Module):
    """W x + B A x with W frozen (Hu et al. 2021, arXiv:2106.09685), for 1x1 convolutions."""

    def __init__(self, base: nn.Conv2d, rank: int = 2):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_a = nn.Parameter(torch.randn(rank, base.in_channels, 1, 1))
        self.lora_b = nn.Parameter(torch.zeros(base.out_channels, rank, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + F.conv2d(F.conv2d(x, self.lora_a), self.lora_b)


class LoRATask(Task):
    def __init__(self, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        first, last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 12, 1)
        # The running statistics of a frozen network must not move either.
        self.network = nn.Sequential(LowRank(first), nn.BatchNorm2d(8, affine=False), LowRank(last), nn.PixelShuffle(2))

    def train(self, mode: bool = True) -> LoRATask:
        super().train(mode)
        self.network[1].eval()
        return self

    def optimizers(self, optim: OptimConfig) -> dict[str, OptimizerSpec]:
        return {MAIN: OptimizerSpec(decay_groups("lora", self.parameters(), optim.lr, 0.0), optim)}

    def losses(self, batch: Images, progress: Progress) -> dict[str, Tensor]:
        loss = F.l1_loss(self.network(batch.lr), batch.hr)
        return {"total": loss, "l1": loss.detach()}

    def keeps(self, name: str) -> bool:
        return ".lora_" in name


KEPT = {f"network.{layer}.lora_{matrix}" for layer in (0, 2) for matrix in "ab"}


def run(folder: Path, steps: int | None = None, task: LoRATask | None = None) -> Trainer:
    """Restored and trained; `steps`: the checkpoint after so many is the last."""
    trainer = make_trainer(LoRATask() if task is None else task, folder, OPTIM, replace(RUN, checkpoint_every=1))
    save = trainer.save

    def save_and_stop() -> None:
        save()
        if trainer.step == steps:
            raise KeyboardInterrupt

    trainer.save = save_and_stop
    trainer.restore()
    if steps is None:
        trainer.fit()
    else:
        with pytest.raises(KeyboardInterrupt):
            trainer.fit()
    return trainer


def test_only_the_additions_are_trained_kept_and_averaged(tmp_path: Path):
    trainer, fresh = run(tmp_path), LoRATask().state_dict()
    payload, _ = trainer.state.load_newest()
    assert set(payload["model"]) == set(payload["ema"]["shadow"]) == KEPT
    for name, value in trainer.task.state_dict().items():
        assert torch.equal(value, fresh[name]) == (name not in KEPT), name
        assert name not in KEPT or torch.equal(value, payload["ema"]["shadow"][name])
    assert payload["optimizers"][MAIN]["state"].keys() == set(range(len(KEPT)))


def test_resumed_on_the_same_base_it_ends_bit_for_bit_as_without(tmp_path: Path):
    whole = run(tmp_path / "whole")
    run(tmp_path / "killed", steps=7)
    again = run(tmp_path / "killed")
    for name, value in whole.task.state_dict().items():
        assert torch.equal(value, again.task.state_dict()[name]), name
    assert again.log.rows == whole.log.rows[-len(again.log.rows) :]


def test_validation_sees_the_averaged_additions_on_the_base(tmp_path: Path):
    trainer, seen = make_trainer(LoRATask(), tmp_path), []
    trainer.validate = lambda epoch, step: (
        seen.append({k: v.clone() for k, v in trainer.task.state_dict().items()}) or {}
    )
    trainer.fit()
    for state in seen:
        assert all(
            torch.equal(state[name], value) for name, value in LoRATask().state_dict().items() if name not in KEPT
        )
    assert all(torch.equal(seen[-1][name], trainer.ema.shadow[name]) for name in KEPT)
