"""What trains a Latent Modulated Function: L1 at random pixels of the SR image, each image of its own scale."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from configs.schema import OptimConfig
from models.lmf.network import LMF
from training.task import MAIN, OptimizerSpec, Progress, Task
from utils.device import sent
from utils.errors import UserError
from utils.optimizer_utils import decay_groups

STREAM = 1  # other numbers than those that chose the patch


class QueryTask(Task):
    """L1 at `queries` random HR pixels of each pair (He & Jin 2024, section 4.1).

    The pixels are a pure function of (seed, epoch, sample index), so a resumed run draws the same.

    Args:
        network: LMF.
        queries: HR pixels of a pair; the paper takes as many as the LR patch has: 48 * 48, LM-CiaoSR 64 * 64.
        seed: seed of the run.
        name: of the network in the log.
    """

    def __init__(self, network: LMF, queries: int = 2304, seed: int = 0, name: str = "sr"):
        super().__init__()
        self.network, self.queries, self.seed, self.name = network, queries, seed, name

    def optimizers(self, optim: OptimConfig) -> dict[str, OptimizerSpec]:
        groups = decay_groups(self.name, self.network.parameters(), optim.lr, optim.weight_decay)
        return {MAIN: OptimizerSpec(groups, optim)}

    def losses(self, batch, progress: Progress | None = None) -> dict[str, Tensor]:
        """Named losses of a batch; "total" carries the gradient.

        Args:
            batch: has `lr` (B, 3, h, w) and `hr`, both in [0, 1], `indices` (B) and `epoch`. `hr` is (B, 3, H, W), or a
                list of (3, H_i, W_i) where every pair has its own scale.

        Raises:
            ValueError: an HR patch has fewer pixels than are to be drawn.
        """
        sizes, device = torch.tensor([hr.shape[-2:] for hr in batch.hr]), batch.lr.device
        drawn = [
            self.draw(int(index), batch.epoch, int(pixels))
            for index, pixels in zip(batch.indices, sizes.prod(1), strict=True)
        ]
        pixels = sent(torch.stack(drawn), device)  # (B, Q)
        sizes = sent(sizes, device)
        targets = torch.stack([hr.flatten(1)[:, own].T for hr, own in zip(batch.hr, pixels, strict=True)])  # (B, Q, 3)
        widths = sizes[:, 1:]
        sr = self.network.sample(batch.lr, pixels // widths, pixels % widths, sizes)
        loss = F.l1_loss(sr.float(), targets)
        return {"total": loss, "l1": loss.detach()}

    def draw(self, index: int, epoch: int, pixels: int) -> Tensor:
        """`queries` different pixels of `pixels`, int64."""
        if pixels < self.queries:
            raise UserError(
                f"an HR patch has {pixels} pixels, but {self.queries} queries are to be drawn; lower queries or "
                "enlarge the patch"
            )
        rng = np.random.default_rng((self.seed, epoch, index, STREAM))
        return torch.from_numpy(rng.choice(pixels, self.queries, replace=False))
