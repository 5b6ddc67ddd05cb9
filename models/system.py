"""The whole way as one module: LR image -> super-resolved image -> boxes.

A system rebuilds itself from its `spec`, so a checkpoint needs no YAML beside it; see loading/systems.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.calls import EAGER, Calls
from models.detector_input import DetectorInput
from models.device_constants import on_device
from models.front_end import ConditionalOutput, FrontEnd, Policy, Preparation
from models.method import Boxes, Detector, Network
from utils.flops_counter import count_macs_at


class ConditionalSRDetector(nn.Module):
    """LR images in, boxes out.

    Args:
        front: makes super-resolved images (B, 3, s*h, s*w) of LR images (B, 3, h, w) in [0, 1].
        detector: detector on the super-resolved image.
        calls: how the two are called.
        upscale: size of the detector's input beyond that of the super-resolved image, at least 1.

    Raises:
        UserError: `upscale` is below 1.
    """

    def __init__(self, front: FrontEnd, detector: Detector, calls: Calls = EAGER, upscale: float = 1):
        super().__init__()
        self.front = front
        self.detector = detector
        self.calls = calls
        self.shown = DetectorInput(upscale, detector.stride, fill=front.zoom * upscale != 1)

    @property
    def scale(self) -> int:
        """HR canvas pixels per pixel of the images that the system takes."""
        return round(self.front.scale / self.front.zoom)

    @property
    def zoom(self) -> float:
        """Pixels of the super-resolved image per HR canvas pixel."""
        return self.front.zoom

    @property
    def upscale(self) -> float:
        """Size of the detector's input beyond that of the super-resolved image."""
        return self.shown.upscale

    @property
    def sees_hr(self) -> bool:
        """Whether the system takes HR images instead of LR images."""
        return self.front.sees_hr

    @property
    def patch(self) -> int | None:
        """Side of a mask patch in LR pixels; None where there are no masks."""
        return self.front.patch

    def images(self, batch) -> Tensor:
        """What the system takes of a batch, in [0, 1]: LR images (B, 3, h, w), or HR images."""
        return batch.hr if self.sees_hr else batch.lr

    @property
    def spec(self) -> dict:
        args = {"front": self.front.spec, "detector": self.detector.spec["args"]}
        args |= {"upscale": self.upscale} if self.upscale != 1 else {}
        return {"name": "conditional_sr_yolo", "args": args}

    def with_execution(self, **changes) -> ConditionalSRDetector:
        """The same system, its weights shared, with other fields of its front end's `Execution`.

        Raises:
            UserError: the front end runs on whole images.
        """
        system = ConditionalSRDetector(
            self.front.with_execution(**changes), self.detector, self.calls.fresh(), self.upscale
        )
        system.training = self.training
        return system

    def with_seed(self, seed: int) -> ConditionalSRDetector:
        """The same system, its weights shared, whose SR networks draw the noise of this seed."""
        system = ConditionalSRDetector(self.front.with_seed(seed), self.detector, self.calls.fresh(), self.upscale)
        system.training = self.training
        return system

    def super_resolve(self, images: Tensor, policy: Policy, content: Tensor | None = None) -> ConditionalOutput:
        """Super-resolve without gradient. (B, 3, h, w) -> sr (B, 3, s*h, s*w) in [0, 1]; see `FrontEnd.infer`."""
        return self.calls.super_resolve(self.front, images, policy, content)

    def predict(
        self,
        images: Tensor,
        policy: Policy,
        conf: float = 0.25,
        iou: float = 0.7,
        max_det: int = 300,
        content: Tensor | None = None,
    ) -> tuple[Boxes, ConditionalOutput]:
        """Boxes per image (n, 6): x1, y1, x2, y2 in HR canvas pixels, score, class; and what the front end made."""
        limits, sr_size = (conf, iou, max_det), [side * self.front.scale for side in images.shape[-2:]]
        if self.shown.keeps(*sr_size):
            found, output = self.calls.predict(self.front, self.detector, images, policy, *limits, content)
            return self._on_canvas(found), output
        output = self.super_resolve(images, policy, content)
        return self.detect(output.sr, *limits), output

    def detect(self, sr: Tensor, conf: float = 0.25, iou: float = 0.7, max_det: int = 300, **choice) -> Boxes:
        """Boxes per image as from `predict`, in what `super_resolve` made; `choice`: classes, see `YoloDetector`."""
        return self._on_canvas(self.calls.detect(self.detector, self.shown(sr), conf, iou, max_det, **choice))

    def _on_canvas(self, found: Boxes) -> Boxes:
        """From pixels of the detector's input to those of the HR canvas."""
        factor = self.zoom * self.upscale
        if factor == 1:
            return found
        divisor = torch.tensor([factor] * 4 + [1.0, 1.0])
        return [boxes / on_device(divisor, boxes.device) for boxes in found]

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the detector's input for an image of height x width."""
        return self.shown.size(height * self.front.scale, width * self.front.scale)

    def detector_inputs(self, height: int, width: int) -> int:
        return 1

    def front_macs(self, height: int, width: int, patches: int, masker: bool = True) -> int:
        """MACs of the front end, and of enlarging what it makes, for one image; see `FrontEnd.macs`."""
        made = self.front.macs(height, width, patches, masker)
        return made + count_macs_at(self.shown, height * self.front.scale, width * self.front.scale)

    def networks_run(self, height: int, width: int, patches: Sequence[int], masker: bool = True) -> list[Network]:
        """The networks that run on images of this size, the detector among them; see `FrontEnd.networks_run`."""
        return [self.detector, *self.front.networks_run(height, width, patches, masker)]

    def with_detector(self, detector: Detector, preparation: Preparation) -> ConditionalSRDetector:
        """Inference copy around the inference copy of the detector."""
        return ConditionalSRDetector(
            self.front.prepared(preparation), detector, preparation.calls(), self.upscale
        ).eval()
