"""The rows of the comparison table: each is one way from an image to boxes, with its cost in MACs and parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from data.detection import DetectionBatch
from data.letterbox import GREY
from evaluation.oracle_mask import OracleMask
from evaluation.row_key import RowKey
from models.conditional_cost import sr_macs
from models.conditional_sr import ConditionalOutput, ConditionalSR
from models.detector_yolo import YoloDetector
from models.mask_policy import MaskPolicy
from models.sliced_detection import SlicedDetector
from models.system import ConditionalSRDetector
from utils.flops_counter import count_macs_at, count_parameters

LEARNED = MaskPolicy("learned")


@dataclass(frozen=True)
class Row:
    """One way from an image to boxes.

    Args:
        key: which row it is.
        detector: finds the boxes.
        system: front end with the same detector; None shows the image to the detector as it is.
        policy: mask policy of a conditional front end, or the control that knows the ground truth.
        sees_hr: the row gets the HR image instead of the LR image.
        sliced: sliced inference with the same detector, instead of a system.
    """

    key: RowKey
    detector: YoloDetector
    system: ConditionalSRDetector | None = None
    policy: MaskPolicy | OracleMask = LEARNED
    sees_hr: bool = False
    sliced: SlicedDetector | None = None

    @property
    def name(self) -> str:
        return self.key.name

    @property
    def patch(self) -> int | None:
        """Side of a mask patch in LR pixels, where the row has masks."""
        return self.system.front.patch if self.conditional else None

    @property
    def conditional(self) -> bool:
        return self.system is not None and isinstance(self.system.front, ConditionalSR)

    @property
    def front(self) -> nn.Module | None:
        """What makes the detector's input; None shows it the image as it is."""
        return self.sliced.slicer if self.sliced is not None else self.system and self.system.front

    def images(self, batch: DetectionBatch) -> Tensor:
        """What the row gets to see, (B, 3, h, w) or (B, 3, H, W) in [0, 1]."""
        return batch.hr if self.sees_hr else batch.lr

    def policy_for(self, batch: DetectionBatch) -> MaskPolicy | OracleMask:
        """The mask policy for this batch, whose ground truth the oracle is told."""
        return self.policy.told(batch, self.patch) if isinstance(self.policy, OracleMask) else self.policy

    def upscale(
        self, images: Tensor, policy: MaskPolicy | OracleMask, content: Tensor | None = None
    ) -> ConditionalOutput | Tensor:
        """The front end alone; arguments as `detect`."""
        return self.system.upscale(images, policy, content) if self.sliced is None else self.sliced.upscale(images)

    def detect(
        self,
        images: Tensor,
        factor: int,
        conf: float,
        iou: float,
        max_det: int,
        policy: MaskPolicy | OracleMask | None = None,
        content: Tensor | None = None,
    ) -> tuple[list[Tensor], ConditionalOutput | None]:
        """Boxes per image (n, 6) in HR canvas pixels, and what the front end made.

        Args:
            images: as from `images`.
            factor: HR canvas pixels per image pixel where there is no front end.
            conf, iou, max_det: see YoloDetector.predict.
            policy: as from `policy_for`; None takes the row's own.
            content: which part of LR images is no padding, see models/content.py.
        """
        if self.sliced is not None:
            return self.sliced.predict(images, conf, iou, max_det), None
        if self.system is not None:
            return self.system.predict(images, policy or self.policy, conf, iou, max_det, content)
        height, width = self.input_size(*images.shape[-2:])
        padded = F.pad(images, (0, width - images.shape[-1], 0, height - images.shape[-2]), value=GREY / 255)
        found = self.detector.predict(padded, conf, iou, max_det)
        return [boxes * boxes.new_tensor([factor] * 4 + [1, 1]) for boxes in found], None

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the detector's input for an image of height x width."""
        if self.front is not None:
            return height * self.front.scale, width * self.front.scale
        stride = self.detector.stride
        return -(-height // stride) * stride, -(-width // stride) * stride

    def detector_inputs(self, height: int, width: int) -> int:
        """How many inputs the detector gets for one image of height x width."""
        return 1 if self.sliced is None else len(self.sliced.slicer.windows(height, width))

    def parameters_run(self, height: int, width: int, patches_per_image: list[int]) -> int:
        """Parameters of all networks that run: SR_Quality where any patch is kept, SR_Fast where any is not.

        Arguments as `MacCounter.front`.
        """
        parts: list[nn.Module] = [self.detector]
        if self.conditional:
            front = self.system.front
            patches = math.prod(front.masker.grid(height, width))
            parts += [front.sr_fast] if any(count < patches for count in patches_per_image) else []
            parts += [front.masker] if self.policy.needs_masker else []
            parts += [front.sr_quality] if any(patches_per_image) else []
        elif self.system is not None:
            parts += [self.system.front]
        return count_parameters(nn.ModuleList(parts))  # a stem that two networks share counts once


class MacCounter:
    """Counts MACs, each network and size once."""

    def __init__(self):
        self.known: dict[tuple, int] = {}

    def network(self, network: nn.Module, height: int, width: int) -> int:
        """MACs of a network for one image."""
        return self._once((network, height, width), lambda: count_macs_at(network, height, width))

    def front(self, row: Row, height: int, width: int, patches_per_image: list[int]) -> float | None:
        """MACs that the row's front end executes for an LR image, the mean over the split; None without a front end.

        Args:
            row: the row.
            height, width: LR pixels.
            patches_per_image: on how many patches of every image SR_Quality runs, where the front end is conditional.
        """
        if row.front is None:
            return None
        if not row.conditional:
            return float(self.network(row.front, height, width))
        front, masker = row.system.front, row.policy.needs_masker
        costs = [
            self._once((front, masker, height, width, count), lambda n=count: sr_macs(front, height, width, n, masker))
            for count in patches_per_image
        ]
        return sum(costs) / len(costs)

    def detector(self, row: Row, height: int, width: int) -> int:
        """MACs that the row's detector executes for an image of height x width."""
        return row.detector_inputs(height, width) * self.network(row.detector, *row.input_size(height, width))

    def _once(self, key: tuple, count: Callable[[], int]) -> int:
        if key not in self.known:
            self.known[key] = count()
        return self.known[key]
