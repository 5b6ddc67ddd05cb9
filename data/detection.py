"""YOLO-format data sets as batches of LR image, HR image and boxes on a canvas of fixed size.

A sample depends on (seed, epoch, index) and the settings alone, so any number of loading processes gives the same
batches.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from configs.schema import AugmentConfig
from data.augment import (
    AugmentPlan,
    check_augment,
    clip_boxes,
    draw_plan,
    image_rectangles,
    mosaic_origin,
    mosaic_places,
    recolour,
    still_there,
    view,
    view_boxes,
)
from data.data_spec import DataSetError, DataSpec, Record, ScanReport, load_data_spec, scan_split, scan_splits
from data.degradation import degrade_bicubic
from data.detection_batch import collate_detection
from data.images import ImageError, check_image, read_rgb
from data.letterbox import Letterbox, blank, fit_letterbox, paste, resample, resample_lr
from data.lr_folder import find_lr_images
from utils.errors import UserError

__all__ = [
    "DataSetError",
    "DataSpec",
    "DetectionDataset",
    "Letterbox",
    "Record",
    "ScanReport",
    "canvas_size",
    "load_data_spec",
    "make_loader",
    "scan_split",
    "scan_splits",
]

EVALUATION = -1
Pair = tuple[np.ndarray | None, np.ndarray | None]


def canvas_size(imgsz: int | list[int], scale: int, stride: int = 32) -> tuple[int, int]:
    """(H, W) of the HR canvas from `imgsz`, one side or [height, width] in pixels.

    Raises:
        ValueError: a side is no multiple of scale and of the detector's stride.
    """
    sides = [imgsz, imgsz] if isinstance(imgsz, int) else list(imgsz)
    step = math.lcm(scale, stride)
    if len(sides) != 2 or any(side < 1 or side % step for side in sides):
        nearest = [max(step, round(side / step) * step) for side in sides[:2]]
        raise UserError(
            f"data.imgsz: {imgsz} must be one side or [height, width], each a multiple of {step}"
            f" (scale {scale}, detector stride {stride}); use {nearest[0] if isinstance(imgsz, int) else nearest}"
        )
    return sides[0], sides[1]


class DetectionDataset(Dataset):
    """Samples by key: `index` for evaluation (never augmented), `(epoch, index)` for training.

    Args:
        records: images and labels, from `scan_split`.
        names: class names.
        canvas: (H, W) of the HR canvas in pixels, multiples of scale.
        scale: HR pixels per LR pixel.
        lr: bicubic (made from HR), folder (read from lr_folder) or native (the images are LR, no HR exists).
        lr_folder: folder that mirrors the image folders, for `lr="folder"`.
        augment: training augmentation, None for none.
        epochs: length of the training in epochs, for `augment.close_mosaic`.
        seed: seed of the augmentation.
        max_pixels: images with more pixels than this are refused.

    Raises:
        DataSetError: no records, or LR images missing or of another scale.
        ValueError: settings that do not fit each other.
    """

    def __init__(
        self,
        records: list[Record],
        names: tuple[str, ...],
        canvas: tuple[int, int],
        scale: int,
        lr: Literal["bicubic", "folder", "native"] = "bicubic",
        lr_folder: str | Path | None = None,
        augment: AugmentConfig | None = None,
        epochs: int = 0,
        seed: int = 0,
        max_pixels: int = 100_000_000,
    ):
        if not records:
            raise DataSetError("the data set is empty: no records to load")
        if lr not in ("bicubic", "folder", "native"):
            raise UserError(f"data.lr: {lr!r} is not one of bicubic, folder, native")
        if (lr == "folder") != (lr_folder is not None):
            raise UserError(f"data.lr: {lr} and data.lr_folder: {lr_folder}; set lr_folder with `lr: folder` only")
        if scale < 1 or any(side < 1 or side % scale for side in canvas):
            raise UserError(f"canvas {canvas} must be a multiple of the scale {scale}; change data.imgsz")
        if augment is not None:
            check_augment(augment)
        self.records, self.names, self.canvas, self.scale, self.lr = records, names, tuple(canvas), scale, lr
        self.augment, self.epochs, self.seed, self.max_pixels = augment, epochs, seed, max_pixels
        self.lr_canvas = (canvas[0] // scale, canvas[1] // scale)
        self.labelled = np.array([record.labelled for record in records])
        self.lr_images: list[Path] | None = None
        if lr == "folder":
            self.lr_images = find_lr_images([record.image for record in records], Path(lr_folder), scale)
            self._check_lr_size(0, check_image(self.lr_images[0], max_pixels))

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: int | tuple[int, int]) -> dict:
        """One sample: lr, hr uint8 (3, h, w), boxes, classes, labelled, index, epoch, file, letterbox, scale, content.

        Raises:
            ImageError: an image cannot be read any more, or changed since the scan.
        """
        if get_worker_info() is not None:
            # Each loading process is one thread; more would only take the processor from each other.
            cv2.setNumThreads(0)
        training = isinstance(key, tuple)
        epoch, index = key if training else (EVALUATION, int(key))
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} outside a data set of {len(self)} images")
        index %= len(self)
        plan = self._plan(epoch, index) if training else AugmentPlan((index,))
        letterboxes = [self.letterbox(i) for i in plan.indices]
        places = self._places(plan, letterboxes)
        hr, lr = self._images(plan, letterboxes, places)
        classes, boxes = self._labels(plan, letterboxes, places, training)
        content = image_rectangles(self._lr_sizes(letterboxes), places, plan, self.lr_canvas)
        return {
            "lr": _chw(lr),
            "hr": None if hr is None else _chw(hr),
            "boxes": torch.from_numpy(boxes),
            "classes": torch.from_numpy(classes),
            "labelled": self.records[index].labelled,
            "index": index,
            "epoch": epoch,
            "file": str(self.records[index].image),
            "letterbox": letterboxes[0],
            "scale": self.scale,
            "content": torch.from_numpy(content),
        }

    def letterbox(self, index: int) -> Letterbox:
        """Where an image lies on the canvas, without augmentation."""
        record = self.records[index]
        return fit_letterbox(record.height, record.width, self.canvas, self.scale, native=self.lr == "native")

    def _plan(self, epoch: int, index: int) -> AugmentPlan:
        """Augmentation of a sample; a mosaic holds either labelled images only or none."""
        alike = np.flatnonzero(self.labelled == self.labelled[index])
        plan = draw_plan(self.augment, self.seed, epoch, index, len(alike), self.epochs)
        return dataclasses.replace(plan, indices=(index, *map(int, alike[list(plan.indices[1:])])))

    # ------------------------------------------------------------------ images

    def _places(self, plan: AugmentPlan, letterboxes: list[Letterbox]) -> list[tuple[int, int]]:
        """(top, left) of each image on the board, in LR pixels."""
        if not plan.mosaic:
            return [(letterboxes[0].top // self.scale, letterboxes[0].left // self.scale)]
        return mosaic_places(self._lr_sizes(letterboxes), plan, self.lr_canvas)

    def _lr_sizes(self, letterboxes: list[Letterbox]) -> list[tuple[int, int]]:
        """(height, width) of each image on the board, in LR pixels."""
        return [(-(-box.content[0] // self.scale), -(-box.content[1] // self.scale)) for box in letterboxes]

    def _images(self, plan: AugmentPlan, letterboxes: list[Letterbox], places: list[tuple[int, int]]) -> Pair:
        """(HR, LR) of the sample, uint8 (H, W, 3) and (H/s, W/s, 3)."""
        # Where pixels are interpolated anyway LR is made from the finished HR image, else from each image alone, so
        # that padding never bleeds in and training sees what evaluation sees.
        late = self.lr == "bicubic" and (plan.mosaic or plan.resamples)
        pairs = [self._load(i, box, plan.hsv, late) for i, box in zip(plan.indices, letterboxes, strict=True)]
        hr = None if self.lr == "native" else self._compose([pair[0] for pair in pairs], plan, places, self.scale)
        lr = degrade_bicubic(hr, self.scale) if late else self._compose([pair[1] for pair in pairs], plan, places, 1)
        return hr, lr

    def _load(self, index: int, box: Letterbox, hsv: tuple[float, float, float], late: bool) -> Pair:
        """(HR, LR) of one image at its size on the canvas; LR is left out where it is made `late`."""
        record = self.records[index]
        image = read_rgb(record.image, self.max_pixels)
        if image.shape[:2] != (record.height, record.width):
            reason = f"is {image.shape[1]}x{image.shape[0]} now, was {record.width}x{record.height} when it was scanned"
            raise ImageError(record.image, reason, "do not change the data set during a run")
        if self.lr == "native":
            height, width = (size // self.scale for size in box.content)
            return None, recolour(resample(image, height, width), hsv)
        hr = recolour(resample(image, *box.content), hsv)
        if self.lr == "bicubic":
            return hr, None if late else degrade_bicubic(hr, self.scale)
        lr = read_rgb(self.lr_images[index], self.max_pixels)
        self._check_lr_size(index, lr.shape[:2])
        return hr, recolour(resample_lr(lr, box, self.scale), hsv)

    def _compose(
        self, images: list[np.ndarray], plan: AugmentPlan, places: list[tuple[int, int]], unit: int
    ) -> np.ndarray:
        """Put the images on the board and cut the canvas out of it; `unit` is pixels per LR pixel."""
        canvas = (self.lr_canvas[0] * unit, self.lr_canvas[1] * unit)
        size = 2 if plan.mosaic else 1
        board = blank(canvas[0] * size, canvas[1] * size)
        for image, (top, left) in zip(images, places, strict=True):
            paste(board, image, top * unit, left * unit)
        y, x = mosaic_origin(self.lr_canvas, plan.mosaic)
        return view(board, plan, canvas, (y * unit, x * unit))

    def _check_lr_size(self, index: int, size: tuple[int, int]) -> None:
        record = self.records[index]
        expected = (-(-record.height // self.scale), -(-record.width // self.scale))
        if tuple(size) != expected:
            raise DataSetError(
                f"{self.lr_images[index]}: is {size[1]}x{size[0]}, expected {expected[1]}x{expected[0]} for"
                f" {record.image} of {record.width}x{record.height} at data.scale {self.scale};"
                " change data.scale or data.lr_folder"
            )

    # ------------------------------------------------------------------ labels

    def _labels(
        self, plan: AugmentPlan, letterboxes: list[Letterbox], places: list[tuple[int, int]], training: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Classes int64 (n,) and boxes float32 (n, 4) normalised to the canvas."""
        height, width = self.canvas
        boxes = []
        for index, box, (top, left) in zip(plan.indices, letterboxes, places, strict=True):
            placed = dataclasses.replace(box, top=top * self.scale, left=left * self.scale)
            boxes.append(placed.to_canvas(self.records[index].boxes))
        before = np.concatenate(boxes)
        classes = np.concatenate([self.records[index].classes for index in plan.indices])
        size = 2 if plan.mosaic else 1
        origin = tuple(o * self.scale for o in mosaic_origin(self.lr_canvas, plan.mosaic))
        whole = view_boxes(before, plan, self.canvas, origin)
        # A zoomed-out mosaic shows the edge of its board, where images end before the canvas does.
        seen = view_boxes(clip_boxes(before, height * size, width * size), plan, self.canvas, origin)
        after = clip_boxes(seen, height, width)
        if training:
            keep = still_there(whole, after)
            after, classes = after[keep], classes[keep]
        after = after / [width, height, width, height]
        centred = np.concatenate([(after[:, :2] + after[:, 2:]) / 2, after[:, 2:] - after[:, :2]], axis=1)
        return classes, centred.astype(np.float32)


def _chw(image: np.ndarray) -> Tensor:
    """uint8 (H, W, 3) -> (3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def make_loader(
    dataset: Dataset,
    batch_sampler: Iterable[list] | None,
    batch: int,
    workers: int,
    pin_memory: bool = False,
) -> DataLoader:
    """Loader of `DetectionBatch`es.

    Args:
        dataset: a DetectionDataset, or a Subset of one.
        batch_sampler: yields lists of (epoch, index) keys, a new one each epoch; None evaluates all images in order.
        batch: images per batch, where there is no batch_sampler.
        workers: loading processes, 0 loads in this process; never changes results.
        pin_memory: page-locked memory, for copies to CUDA.
    """
    how = {"batch_sampler": batch_sampler} if batch_sampler is not None else {"batch_size": batch}
    return DataLoader(dataset, collate_fn=collate_detection, num_workers=workers, pin_memory=pin_memory, **how)
