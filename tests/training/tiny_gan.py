"""A small real GAN, hinge losses on random images, for the tests of turns; as a program, for those of processes."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from configs.schema import OptimConfig, RunConfig
from training.processes import make_accelerator
from training.task import OptimizerSpec, Progress, Task
from training.trainer import Trainer
from training.training_data import TrainingData
from utils.optimizer_utils import decay_groups

OPTIM = OptimConfig(epochs=3, batch=4, micro_batch=2, lr=1e-2, warmup=2, clip_norm=0.05, ema=0.8)
RUN = RunConfig(device="cpu", workers=0, threads=1, checkpoint_every=1, log_every=1)


@dataclass
class Images:
    """LR and HR images (B, 3, h, w) and (B, 3, 2h, 2w)."""

    lr: Tensor
    hr: Tensor
    files: list[str]

    def to(self, device: torch.device) -> Images:
        return Images(self.lr.to(device), self.hr.to(device), self.files)


class RandomImages(Dataset):
    """HR image `index` is drawn from its number, in every epoch the same."""

    def __init__(self, length: int = 16):
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, str]:
        return torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(key[1])), f"{key[1]}.png"


def collate(samples: list[tuple[Tensor, str]]) -> Images:
    hr = torch.stack([image for image, _ in samples])
    return Images(F.avg_pool2d(hr, 2), hr, [name for _, name in samples])


def networks(seed: int = 0) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(seed)
    generator = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2))
    return generator, nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3))


class TinyGAN(Task):
    """Hinge GAN (Lim & Ye 2017, arXiv:1705.02894) with an L1 term.

    Args:
        same_batch: both turns in every step, else one after the other in turns.
        poison: step in whose discriminator turn a loss is NaN.
    """

    def __init__(self, same_batch: bool, poison: int | None = None):
        super().__init__()
        self.generator, self.discriminator = networks()
        self.same_batch, self.poison = same_batch, poison

    def optimizers(self, optim: OptimConfig) -> dict[str, OptimizerSpec]:
        slow = replace(optim, lr=optim.lr / 4, schedule="step", milestones=[1], gamma=0.5, warmup=0, clip_norm=0.0)
        return {
            name: OptimizerSpec(
                [{**group, "betas": (0.5, 0.9)} for group in decay_groups(name, part.parameters(), settings.lr, 0.0)],
                settings,
            )
            for name, part, settings in (
                ("generator", self.generator, optim),
                ("discriminator", self.discriminator, slow),
            )
        }

    def turns(self, step: int) -> tuple[str, ...]:
        both = ("generator", "discriminator")
        return both if self.same_batch else both[step % 2 :][:1]

    def averages(self, name: str) -> bool:
        return name.startswith("generator.")

    def losses(self, batch: Images, progress: Progress) -> dict[str, Tensor]:
        fake = self.generator(batch.lr)
        if progress.turn == "generator":
            distance, fooled = F.l1_loss(fake, batch.hr), -self.discriminator(fake).mean()
            return {"total": distance + 0.1 * fooled, "l1": distance.detach(), "fooled": fooled.detach()}
        real = F.relu(1 - self.discriminator(batch.hr)).mean()
        made = F.relu(1 + self.discriminator(fake.detach())).mean()
        total = real + made
        return {"total": total * float("nan") if progress.step == self.poison else total, "real": real.detach()}


class Memory:
    """Log that remembers."""

    def __init__(self):
        self.rows: list[tuple[dict, int]] = []

    def scalars(self, values: dict, step: int) -> None:
        self.rows.append((values, step))

    def resume_from(self, step: int) -> None: ...


def make_trainer(task: Task, folder: Path, optim: OptimConfig = OPTIM, run: RunConfig = RUN) -> Trainer:
    accelerator = make_accelerator(run, some_get_no_gradient=True)
    return Trainer("tiny", task, TrainingData(RandomImages(), collate), optim, run, folder, Memory(), accelerator)


def main(out: str, same_batch: str) -> None:
    """Train and write the losses of every step, in the main process."""
    trainer = make_trainer(TinyGAN(same_batch == "both"), Path(out))
    trainer.fit()
    if trainer.accelerator.is_main_process:
        rows = [{k: v for k, v in row.items() if k.startswith("train/")} for row, _ in trainer.log.rows]
        weights = [value.flatten().tolist() for value in trainer.task.state_dict().values()]
        Path(out, "losses.json").write_text(json.dumps({"rows": [row for row in rows if row], "weights": weights}))


if __name__ == "__main__":
    main(*sys.argv[1:])
