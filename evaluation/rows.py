"""The rows of the comparison table: a method under a mask policy, and the parameters that run in it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from data.detection_batch import DetectionBatch
from evaluation.oracle_mask import OracleMask
from evaluation.row_key import RowKey
from models.mask_policy import MaskPolicy
from models.method import Method
from utils.flops_counter import count_parameters

LEARNED = MaskPolicy("learned")


@dataclass(frozen=True)
class Row:
    """One way from an image to boxes, and under which policy.

    Args:
        key: which row it is.
        method: finds the boxes.
        policy: mask policy where the method has masks, or the control that knows the ground truth.
    """

    key: RowKey
    method: Method
    policy: MaskPolicy | OracleMask = LEARNED

    @property
    def name(self) -> str:
        return self.key.name

    @property
    def patch(self) -> int | None:
        """Side of a mask patch in LR pixels, where the row has masks."""
        return self.method.patch

    @property
    def conditional(self) -> bool:
        """Whether the row has masks."""
        return self.method.patch is not None

    def images(self, batch: DetectionBatch) -> Tensor:
        """What the row gets to see, (B, 3, h, w) or (B, 3, H, W) in [0, 1]."""
        return batch.hr if self.method.sees_hr else batch.lr

    def policy_for(self, batch: DetectionBatch) -> MaskPolicy | OracleMask:
        """The mask policy for this batch, whose ground truth the oracle knows."""
        return self.policy.for_batch(batch, self.patch) if isinstance(self.policy, OracleMask) else self.policy

    def parameters_run(self, height: int, width: int, patches_per_image: list[int]) -> int:
        """Parameters of all networks that run: SR_Quality where any patch is kept, SR_Fast where any is not.

        Arguments as `MacCounter.front`.
        """
        run = self.method.networks_run(height, width, patches_per_image, self.policy.needs_masker)
        return count_parameters(nn.ModuleList(run))  # a stem that two networks share counts once
