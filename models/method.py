"""A method is one way from an image to boxes: the same protocol in prediction, evaluation, API and export.

There are a detector alone, on the image as it is (here), a front end before a detector (models/system.py), and slices
of the image before a detector (models/sliced_detection.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from models.calls import EAGER, Calls
from models.detector_input import filled
from models.device_constants import on_device
from models.front_end import ConditionalOutput, Policy, Preparation

Boxes = list[Tensor]


class Detector(Protocol):
    """What a method asks of its detector; see `YoloDetector`."""

    stride: int
    names: tuple[str, ...]
    dtype: torch.dtype | None
    spec: dict

    def predict(self, images: Tensor, conf: float = ..., iou: float = ..., max_det: int = ..., **choice) -> Boxes: ...


Network = nn.Module | Detector


class Method(Protocol):
    """One way from an image to boxes.

    Attributes:
        detector: finds the boxes.
        sees_hr: it takes HR images instead of LR images.
        patch: side of a mask patch in LR pixels; None where there are no masks.
        front: what makes the detector's input; None shows it the image as it is.
    """

    detector: Detector
    front: nn.Module | None
    sees_hr: bool
    patch: int | None

    def super_resolve(self, images: Tensor, policy: Policy, content: Tensor | None = None) -> ConditionalOutput:
        """What the detector gets, made of images (B, 3, h, w) in [0, 1]; arguments as `FrontEnd.infer`."""

    def predict(
        self,
        images: Tensor,
        policy: Policy,
        conf: float = 0.25,
        iou: float = 0.7,
        max_det: int = 300,
        content: Tensor | None = None,
    ) -> tuple[Boxes, ConditionalOutput | None]:
        """Boxes per image (n, 6), best first: x1, y1, x2, y2 in HR canvas pixels, score, class; and what the front end
        made of the whole image, None where none did.

        Args:
            images, policy, content: as in `super_resolve`.
            conf, iou, max_det: see YoloDetector.predict.
        """

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the detector's input for an image of height x width."""

    def detector_inputs(self, height: int, width: int) -> int:
        """How many inputs the detector gets for one image of this size."""

    def front_macs(self, height: int, width: int, patches: int, masker: bool = True) -> int | None:
        """MACs of what comes before the detector, for one image; None where nothing does. See `FrontEnd.macs`."""

    def networks_run(self, height: int, width: int, patches: Sequence[int], masker: bool = True) -> list[Network]:
        """The networks that run on images of this size, the detector among them. See `FrontEnd.networks_run`."""

    def with_detector(self, detector: Detector, preparation: Preparation) -> Method:
        """Inference copy around the inference copy of the detector."""


class DetectorAlone(nn.Module):
    """The detector on the image as it is, filled up with grey to what the detector takes.

    Args:
        detector: finds the boxes.
        factor: HR canvas pixels per pixel of the image.
        sees_hr: the images are HR images.
        calls: how the detector is called.
    """

    patch = front = None

    def __init__(self, detector: Detector, factor: int, sees_hr: bool, calls: Calls = EAGER):
        super().__init__()
        self.detector, self.factor, self.sees_hr, self.calls = detector, factor, sees_hr, calls

    def super_resolve(self, images: Tensor, policy: Policy, content: Tensor | None = None) -> ConditionalOutput:
        """The image with grey at the bottom and right; `policy` and `content` are not looked at."""
        return ConditionalOutput(filled(images, self.detector.stride))

    def predict(
        self,
        images: Tensor,
        policy: Policy,
        conf: float = 0.25,
        iou: float = 0.7,
        max_det: int = 300,
        content: Tensor | None = None,
    ) -> tuple[Boxes, None]:
        """See `Method.predict`."""
        found = self.calls.detect(self.detector, self.super_resolve(images, policy).sr, conf, iou, max_det)
        factor = torch.tensor([self.factor] * 4 + [1.0, 1.0])
        return [boxes * on_device(factor, boxes.device) for boxes in found], None

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        stride = self.detector.stride
        return -(-height // stride) * stride, -(-width // stride) * stride

    def detector_inputs(self, height: int, width: int) -> int:
        return 1

    def front_macs(self, height: int, width: int, patches: int, masker: bool = True) -> None:
        return None

    def networks_run(self, height: int, width: int, patches: Sequence[int], masker: bool = True) -> list[Network]:
        return [self.detector]

    def with_detector(self, detector: Detector, preparation: Preparation) -> DetectorAlone:
        return DetectorAlone(detector, self.factor, self.sees_hr, preparation.calls())
