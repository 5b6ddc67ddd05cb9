"""How a method calls its front end and its detector: as they are here, as replayed graphs on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from models.front_end import ConditionalOutput, FrontEnd, Policy
    from models.method import Boxes, Detector


class Calls(Protocol):
    """The two halves of a call, and the whole of it; see `Method` for arguments and results."""

    def super_resolve(
        self, front: FrontEnd, images: Tensor, policy: Policy, content: Tensor | None
    ) -> ConditionalOutput:
        """See `FrontEnd.infer`."""

    def detect(self, detector: Detector, images: Tensor, conf: float, iou: float, max_det: int, **choice) -> Boxes:
        """See `YoloDetector.predict`; the boxes may lie on the CPU."""

    def predict(
        self,
        front: FrontEnd,
        detector: Detector,
        images: Tensor,
        policy: Policy,
        conf: float,
        iou: float,
        max_det: int,
        content: Tensor | None,
    ) -> tuple[Boxes, ConditionalOutput]:
        """Both; boxes, mask and probability may lie on the CPU."""

    def fresh(self) -> Calls:
        """The same for another front end or detector."""


class EagerCalls:
    """One after the other, as they are."""

    def super_resolve(
        self, front: FrontEnd, images: Tensor, policy: Policy, content: Tensor | None
    ) -> ConditionalOutput:
        return front.infer(images, policy, content)

    def detect(self, detector: Detector, images: Tensor, conf: float, iou: float, max_det: int, **choice) -> Boxes:
        return detector.predict(images, conf=conf, iou=iou, max_det=max_det, **choice)

    def predict(
        self,
        front: FrontEnd,
        detector: Detector,
        images: Tensor,
        policy: Policy,
        conf: float,
        iou: float,
        max_det: int,
        content: Tensor | None,
    ) -> tuple[Boxes, ConditionalOutput]:
        output = self.super_resolve(front, images, policy, content)
        return self.detect(detector, output.sr, conf, iou, max_det), output

    def fresh(self) -> EagerCalls:
        return self


EAGER = EagerCalls()
