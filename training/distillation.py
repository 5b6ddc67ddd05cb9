"""The output of a frozen teacher for HR images is the target of a detector that gets other images of the same scenes.

Needs no labels. Features: the task-driven perceptual term of SR4IR (Kim et al. 2024, arXiv:2404.01692) and feature
distillation (FitNets, Romero et al. 2015, arXiv:1412.6550). Outputs: knowledge distillation (Hinton et al. 2015,
arXiv:1503.02531), for box distributions as in LD (Zheng et al. 2022, arXiv:2102.12252).
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.detector_output import float32
from models.detector_yolo import YoloDetector
from utils.errors import UserError
from utils.losses import feature_distance, output_distance


class Distillation:
    """Distance of a detector from its teacher. No module, so that the teacher is in no checkpoint and no average.

    It is taken over the whole canvas: a detector sees the padding too, and must find nothing there.

    Args:
        teacher: detector on the device, frozen and in evaluation mode; may be the trained system's own, if frozen.
        features: weight of the distance of the neck's features (the levels that enter the head).
        outputs: weight of the distance of class scores and boxes.

    Raises:
        ValueError: the teacher is not frozen.
    """

    def __init__(self, teacher: YoloDetector, features: float, outputs: float):
        if not teacher.frozen:
            raise UserError("distillation: the teacher is not frozen; call freeze() first")
        self.teacher, self.features, self.outputs = teacher, features, outputs

    @torch.no_grad()
    def target(self, hr: Tensor) -> dict:
        """The teacher's `YoloDetector.raw` of HR images (B, 3, H, W) in [0, 1]."""
        target = self.teacher.raw(hr, one2one=False)
        return target.get("one2many", target)

    def __call__(self, raw: dict, target: dict) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted sum with gradient, and the terms without.

        Args:
            raw: `YoloDetector.raw` of the detector that learns.
            target: `target` of the HR images of the same scenes.
        """
        raw = raw.get("one2many", raw)  # what `predict` decodes
        total, terms = raw["boxes"].new_zeros((), dtype=torch.float32), {}
        if self.features > 0:
            distance = feature_distance(raw["feats"], target["feats"])
            total, terms["distill"] = total + self.features * distance, distance.detach()
        if self.outputs > 0:
            own, wanted = float32(raw), float32(target)
            distance = output_distance(own["scores"], own["boxes"], wanted["scores"], wanted["boxes"])
            total, terms["distill_outputs"] = total + self.outputs * distance, distance.detach()
        return total, terms
