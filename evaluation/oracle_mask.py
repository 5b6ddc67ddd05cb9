"""The oracle, a control of the evaluation: patches are selected by the ground-truth boxes that they cover.

It tells how much a perfect masker would gain at a kept share. It needs the labels, so it is no mask policy that anybody
could choose at inference; ConditionalSR takes it in place of one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from data.detection_batch import DetectionBatch
from evaluation.detection_eval import canvas_boxes, object_map
from models.content import image_cells, image_patches
from models.mask_policy import mark_first
from models.masker import patch_grid
from utils.errors import UserError


@dataclass(frozen=True)
class OracleMask:
    """Selects the share of patches of which boxes cover most; equal ones by the masker's score, as `budget` does.

    Args:
        share: of the patches of every image, those of the padding apart, in [0, 1].
        coverage: of the batch it is asked about, see `patch_coverage`; set by `for_batch`.

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

    def for_batch(self, batch: DetectionBatch, patch: int) -> OracleMask:
        """The oracle for one batch; `patch` is the side of a patch in LR pixels."""
        return replace(self, coverage=patch_coverage(batch, patch))

    def selects(self, patches: int, image: int) -> None:
        """As `MaskPolicy.selects`; labels of one batch belong in no graph, so the number is read off the mask."""

    def select(self, lr: Tensor, logits: Tensor, patch: int, content: Tensor | None = None) -> Tensor:
        """Bool (B, gh, gw) with exactly round(share * n) of the n patches of every image that hold image.

        Args:
            lr: the batch's LR images (B, 3, h, w).
            logits: masker output (B, 2, gh, gw).
            patch: as given to `for_batch`.
            content: which part of the images is no padding, see models/content.py.

        Raises:
            ValueError: `for_batch` was not called, or with another batch.
        """
        shape = (lr.shape[0], *patch_grid(*lr.shape[-2:], patch))
        if self.coverage is None or self.coverage.shape != shape:
            raise UserError(f"oracle: knows no ground truth of a batch with patches {shape}; call for_batch() first")
        image = image_patches(content, lr.shape[-2:], patch)
        score, coverage = (logits[:, 1] - logits[:, 0]).float().flatten(1), self.coverage.flatten(1).to(lr.device)
        if image is not None:
            coverage = coverage.masked_fill(~image.flatten(1).to(lr.device, non_blocking=True), -1)
        by_score = score.argsort(dim=1, descending=True, stable=True)
        by_coverage = coverage.gather(1, by_score).argsort(dim=1, descending=True, stable=True)
        order = by_score.gather(1, by_coverage)
        return mark_first(order, lambda patches: round(self.share * patches), image).view(shape)


def patch_coverage(batch: DetectionBatch, patch: int) -> Tensor:
    """Share of every patch's area inside the image that ground-truth boxes cover together, float32 (B, gh, gw); 0 in
    the padding.

    Boxes are rounded outwards to HR canvas pixels, so that no object is too small to count.
    """
    height, width = batch.canvas
    rows, columns = patch_grid(*batch.lr.shape[-2:], patch)
    side = patch * batch.scale
    padding = ((0, rows * side - height), (0, columns * side - width))

    def per_patch(pixels: np.ndarray) -> np.ndarray:
        return np.pad(pixels, padding).reshape(rows, side, columns, side).sum((1, 3), dtype=np.float32)

    def coverage(row: int) -> np.ndarray:
        inside = np.ones((height, width), bool)
        if batch.content is not None:
            lr_pixels = image_cells(batch.content[row : row + 1], batch.lr.shape[-2:], 1)[0].numpy()
            inside = lr_pixels.repeat(batch.scale, 0).repeat(batch.scale, 1)
        # Boxes went through shares of the canvas in float32; 1/100 pixel more must not cover one pixel more.
        covered = object_map(canvas_boxes(batch, row).round(2), batch.canvas) & inside
        return per_patch(covered) / np.maximum(per_patch(inside), 1)

    return torch.from_numpy(np.stack([coverage(row) for row in range(batch.lr.shape[0])]))
