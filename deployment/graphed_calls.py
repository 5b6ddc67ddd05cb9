"""From LR image to boxes as one CUDA graph, and one copy to the host at its end.

A budget settles the number of patches beforehand, so every shape is known. Where the device alone knows the number
(learned, threshold) the host waits once for it; a few numbers of windows then serve every mask.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from deployment.cuda_graphs import CapturedCalls, GraphPool
from models.fixed_nms import fixed_nms
from models.front_end import ConditionalOutput, FrontEnd, Policy
from models.mask_policy import CountedMask
from models.method import Boxes

if TYPE_CHECKING:  # SR alone runs without the detector's library
    from models.detector_yolo import YoloDetector

LEAST_CONF = 0.05  # below, too many boxes are candidates for a suppression of fixed size
HEAD = 3  # numbers before the boxes of an image: how many, whether surely greedy, whether the SR image is finite


@dataclass(frozen=True)
class Limits:
    """See `YoloDetector.predict`."""

    conf: float
    iou: float
    max_det: int


class GraphedCalls:
    """See `Calls`; front end and detector lie on a CUDA device, and are the same in every call.

    Args:
        pool: memory that all graphs of a system share.
    """

    def __init__(self, pool: GraphPool):
        self.pool = pool
        self.fronts, self.detectors = CapturedCalls("the front end", pool), CapturedCalls("the detector", pool)
        self.wholes = CapturedCalls("the whole call", pool)

    def fresh(self) -> GraphedCalls:
        return GraphedCalls(self.pool)

    def clear(self) -> None:
        """Let all graphs go, and with them their memory."""
        for calls in (self.fronts, self.detectors, self.wholes):
            calls.clear()

    @torch.no_grad()
    def super_resolve(
        self, front: FrontEnd, images: Tensor, policy: Policy, content: Tensor | None
    ) -> ConditionalOutput:
        policy, known = _settled(front, images, policy, content)

        def run(images: Tensor, *mask: Tensor) -> tuple[Tensor, ...]:
            output = front.infer(images, _with_mask(policy, mask), content)
            return tuple(x for x in (output.sr, output.mask, output.probability) if x is not None)

        sr, *more = self.fronts(_key(policy, content), run, images, *_mask_of(policy))
        mask, probability = (*more, None, None)[:2]
        return ConditionalOutput(sr, mask, probability if known is None else known)

    @torch.no_grad()
    def detect(self, detector: YoloDetector, images: Tensor, conf: float, iou: float, max_det: int, **choice) -> Boxes:
        limits = Limits(conf, iou, max_det)
        if conf < LEAST_CONF or choice:
            return detector.predict(images, conf=conf, iou=iou, max_det=max_det, **choice)

        def run(images: Tensor) -> tuple[Tensor, ...]:
            return (_packed(detector, images, limits),)

        (packed,) = self.detectors(limits, run, images)
        return _boxes(detector, images, packed.cpu(), limits)

    @torch.no_grad()
    def predict(
        self,
        front: FrontEnd,
        detector: YoloDetector,
        images: Tensor,
        policy: Policy,
        conf: float,
        iou: float,
        max_det: int,
        content: Tensor | None,
    ) -> tuple[Boxes, ConditionalOutput]:
        limits = Limits(conf, iou, max_det)
        if conf < LEAST_CONF:
            output = self.super_resolve(front, images, policy, content)
            return self.detect(detector, output.sr, conf, iou, max_det), output
        policy, known = _settled(front, images, policy, content)

        def run(images: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
            output = front.infer(images, _with_mask(policy, inputs), content)
            if inputs:
                output = replace(output, probability=inputs[1] if len(inputs) > 1 else None)
            shown = [x.flatten(1).float() for x in (output.mask, output.probability) if x is not None]
            return output.sr, torch.cat([_packed(detector, output.sr, limits), *shown], 1)

        inputs = (*_mask_of(policy), *(() if known is None else (known,)))
        sr, packed = self.wholes((_key(policy, content), limits), run, images, *inputs)
        host = packed.cpu()  # the one copy
        found, more = host.split([HEAD + 6 * max_det, host.shape[1] - HEAD - 6 * max_det], 1)
        boxes = _boxes(detector, sr, found, limits)
        if front.patch is None:
            return boxes, ConditionalOutput(sr)
        grid = (-(-images.shape[-2] // front.patch), -(-images.shape[-1] // front.patch))
        mask, *probability = (x.unflatten(1, (1, *grid)) for x in more.split(grid[0] * grid[1], 1))
        return boxes, ConditionalOutput(sr, mask, *probability)


def _settled(front: FrontEnd, images: Tensor, policy: Policy, content: Tensor | None) -> tuple[Policy, Tensor | None]:
    """See `ConditionalSR.settled`; without masks there is nothing to settle."""
    return (policy, None) if front.patch is None else front.settled(images, policy, content)


def _mask_of(policy: Policy) -> tuple[Tensor, ...]:
    return (policy.mask,) if isinstance(policy, CountedMask) else ()


def _with_mask(policy: Policy, inputs: tuple[Tensor, ...]) -> Policy:
    """The policy with the mask in the graph's own memory."""
    return replace(policy, mask=inputs[0]) if isinstance(policy, CountedMask) else policy


def _key(policy: Policy, content: Tensor | None) -> Hashable:
    """Equal for calls whose shapes and numbers are equal; where the padding is belongs to the graph."""
    what = policy.numbers if isinstance(policy, CountedMask) else policy
    return what, None if content is None else tuple(content.flatten().tolist())


def _packed(detector: YoloDetector, images: Tensor, limits: Limits) -> Tensor:
    """(B, HEAD + 6 * max_det), one row an image, to cross to the host at once."""
    found = fixed_nms(detector.decoded(images), limits.conf, limits.iou, limits.max_det, max(7680, *images.shape[-2:]))
    finite = torch.isfinite(images).flatten(1).all(1)
    head = torch.stack([found.number.float(), found.sure.float(), finite.float()], 1)
    return torch.cat([head, found.boxes.flatten(1)], 1)


def _boxes(detector: YoloDetector, images: Tensor, rows: Tensor, limits: Limits) -> Boxes:
    """Boxes of what `_packed` made of these images, on the CPU; where that was not sure, as `predict` finds them."""
    if not rows[:, 2].all():
        warnings.warn(
            f"{int((rows[:, 2] == 0).sum())} super-resolved image(s) are not finite, so nothing can be found in them; "
            "compute in fp32 (no --half)",
            stacklevel=4,
        )
    if not rows[:, 1].all():
        return detector.predict(images, conf=limits.conf, iou=limits.iou, max_det=limits.max_det)
    boxes = rows[:, HEAD:].unflatten(1, (limits.max_det, 6))
    return [own[: int(number)] for own, number in zip(boxes, rows[:, 0].tolist(), strict=True)]


def release_graphs(*modules: torch.nn.Module) -> None:
    """Let the graphs of prepared methods go, and give the memory that PyTorch holds back to the device."""
    for module in modules:
        for part in module.modules():
            calls = getattr(part, "calls", None)
            if isinstance(calls, CapturedCalls | GraphedCalls):
                calls.clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
