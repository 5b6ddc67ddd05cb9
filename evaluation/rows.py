"""The rows of the comparison table: each is one way from an image to boxes, with its cost in MACs and parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from data.detection import DetectionBatch
from evaluation.oracle_mask import OracleMask
from models.detector_yolo import YoloDetector
from models.front_end import ConditionalOutput
from models.mask_policy import MaskPolicy
from models.sliced_detection import SlicedDetector
from models.system import ConditionalSRDetector
from utils.convert import GREY
from utils.flops_counter import count_macs_at, count_parameters

LEARNED = MaskPolicy("learned")


@dataclass(frozen=True)
class Row:
    """One way from an image to boxes.

    Args:
        name: of the row.
        detector: finds the boxes.
        system: front end with the same detector; None shows the image to the detector as it is.
        policy: mask policy of a conditional front end, or the control that knows the ground truth.
        sees_hr: the row gets the HR image instead of the LR image.
        sliced: sliced inference with the same detector, instead of a system.
    """

    name: str
    detector: YoloDetector
    system: ConditionalSRDetector | None = None
    policy: MaskPolicy | OracleMask = LEARNED
    sees_hr: bool = False
    sliced: SlicedDetector | None = None

    @property
    def patch(self) -> int | None:
        """Side of a mask patch in LR pixels, where the row has masks."""
        return self.system.front.patch if self.conditional else None

    @property
    def conditional(self) -> bool:
        return self.system is not None and self.system.patch is not None

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
    ) -> ConditionalOutput:
        """The front end alone; arguments as `detect`."""
        return (self.system if self.sliced is None else self.sliced).upscale(images, policy, content)

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
            return self.sliced.predict(images, policy or self.policy, conf, iou, max_det)
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
        method = self.system or self.sliced
        masker = self.policy.needs_masker
        parts = [self.detector] if method is None else method.networks_run(height, width, patches_per_image, masker)
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
        method = row.system or row.sliced
        if method is None:
            return None
        masker, counts = row.policy.needs_masker, patches_per_image if row.conditional else [0]
        costs = [
            self._once(
                (row.front, masker, height, width, count), lambda n=count: method.front_macs(height, width, n, masker)
            )
            for count in counts
        ]
        return sum(costs) / len(costs)

    def detector(self, row: Row, height: int, width: int) -> int:
        """MACs that the row's detector executes for an image of height x width."""
        return row.detector_inputs(height, width) * self.network(row.detector, *row.input_size(height, width))

    def _once(self, key: tuple, count: Callable[[], int]) -> int:
        if key not in self.known:
            self.known[key] = count()
        return self.known[key]
