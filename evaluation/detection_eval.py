"""Run a detector over a split and score it: mAP in original image coordinates, kept share in and outside of objects."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from data.detection_batch import DetectionBatch
from models.content import image_patches
from models.front_end import ConditionalOutput
from utils.metrics import coco_map, mean_over_images, psnr_y

Predict = Callable[[DetectionBatch], tuple[list[Tensor], ConditionalOutput | None]]


@dataclass
class SplitResult:
    """What a split gave. Boxes are x1, y1, x2, y2 in pixels of the original images.

    Shares are of the patches that hold image (kept_share), and of the image's area inside and outside of ground-truth
    boxes; the padding around an image counts nowhere. None without a mask. `patches_per_image` says on how many patches
    SR_Quality ran, in the padding too, for the cost.
    """

    detections: list[np.ndarray] = field(default_factory=list)
    ground_truth: list[tuple[np.ndarray, np.ndarray, tuple[int, int]]] = field(default_factory=list)
    kept_per_image: list[float] = field(default_factory=list)
    patches_per_image: list[int] = field(default_factory=list)
    psnr_per_image: list[float] = field(default_factory=list)
    inside: np.ndarray = field(default_factory=lambda: np.zeros(2))  # kept area, area
    outside: np.ndarray = field(default_factory=lambda: np.zeros(2))

    @property
    def kept_share(self) -> float | None:
        return mean_over_images(self.kept_per_image) if self.kept_per_image else None

    @property
    def kept_inside(self) -> float | None:
        return float(self.inside[0] / self.inside[1]) if self.kept_per_image and self.inside[1] else None

    @property
    def kept_outside(self) -> float | None:
        return float(self.outside[0] / self.outside[1]) if self.kept_per_image and self.outside[1] else None

    @property
    def psnr(self) -> float | None:
        return mean_over_images(self.psnr_per_image) if self.psnr_per_image else None

    def metrics(self, names: tuple[str, ...]) -> dict:
        return coco_map(self.ground_truth, self.detections, names)


def canvas_boxes(batch: DetectionBatch, row: int) -> np.ndarray:
    """Ground truth of one image as x1, y1, x2, y2 in HR canvas pixels, (n, 4)."""
    height, width = batch.canvas
    chosen = (batch.image_index == row).cpu().numpy()
    boxes = batch.boxes.cpu().numpy()[chosen] * np.array([width, height, width, height], np.float32)
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)


def object_map(boxes: np.ndarray, canvas: tuple[int, int]) -> np.ndarray:
    """True where a canvas pixel shares any area with a box, (H, W).

    Args:
        boxes: (n, 4) x1, y1, x2, y2 in canvas pixels. What lies outside of the canvas counts for nothing, nor does a
            box without area.
        canvas: (H, W).
    """
    covered, (height, width) = np.zeros(canvas, bool), canvas
    for x1, y1, x2, y2 in boxes:
        if x2 > x1 and y2 > y1:
            left, top = max(0, math.floor(x1)), max(0, math.floor(y1))
            # A negative end would count from the far side.
            right, bottom = max(0, min(width, math.ceil(x2))), max(0, min(height, math.ceil(y2)))
            covered[top:bottom, left:right] = True
    return covered


def on_host(detections: list[torch.Tensor]) -> list[np.ndarray]:
    """Boxes per image, which cross from the device at once."""
    rows = torch.cat([found.detach().float() for found in detections]).cpu().numpy()
    return np.split(rows, np.cumsum([len(found) for found in detections])[:-1])


def detect_split(
    predict: Predict,
    loader: Iterable[DetectionBatch],
    device: torch.device,
    patch: int | None = None,
    with_psnr: bool = False,
) -> SplitResult:
    """Predict every batch and collect detections, ground truth, masks and (where HR exists) PSNR.

    Args:
        predict: batch on `device` -> boxes per image in HR canvas pixels (n, 6), and the front end's output or None.
        loader: evaluation batches (no augmentation).
        device: where to run.
        patch: side of a mask patch in LR pixels, where there are masks.
        with_psnr: also measure the PSNR (Y) of the super-resolved images where they have the size of the HR images;
            strips of which a border of `scale` pixels leaves nothing have none.
    """
    result = SplitResult()
    for host in loader:
        batch = host.to(device)
        detections, output = predict(batch)
        detections = on_host(detections)
        masks = None if output is None or output.mask is None else output.mask[:, 0].float().cpu().numpy()
        image = None if masks is None else image_patches(batch.content, batch.lr.shape[-2:], patch)
        for row, letterbox in enumerate(batch.letterboxes):
            found = detections[row]
            boxes = letterbox.to_original(found[:, :4])
            result.detections.append(np.concatenate([boxes, found[:, 4:]], axis=1))
            truth = canvas_boxes(host, row)
            classes = host.classes[host.image_index == row].long().cpu().numpy()
            size = (letterbox.height, letterbox.width)
            result.ground_truth.append((letterbox.to_original(truth), classes, size))
            shown = letterbox.region  # without the grey around the image
            if masks is not None:
                mask = masks[row]
                own = mask if image is None else mask[image[row].numpy()]
                result.kept_per_image.append(float(own.mean()))
                result.patches_per_image.append(int(mask.sum()))
                side = np.ones((batch.scale * patch, batch.scale * patch), np.float32)
                kept = np.kron(mask, side)[: batch.canvas[0], : batch.canvas[1]]
                kept, covered = kept[shown], object_map(truth, batch.canvas)[shown]
                result.inside += kept[covered].sum(), covered.sum()
                result.outside += kept[~covered].sum(), (~covered).sum()
            wide = min(letterbox.content) > 2 * batch.scale
            if with_psnr and wide and output is not None and output.sr.shape == batch.hr.shape:
                pair = (output.sr[row].float().cpu().numpy(), batch.hr[row].cpu().numpy())
                sr, hr = (image.transpose(1, 2, 0)[shown].clip(0, 1) for image in pair)
                result.psnr_per_image.append(psnr_y(sr, hr, border=batch.scale))
    return result
