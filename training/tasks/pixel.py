"""An SR network learns to reproduce HR patches (stage 2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from configs.schema import OptimConfig
from training.task import MAIN, OptimizerSpec, Progress, Task
from utils.losses import charbonnier
from utils.optimizer_utils import decay_groups


class PixelTask(Task):
    """Distance between the super-resolved and the HR patch.

    Args:
        network: SR network, forward(lr) or forward(lr, size).
        pixel: "l1" (Lim et al. 2017) or "charbonnier" (Lai et al. 2017).
        epsilon: epsilon of Charbonnier.
        perceptual: distance of images (B, 3, H, W) -> (B,), already on the device; None leaves the term out.
        weight: of the perceptual term.
        name: of the network in the log.
    """

    def __init__(
        self,
        network: nn.Module,
        pixel: str = "l1",
        epsilon: float = 1e-3,
        perceptual: nn.Module | None = None,
        weight: float = 0.0,
        name: str = "sr",
    ):
        super().__init__()
        self.network, self.pixel, self.epsilon, self.weight, self.name = network, pixel, epsilon, weight, name
        self.arbitrary = network.capabilities.takes_size
        # In a tuple, because its fixed weights belong neither into the checkpoints nor into the average.
        self.perceptual = None if perceptual is None else (perceptual,)

    def optimizers(self, optim: OptimConfig) -> dict[str, OptimizerSpec]:
        groups = decay_groups(self.name, self.network.parameters(), optim.lr, optim.weight_decay)
        return {MAIN: OptimizerSpec(groups, optim)}

    def losses(self, batch, progress: Progress) -> dict[str, Tensor]:
        sr = self.network(batch.lr, tuple(batch.hr.shape[-2:])) if self.arbitrary else self.network(batch.lr)
        sr = sr.float()
        loss = F.l1_loss(sr, batch.hr) if self.pixel == "l1" else charbonnier(sr, batch.hr, self.epsilon)
        losses = {self.pixel: loss.detach()}
        if self.perceptual is not None:
            distance = self.perceptual[0](sr, batch.hr).mean()
            losses["perceptual"] = distance.detach()
            loss = loss + self.weight * distance
        return {"total": loss} | losses
