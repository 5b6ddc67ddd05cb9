"""Placing an image on a canvas of fixed size so that HR and LR pixel grids agree, and mapping boxes back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from utils.convert import GREY


@dataclass(frozen=True)
class Letterbox:
    """Where an image lies on the HR canvas.

    Args:
        height, width: size of the original image in its own pixels.
        ratio: canvas pixels per original pixel.
        top, left: first canvas row and column of the image.
        content: (height, width) of the image on the canvas in pixels; by default size times ratio, rounded.
    """

    height: int
    width: int
    ratio: float
    top: int
    left: int
    content: tuple[int, int] | None = None

    def __post_init__(self):
        if self.content is None:
            content = (max(1, round(self.height * self.ratio)), max(1, round(self.width * self.ratio)))
            object.__setattr__(self, "content", content)

    @property
    def region(self) -> tuple[slice, slice]:
        """Rows and columns of the image on the HR canvas."""
        return slice(self.top, self.top + self.content[0]), slice(self.left, self.left + self.content[1])

    def lr_rectangle(self, scale: int) -> tuple[int, int, int, int]:
        """Top, left, bottom, right of the image on the LR canvas, `scale` times smaller, in LR pixels."""
        top, left = self.top // scale, self.left // scale
        return top, left, top - (-self.content[0] // scale), left - (-self.content[1] // scale)

    def to_original(self, boxes: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
        """Boxes x1, y1, x2, y2 (..., 4) in canvas pixels -> pixels of the original image, cut at its border."""
        if not isinstance(boxes, torch.Tensor):
            boxes = np.asarray(boxes)
            as_float = boxes.astype(np.result_type(boxes, np.float32), copy=False)
            return self.to_original(torch.tensor(as_float)).numpy()
        size = boxes.new_tensor([self.width, self.height] * 2)
        # The rounded size, not the ratio, says how far each axis was stretched.
        stretch = boxes.new_tensor([self.content[1] / self.width, self.content[0] / self.height] * 2)
        original = (boxes - boxes.new_tensor([self.left, self.top] * 2)) / stretch
        return original.clamp(min=torch.zeros_like(size), max=size)

    def to_canvas(self, boxes: np.ndarray) -> np.ndarray:
        """Normalised cx, cy, w, h of the original image (n, 4) -> x1, y1, x2, y2 in canvas pixels, float64 (n, 4)."""
        boxes = boxes.astype(np.float64) * np.array([self.content[1], self.content[0]] * 2)
        centre = boxes[:, :2] + [self.left, self.top]
        return np.concatenate([centre - boxes[:, 2:] / 2, centre + boxes[:, 2:] / 2], axis=1)


def fit_letterbox(height: int, width: int, canvas: tuple[int, int], scale: int, native: bool = False) -> Letterbox:
    """Largest size of the image that fits the canvas, about centred, its corner on the grid of LR pixels.

    Args:
        height, width: size of the original image in pixels.
        canvas: (H, W) of the HR canvas in pixels, multiples of scale.
        scale: HR pixels per LR pixel.
        native: the original image is LR, so its size on the canvas must be whole LR pixels too.
    """
    unit = scale if native else 1
    ratio = min(canvas[0] / height, canvas[1] / width)
    content = tuple(unit * max(1, round(size * ratio / unit)) for size in (height, width))
    top, left = ((whole - part) // 2 // scale * scale for whole, part in zip(canvas, content, strict=True))
    return Letterbox(height, width, ratio, top, left, content)


def blank(height: int, width: int) -> np.ndarray:
    """Grey canvas, uint8 (height, width, 3)."""
    return np.full((height, width, 3), GREY, np.uint8)


def paste(canvas: np.ndarray, image: np.ndarray, top: int, left: int) -> None:
    """Copy an image into a canvas in place; what lies outside is cut off, `top` and `left` may be negative."""
    height, width = image.shape[:2]
    bottom, right = min(top + height, canvas.shape[0]), min(left + width, canvas.shape[1])
    y, x = max(top, 0), max(left, 0)
    if y < bottom and x < right:
        canvas[y:bottom, x:right] = image[y - top : bottom - top, x - left : right - left]


def resample(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Antialiased bicubic resizing (a = -0.5) of uint8 (H, W, 3); an image of that size already is returned as is."""
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def resample_lr(lr: np.ndarray, box: Letterbox, scale: int) -> np.ndarray:
    """LR counterpart of an HR image that is resized to `box.content`.

    The LR image covers its HR image up to the next multiple of scale, before and after; so the part that the result
    shows is a little more or less than the whole, and resizing whole to whole would shift it.

    Args:
        lr: uint8 (ceil(box.height / scale), ceil(box.width / scale), 3).
        box: where the HR image lies.
        scale: HR pixels per LR pixel.

    Returns:
        uint8 (ceil(content height / scale), ceil(content width / scale), 3).
    """
    if box.content == (box.height, box.width):
        return lr
    target = [-(-size // scale) for size in box.content]
    shown = [t * whole / part for t, whole, part in zip(target, (box.height, box.width), box.content, strict=True)]
    extra = [max(0, int(np.ceil(s)) - size) for s, size in zip(shown, lr.shape, strict=False)]
    padded = np.pad(lr, ((0, extra[0]), (0, extra[1]), (0, 0)), mode="edge")
    image, region = Image.fromarray(padded), (0, 0, shown[1], shown[0])
    return np.asarray(image.resize((target[1], target[0]), Image.Resampling.BICUBIC, box=region))
