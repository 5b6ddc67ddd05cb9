"""A detector learns from slices of bicubic images, as sliced inference will show them to it (stage 3, `slices`)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from configs.schema import OptimConfig
from configs.stage3_schema import LossConfig
from data.augment import clip_boxes, still_there
from models.sliced_detection import Slicer, Window
from models.system import ConditionalSRDetector
from training.task import MAIN, OptimizerSpec, Progress, Task
from utils.device import sent
from utils.optimizer_utils import stage3_groups

STREAM = 2  # keeps these draws apart from others of the same sample


class SlicesTask(Task):
    """Every image of a batch gives as many slices as inference cuts, each at a place drawn for it, and the whole image
    where inference looks at that too; all enlarged to the HR canvas. The detection loss is the only term.

    A slice is as large as in inference. Its boxes are cut at its edges, and those of which little is left are dropped,
    as in augmentation. Places are a pure function of (seed, epoch, sample index).

    Args:
        system: bicubic front end and detector.
        weights: of the loss terms, of which only `det` counts.
        slicer: how inference cuts.
        seed: of the places.
    """

    on_bar = ("det",)

    def __init__(self, system: ConditionalSRDetector, weights: LossConfig, slicer: Slicer, seed: int = 0):
        super().__init__()
        self.system, self.weights, self.slicer, self.seed = system, weights, slicer, seed

    def optimizers(self, optim: OptimConfig) -> dict[str, OptimizerSpec]:
        return {MAIN: OptimizerSpec(stage3_groups(self.system, optim), optim)}

    def start_epoch(self, epoch: int) -> None:
        self.system.detector.set_epoch(epoch)

    def losses(self, batch, progress: Progress) -> dict[str, Tensor]:
        windows = [self.windows(batch, int(index)) for index in batch.indices]
        images = torch.cat([self.slicer.cut(lr[None], own) for lr, own in zip(batch.lr, windows, strict=True)])
        detection = self.system.detector.loss(images, *self.targets(batch, windows))
        total = self.weights.det * detection["det"]
        return {"total": total} | {name: value.detach() for name, value in detection.items()}

    def windows(self, batch, index: int) -> list[Window]:
        """(top, left, height, width) in LR pixels of a sample's windows, the whole image last."""
        height, width = batch.lr.shape[-2:]
        grid, rng = self.slicer.windows(height, width), np.random.default_rng((self.seed, batch.epoch, index, STREAM))
        places = [(int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))) for _, _, h, w in grid]
        return [(*place, h, w) for place, (_, _, h, w) in zip(places, grid, strict=True)]

    def targets(self, batch, windows: list[list[Window]]) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes as shares of their windows, classes and rows of the images that `Slicer.cut` makes, one after the
        other."""
        (height, width), (canvas_height, canvas_width) = batch.lr.shape[-2:], batch.canvas
        # Both cross from a GPU at once.
        host = torch.cat([batch.boxes.double(), batch.image_index[:, None].double()], 1).cpu().numpy()
        centres, sides = host[:, :4].reshape(-1, 2, 2).swapaxes(0, 1)
        corners = np.concatenate([centres - sides / 2, centres + sides / 2], 1) * [width, height, width, height]
        rows, found, kept = host[:, 4], [], []
        for image, own in enumerate(windows):
            for number, (top, left, h, w) in enumerate(own):
                mine = np.flatnonzero(rows == image)
                grown = [canvas_width / w, canvas_height / h] * 2
                before = (corners[mine] - [left, top, left, top]) * grown  # in pixels of the enlarged window
                after = clip_boxes(before, canvas_height, canvas_width)
                there = still_there(before, after)
                after = after[there] / [canvas_width, canvas_height, canvas_width, canvas_height]
                found.append(np.concatenate([(after[:, :2] + after[:, 2:]) / 2, after[:, 2:] - after[:, :2]], 1))
                kept.append(np.stack([mine[there], np.full(there.sum(), image * len(own) + number)], 1))
        device, (index, row) = batch.boxes.device, torch.from_numpy(np.concatenate(kept)).unbind(1)
        boxes = torch.from_numpy(np.concatenate(found)).float().clamp(0, 1)
        return sent(boxes, device), batch.classes[sent(index.contiguous(), device)], sent(row.contiguous(), device)
