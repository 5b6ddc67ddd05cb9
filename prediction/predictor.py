"""From native low-resolution images to boxes in their own pixels: padding, super-resolution, detection."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from data.sources import Frame, Skipped
from deployment.prepare import prepare_system
from models.mask_policy import MaskPolicy
from models.system import ConditionalSRDetector
from utils.convert import GREY, to_uint8
from utils.device import compute_type, is_out_of_memory

OUT_OF_MEMORY = "out of memory; use a smaller --batch, a cheaper --policy (budget=0.1, all_fast), or --half"


class StageTimes:
    """Seconds spent per stage; CUDA is waited for, so that a stage pays for its own kernels only."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to `stage`."""
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def over(self, stage: str, items: Iterable) -> Iterator:
        """Pass items on; the time it takes to get each one belongs to `stage`."""
        iterator, end = iter(items), object()
        while True:
            with self.measure(stage):
                item = next(iterator, end)
            if item is end:
                return
            yield item


@dataclass(frozen=True)
class Prediction:
    """What was found in one image.

    Args:
        boxes: float32 (n, 6), best first: x1, y1, x2, y2 in pixels of the image and inside it, score, class.
        sr: super-resolved image (3, s * H, s * W) in [0, 1], on the device where it was made.
        mask: bool (ceil(H / patch), ceil(W / patch)), true where SR_Quality ran; None without a masker.
        patch: side of a patch in pixels of the image; None without a masker.
        kept_share: share of the image's patches that SR_Quality ran on; None without a masker.
        ms: milliseconds of super-resolution and detection, as a share of its batch's.
    """

    boxes: np.ndarray
    sr: torch.Tensor
    mask: np.ndarray | None
    patch: int | None
    kept_share: float | None
    ms: float

    def sr_image(self) -> np.ndarray:
        """Super-resolved image, uint8 (s * H, s * W, 3)."""
        return to_uint8(self.sr)


class Predictor:
    """Callable on images of one padded size; every image is treated on its own, so batches give what singles give.

    Args:
        system: front end and detector; a copy is prepared for the device.
        policy: where SR_Quality runs.
        device: where to run.
        half: compute in fp16 on CUDA, in bf16 elsewhere.
        conf, iou, max_det: see YoloDetector.predict.
        memory_mb: see `prepare_system`.
    """

    def __init__(
        self,
        system: ConditionalSRDetector,
        policy: MaskPolicy,
        device: torch.device,
        half: bool = False,
        conf: float = 0.25,
        iou: float = 0.7,
        max_det: int = 300,
        memory_mb: int = 1024,
    ):
        self.system = prepare_system(system.eval(), device, compute_type(device, half), memory_mb)
        self.policy, self.device = policy, device
        self.limits = {"conf": conf, "iou": iou, "max_det": max_det}
        self.unit = system.detector.stride // math.gcd(system.detector.stride, system.front.scale)

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """Smallest height and width that hold the image and whose SR sides are multiples of the detector's stride."""
        return -(-height // self.unit) * self.unit, -(-width // self.unit) * self.unit

    @torch.no_grad()
    def __call__(self, images: list[np.ndarray], times: StageTimes) -> list[Prediction]:
        """Predict.

        Args:
            images: uint8 (H, W, 3) RGB of any size, of equal `padded_size`.
            times: the stages SR and detection are added.
        """
        start = time.perf_counter()
        with times.measure("SR"):
            lr = torch.from_numpy(pad_images(images, self.padded_size(*images[0].shape[:2]))).to(self.device)
            lr = lr.permute(0, 3, 1, 2).float().div(255)
            output = self.system.upscale(lr, self.policy, content_of(images, lr.shape[-2:]))
        with times.measure("detection"):
            found = self.system.detect(output.sr, **self.limits)
            found = [boxes.float().cpu().numpy() for boxes in found]
        masks = [None] * len(images) if output.mask is None else output.mask[:, 0].cpu().numpy() > 0.5
        ms = (time.perf_counter() - start) * 1e3 / len(images)
        rows = zip(images, found, output.sr, masks, strict=True)
        return [self._of_image(*image.shape[:2], boxes, sr, mask, ms) for image, boxes, sr, mask in rows]

    def _of_image(self, height: int, width: int, boxes, sr, mask, ms: float) -> Prediction:
        """From the padded image's results to those of the image itself."""
        boxes, scale = to_image_pixels(boxes, self.system.scale, height, width), self.system.front.scale
        sr = sr[:, : scale * height, : scale * width]
        if mask is None:
            return Prediction(boxes, sr, None, None, None, ms)
        patch = self.system.patch
        own = mask[: -(-height // patch), : -(-width // patch)]
        return Prediction(boxes, sr, own, patch, float(own.mean()), ms)


def predict_groups(
    predictor: Predictor, groups: Iterable[list[Frame] | Skipped], times: StageTimes
) -> Iterator[tuple[Frame, Prediction] | Skipped]:
    """Predictions in order; images for which memory does not suffice are skipped like unreadable ones."""
    for group in groups:
        if isinstance(group, Skipped):
            yield group
            continue
        try:
            predictions = predictor([frame.image for frame in group], times)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            predictions = None
        if predictions is None:  # outside of `except`, where the error would keep its tensors alive
            yield from (Skipped(frame.file, OUT_OF_MEMORY) for frame in group)
        else:
            yield from zip(group, predictions, strict=True)


def pad_images(images: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Images (H, W, 3) of any size up to `size`, padded at the bottom and right -> uint8 (B, *size, 3)."""
    padded = np.full((len(images), *size, 3), GREY, np.uint8)
    for row, image in zip(padded, images, strict=True):
        row[: image.shape[0], : image.shape[1]] = image
    return padded


def content_of(images: list[np.ndarray], size: tuple[int, int]) -> torch.Tensor | None:
    """Which part of `pad_images` is image, see models/content.py: int64 (B, 1, 4), None where nothing was padded."""
    if all(image.shape[:2] == tuple(size) for image in images):
        return None
    return torch.tensor([[[0, 0, *image.shape[:2]]] for image in images])


def to_image_pixels(boxes: np.ndarray, scale: int, height: int, width: int) -> np.ndarray:
    """Boxes (n, 6) in HR pixels -> pixels of the image, clipped to it; those that lie in the padding are dropped."""
    boxes = boxes.astype(np.float32)
    boxes[:, :4] = (boxes[:, :4] / scale).clip(0, np.array([width, height, width, height], np.float32))
    return boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
