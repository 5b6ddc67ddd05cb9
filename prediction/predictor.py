"""From native low-resolution images to boxes in their own pixels: padding, super-resolution, detection."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import nullcontext
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, cast

import numpy as np
import torch

from data.sources import Frame, Skipped, group_frames
from deployment.detection_memory import pixels_at_once
from deployment.graphed_calls import release_graphs
from deployment.prepare import prepare_system
from models.conditional_sr import ConditionalSR
from models.front_end import ConditionalOutput
from models.mask_policy import MaskPolicy
from models.masker import patch_grid
from models.patch_reuse import PatchReuse, ReuseOptions
from models.system import ConditionalSRDetector
from prediction.large_images import large_images
from prediction.padding import content_of, pad_images, padded_size, to_image_pixels
from prediction.sr_image import HeldSR, SRImage, SRInParts, in_one
from prediction.stage_times import StageTimes
from utils.convert import to_image, to_tensor
from utils.device import compute_type, is_out_of_memory, sent
from utils.errors import UserError


@dataclass(frozen=True)
class PredictOptions:
    """How to predict, chosen per call.

    Args:
        policy: where SR_Quality runs.
        conf: lowest score, in [0, 1].
        iou: overlap above which non-maximum suppression drops the weaker of two boxes of a class, in [0, 1].
        max_det: most detections per image, at least 1.
        classes: indices of the classes that are kept; None keeps all.
        agnostic_nms: a box drops weaker ones of other classes too.

    Raises:
        UserError: a value out of range.
    """

    policy: MaskPolicy
    conf: float = 0.25
    iou: float = 0.7
    max_det: int = 300
    classes: tuple[int, ...] | None = None
    agnostic_nms: bool = False

    def __post_init__(self):
        for name in ("conf", "iou"):
            value = getattr(self, name)
            if not isinstance(value, Real) or not 0 <= float(value) <= 1:
                raise UserError(f"{name} is {value!r}; give a number from 0 to 1")
        if not isinstance(self.max_det, Integral) or self.max_det < 1:
            raise UserError(f"max_det is {self.max_det!r}; give a whole number, 1 or more")
        if self.classes is not None and not all(isinstance(index, Integral) and index >= 0 for index in self.classes):
            raise UserError(f"classes is {self.classes!r}; give indices of classes, whole numbers from 0")

    @property
    def choice(self) -> dict[str, Any]:
        """Which classes, as `ConditionalSRDetector.detect` takes it; empty for all, which any detector can."""
        if self.classes is None and not self.agnostic_nms:
            return {}
        return {"classes": self.classes, "agnostic": self.agnostic_nms}


@dataclass(frozen=True)
class Prediction:
    """What was found in one image.

    Args:
        boxes: float32 (n, 6), best first: x1, y1, x2, y2 in pixels of the image and inside it, score, class.
        sr: super-resolved image; that of an image that ran in parts is made again where it is asked for.
        mask: bool (ceil(H / patch), ceil(W / patch)), true where SR_Quality ran; None without a masker.
        patch: side of a patch in pixels of the image; None without a masker.
        kept_share: share of the image's patches that SR_Quality ran on; None without a masker.
        reused_share: share of the image's patches that kept the SR of an earlier frame; None without reuse.
        speed: milliseconds of preprocess (padding, to the device), inference (super-resolution, detection with
            non-maximum suppression, boxes to the host) and postprocess (masks to the host), as a share of its batch's.
        parts: in how many overlapping parts the image was detected.
        max_det_reached: there may be more objects than `max_det` let through.
    """

    boxes: np.ndarray
    sr: SRImage
    mask: np.ndarray | None
    patch: int | None
    kept_share: float | None
    speed: dict[str, float]
    reused_share: float | None = None
    parts: int = 1
    max_det_reached: bool = False

    @property
    def ms(self) -> float:
        """Milliseconds of everything but reading and saving."""
        return sum(self.speed.values())

    def sr_image(self) -> np.ndarray:
        """Super-resolved image, uint8 (s * H, s * W, 3)."""
        return self.sr.whole()


class Predictor:
    """Callable on images of one padded size; every image is treated on its own, so batches give what singles give.

    Args:
        system: front end and detector; a copy is prepared for the device.
        device: where to run.
        half: compute in fp16 on CUDA, in bf16 elsewhere.
        memory_mb: about what one image may take besides itself: larger ones run in overlapping parts, see
            prediction/large_images.py; and one call of an SR network, see `prepare_system`.
        backend: see `prepare_system`.
    """

    def __init__(
        self,
        system: ConditionalSRDetector,
        device: torch.device,
        half: bool = False,
        memory_mb: int = 1024,
        backend: str = "native",
    ):
        dtype = compute_type(device, half)
        pixels = pixels_at_once(system.eval(), dtype, memory_mb)
        self.system = prepare_system(system, device, dtype, memory_mb, backend)
        self.device, self.half = device, half
        self.unit = system.detector.stride // math.gcd(system.detector.stride, system.front.scale)
        self.large = large_images(self.system, device, pixels, self.unit)

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """Smallest height and width that hold the image and whose SR sides are multiples of the detector's stride."""
        return padded_size(height, width, self.unit)

    @torch.no_grad()
    def __call__(
        self,
        images: list[np.ndarray],
        options: PredictOptions,
        times: StageTimes | None = None,
        reuse: PatchReuse | None = None,
    ) -> list[Prediction]:
        """Predict.

        Args:
            images: uint8 (H, W, 3) RGB of any size, of equal `padded_size`.
            options: policy and limits.
            times: the stages SR and detection are added, for which the device is waited for between them.
            reuse: what knows the frames before; then there is one image.
        """
        super_resolve: Callable[..., ConditionalOutput] = self.system.super_resolve if reuse is None else reuse
        measure, clock = nullcontext if times is None else times.measure, [time.perf_counter()]
        # By the padded size, which all images of a batch share, so that none depends on another.
        if not self.large.plan.whole(*self.padded_size(*images[0].shape[:2])):
            if reuse is not None:
                warnings.warn(
                    "images that run in parts reuse nothing; raise memory_mb, or leave out reuse", stacklevel=2
                )
            return [self._in_parts(image, options, measure) for image in images]
        with measure("SR"):
            lr = sent(torch.from_numpy(pad_images(images, self.padded_size(*images[0].shape[:2]))), self.device)
            lr = lr.permute(0, 3, 1, 2).float().div(255)
            clock.append(time.perf_counter())
            content = content_of(images, (lr.shape[-2], lr.shape[-1]))
            limits = (options.conf, options.iou, options.max_det)
            at_once = times is None and not options.choice and reuse is None  # which a GPU replays from one graph
            if not at_once:
                output = super_resolve(lr, options.policy, content)
        with measure("detection"):
            if at_once:
                found, output = self.system.predict(lr, options.policy, *limits, content=content)
            else:
                found = self.system.detect(output.sr, *limits, **options.choice)
            boxes = [rows.float().cpu().numpy() for rows in found]
            self._tell_nan(boxes, output.sr)
        clock.append(time.perf_counter())
        masks = [None] * len(images) if output.mask is None else output.mask[:, 0].cpu().numpy() > 0.5
        clock.append(time.perf_counter())
        spent = [1e3 * seconds / len(images) for seconds in np.diff(clock).tolist()]
        speed = dict(zip(("preprocess", "inference", "postprocess"), spent, strict=True))
        rows = zip(images, boxes, output.sr, masks, strict=True)
        kept = None if reuse is None or reuse.kept is None else reuse.kept.cpu().numpy()
        return [self._of_image(*row, speed, options.max_det, kept) for row in rows]

    def reuse(self, options: ReuseOptions) -> PatchReuse:
        """What knows the frames of one video. Raises UserError where the system has no patches that stand alone."""
        if self.system.patch is None:
            raise UserError(
                "reuse: this system has no patches; take one with a masker, or SR_Fast,SR_Quality with --sr"
            )
        return PatchReuse(cast(ConditionalSR, self.system.front), options)

    def _in_parts(self, image: np.ndarray, options: PredictOptions, measure) -> Prediction:
        """Predict in a large image."""
        start = time.perf_counter()
        with measure("SR"):
            mask = self.large.choose(image, options.policy)

        def find(sr: torch.Tensor, most: int) -> torch.Tensor:
            found = self.system.detect(sr, options.conf, options.iou, most, **options.choice)[0]
            self._tell_nan([found], sr)
            return found

        boxes, parts, more = self.large.detect(image, mask, find, options.max_det, measure)
        spent = {"preprocess": 0.0, "inference": 1e3 * (time.perf_counter() - start), "postprocess": 0.0}
        sr = SRInParts(self.large, image, mask)
        if mask is None:
            return Prediction(boxes, sr, None, None, None, spent, None, parts, more)
        kept = mask.numpy()
        return Prediction(boxes, sr, kept, self.system.patch, float(kept.mean()), spent, None, parts, more)

    def _tell_nan(self, boxes: Sequence[Sized], images: torch.Tensor) -> None:
        """Say which super-resolved images hold NaN, in which nothing is found; on a GPU the graphs tell."""
        if self.device.type != "cpu":
            return
        count = sum(not len(rows) and bool(image.isnan().any()) for rows, image in zip(boxes, images, strict=True))
        if count:
            warnings.warn(
                f"{count} super-resolved image(s) hold NaN, so nothing can be found in them; compute in fp32 "
                "(no --half), or use other weights",
                stacklevel=3,
            )

    @torch.no_grad()
    def super_resolve(self, image: np.ndarray, policy: MaskPolicy) -> np.ndarray:
        """Super-resolve one image without detecting, uint8 (H, W, 3) RGB -> uint8 (s * H, s * W, 3) RGB.

        The image is not padded, so next to its lower and right border the result may differ from `Prediction.sr`. A
        large one is made part by part.

        Raises:
            UserError: the result holds NaN.
        """
        height, width = image.shape[:2]
        if not self.large.plan.whole(*self.padded_size(height, width)):
            strips = self.large.strips(image, self.large.choose(image, policy))
            return in_one(strips, (height * self.system.front.scale, width * self.system.front.scale))
        return to_image(self.system.super_resolve(to_tensor(image, self.device), policy).sr)

    def stream(
        self,
        frames: Iterable[Frame | Skipped],
        options: PredictOptions,
        batch: int = 1,
        times: StageTimes | None = None,
        reuse: PatchReuse | None = None,
    ) -> Iterator[tuple[Frame, Prediction] | Skipped]:
        """Predictions in order, neighbours of one padded size together; what memory does not suffice for is skipped
        like unreadable files.

        Args:
            frames: what `read_frames` yields.
            options: policy and limits.
            batch: most images per call.
            times: the stages reading, SR and detection are added.
            reuse: keeps patches from frame to frame, which then come one at a time; a new video begins anew.
        """
        batch = 1 if reuse is not None else batch
        groups = group_frames(frames, batch, self.padded_size)
        for group in groups if times is None else times.over("reading", groups):
            if isinstance(group, Skipped):
                yield group
                continue
            if reuse is not None and group[0].file.is_video and group[0].index == 1:
                reuse.reset()
            try:
                predictions = self([frame.image for frame in group], options, times, reuse)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                predictions = None
            if predictions is None:  # outside of `except`, where the error would keep its tensors alive
                if self.device.type == "cuda":  # graphs hold memory that nothing else can use
                    release_graphs(self.system)
                    if len(group) > 1:
                        yield from self.stream(group, options, 1, times)
                        continue
                reason = self.out_of_memory(len(group), options.policy)
                yield from (Skipped(frame.file, reason) for frame in group)
            else:
                yield from zip(group, predictions, strict=True)

    def out_of_memory(self, batch: int, policy: MaskPolicy) -> str:
        """What to say, with advice that was not taken already."""
        ways = {
            "a smaller --batch": batch > 1,
            "a cheaper --policy (budget=0.1, all_fast)": self.system.patch is not None and policy.kind != "all_fast",
            "--half": not self.half,
        }
        return memory_message([way for way, is_open in ways.items() if is_open])

    def _of_image(
        self, image: np.ndarray, found, sr, mask, speed: dict[str, float], max_det: int, reused_patches=None
    ) -> Prediction:
        """From the padded image's results to those of the image itself."""
        height, width = image.shape[:2]
        boxes, scale = to_image_pixels(found, self.system.scale, height, width), self.system.front.scale
        held, patch, more = HeldSR(sr[:, : scale * height, : scale * width]), self.system.patch, len(found) >= max_det
        if mask is None or patch is None:
            return Prediction(boxes, held, None, None, None, speed, max_det_reached=more)
        rows, columns = patch_grid(height, width, patch)
        own = mask[:rows, :columns]
        reused = None if reused_patches is None else float(reused_patches[:rows, :columns].mean())
        return Prediction(boxes, held, own, patch, float(own.mean()), speed, reused, max_det_reached=more)


def memory_message(ways: list[str]) -> str:
    """ "out of memory; use --half": the ways that are still open, at the end always a smaller image."""
    return f"out of memory; use {' or '.join([*ways, 'smaller images'])}"
