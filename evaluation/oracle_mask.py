"""The oracle, a control of the evaluation: patches are selected by the ground-truth boxes that they cover.

It tells how much a perfect masker would gain at a kept share. It needs the labels, so it is no mask policy that anybody
could choose at inference; ConditionalSR takes it in place of one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from data.detection import DetectionBatch
from evaluation.detection_eval import canvas_boxes, object_map
from models.masker import patch_grid
from utils.errors import UserError


@dataclass(frozen=True)
class OracleMask:
    """Selects the share of patches of which boxes cover most; equal ones by the masker's score, as `budget` does.

    Args:
        share: of the patches of every image, in [0, 1].
        coverage: of the batch it is asked about, see `patch_coverage`; set by `told`.

    Raises:
        ValueError: the share is outside [0, 1].
    """

    share: float
    coverage: Tensor | None = None

    kind = "oracle"
    needs_masker = True

    def __post_init__(self):
        if not 0 <= self.share <= 1:
            raise UserError(f"oracle: the share {self.share} is outside [0, 1]; correct budgets")

    def told(self, batch: DetectionBatch, patch: int) -> OracleMask:
        """The oracle for one batch; `patch` is the side of a patch in LR pixels."""
        return replace(self, coverage=patch_coverage(batch, patch))

    def select(self, lr: Tensor, logits: Tensor, patch: int) -> Tensor:
        """Bool (B, gh, gw) with exactly round(share * gh * gw) patches of every image.

        Args:
            lr: the batch's LR images (B, 3, h, w).
            logits: masker output (B, 2, gh, gw).
            patch: as given to `told`.

        Raises:
            ValueError: the oracle was not told about this batch.
        """
        shape = (lr.shape[0], *patch_grid(*lr.shape[-2:], patch))
        if self.coverage is None or self.coverage.shape != shape:
            raise UserError(f"oracle: knows no ground truth of a batch with patches {shape}; call told() first")
        score, coverage = (logits[:, 1] - logits[:, 0]).float().flatten(1), self.coverage.flatten(1).to(lr.device)
        by_score = score.argsort(dim=1, descending=True, stable=True)
        by_coverage = coverage.gather(1, by_score).argsort(dim=1, descending=True, stable=True)
        chosen = by_score.gather(1, by_coverage)[:, : round(self.share * score.shape[1])]
        return torch.zeros_like(score, dtype=torch.bool).scatter_(1, chosen, True).view(shape)


def patch_coverage(batch: DetectionBatch, patch: int) -> Tensor:
    """Share of every patch's area inside the image that ground-truth boxes cover together, float32 (B, gh, gw).

    Boxes are rounded outwards to HR canvas pixels, so that no object is too small to count.
    """
    height, width = batch.canvas
    rows, columns = patch_grid(*batch.lr.shape[-2:], patch)
    side = patch * batch.scale
    padding = ((0, rows * side - height), (0, columns * side - width))

    def per_patch(pixels: np.ndarray) -> np.ndarray:
        return np.pad(pixels, padding).reshape(rows, side, columns, side).sum((1, 3), dtype=np.float32)

    area = per_patch(np.ones((height, width), bool))
    # Boxes went through shares of the canvas in float32; 1/100 pixel more must not cover one pixel more.
    maps = [object_map(canvas_boxes(batch, row).round(2), batch.canvas) for row in range(batch.lr.shape[0])]
    return torch.from_numpy(np.stack([per_patch(covered) / area for covered in maps]))
