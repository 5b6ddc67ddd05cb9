"""What a detector gets of an SR image: the image at a larger size, where it is to have one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.sr_fast import interpolation_matrix
from utils.convert import GREY
from utils.errors import UserError


def resized(images: Tensor, height: int, width: int) -> Tensor:
    """Images (..., h, w) as (..., height, width), by bicubic interpolation in MATLAB's convention."""
    rows = interpolation_matrix(images.shape[-2], height, images.dtype, images.device)
    columns = interpolation_matrix(images.shape[-1], width, images.dtype, images.device)
    return rows @ (images @ columns.T)


def filled(images: Tensor, stride: int) -> Tensor:
    """Images (B, 3, h, w) with grey at the bottom and right up to multiples of `stride`, as they are where they fit."""
    down, right = (-side % stride for side in images.shape[-2:])
    return F.pad(images, (0, right, 0, down), value=GREY / 255) if down or right else images


class DetectorInput(nn.Module):
    """SR images (B, 3, H, W) in [0, 1] -> the detector's, larger by a factor and filled up to its stride.

    Args:
        upscale: at least 1; 1 leaves the size as it is.
        stride: of the detector.
        fill: whether to fill up at all, else images have to fit.

    Raises:
        UserError: a factor below 1.
    """

    def __init__(self, upscale: float, stride: int, fill: bool):
        super().__init__()
        if not upscale >= 1:
            raise UserError(f"upscale is {upscale:g}; give 1 or more")
        self.upscale, self.stride, self.fill = upscale, stride, fill

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what comes out for SR images of this size."""
        height, width = self._enlarged(height), self._enlarged(width)
        return (height - -height % -self.stride, width - -width % -self.stride) if self.fill else (height, width)

    def forward(self, images: Tensor) -> Tensor:
        if self.upscale != 1:
            images = resized(images, *map(self._enlarged, images.shape[-2:])).clamp(0, 1)
        return filled(images, self.stride) if self.fill else images

    def keeps(self, height: int, width: int) -> bool:
        """Whether SR images of this size stay as they are."""
        return self.size(height, width) == (height, width)

    def _enlarged(self, side: int) -> int:
        return round(side * self.upscale)


def shares_of(boxes: Tensor, content: tuple[float, float], size: torch.Size) -> Tensor:
    """Boxes (n, 4) as shares of an image -> as shares of a canvas of this size (..., H, W), in whose upper left corner
    the image has the height and width `content`, in pixels of the canvas."""
    down, right = content[0] / size[-2], content[1] / size[-1]
    return (
        boxes
        if down == right == 1
        else torch.stack([side * by for side, by in zip(boxes.unbind(1), (right, down) * 2)], 1)
    )
