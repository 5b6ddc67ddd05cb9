"""The weights of the best validation so far, in a file of their own."""

from __future__ import annotations

import math
from pathlib import Path

from torch import nn

from evaluation.sr_eval import mean_psnr
from utils.checkpoint import CheckpointError, load_network, save_network


class BestWeights:
    """Keeps the SR weights with the highest mean PSNR over the validation sets; the first of equals.

    The file itself remembers that PSNR. A resumed run makes some validations again, with the same figures, so the file
    ends as without the interruption.

    Args:
        path: checkpoint to write, of kind sr.
        network: SR network whose weights are in place when `offer` is called.
        meta: what goes into the checkpoint beside epoch, step and metrics.
    """

    def __init__(self, path: Path, network: nn.Module, meta: dict):
        self.path, self.network, self.meta = path, network, meta

    def offer(self, metrics: dict[str, float], epoch: int, step: int) -> bool:
        """Save the network if `metrics` are the best so far; returns whether it did."""
        psnr = mean_psnr(metrics)
        if psnr is None or not psnr > self.stored_psnr():
            return False
        meta = self.meta | {"metrics": metrics, "mean_psnr": psnr, "epochs": epoch + 1, "step": step}
        spec = self.network.spec
        save_network(self.path, "sr", spec["name"], spec["args"], self.network.state_dict(), meta)
        return True

    def stored_psnr(self) -> float:
        """Mean PSNR of the file; minus infinity where there is none, a damaged one, or an infinite PSNR, which files of
        older versions hold if a validation image came out exactly right: no later epoch could be better."""
        try:
            psnr = load_network(self.path, "sr")["meta"]["mean_psnr"]
        except CheckpointError:
            return float("-inf")
        return psnr if math.isfinite(psnr) else float("-inf")
