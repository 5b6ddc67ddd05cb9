"""Where HR pixels lie between LR pixels: the coordinates of implicit image functions, in whole numbers.

LIIF (Chen et al. 2021, arXiv:2012.09161) gives pixel centres coordinates in [-1, 1]. The same positions are kept here
in units of LR pixels, as an integer and a fraction: that is exact for every scale, and a window of an image gives the
positions of the image. Distances have LIIF's unit, half an LR pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.device_constants import on_device
from utils.errors import UserError

TRAINED_SCALE = 4  # largest scale of the training; beyond it a pixel is shown to the network as large as there
LARGEST_SCALE = 30


@dataclass(frozen=True)
class Axis:
    """Positions along one axis of an LR image, all of one shape.

    Args:
        lower: int64, LR pixel whose centre is at or before the position; -1 before the first centre.
        offset: distance from that centre in LR pixels, in [0, 1).
    """

    lower: Tensor
    offset: Tensor

    def __getitem__(self, index) -> Axis:
        return Axis(self.lower[index], self.offset[index])

    def __len__(self) -> int:
        return len(self.lower)

    def moved(self, pixels: int) -> Axis:
        """The same positions in an image that begins `pixels` LR pixels earlier (positive) or later (negative)."""
        return Axis(self.lower + pixels, self.offset)

    def nearest(self) -> Tensor:
        """LR pixel (int64) in which each position lies."""
        return self.lower + (self.offset >= 0.5)

    def neighbour(self, side: int, length: int) -> tuple[Tensor, Tensor]:
        """LR pixel before (side 0) or after (side 1) each position, and the distance from its centre.

        Args:
            side: 0 or 1.
            length: LR pixels of the axis; beyond the border the border pixel is the neighbour.

        Returns:
            Index (int64) in [0, length), and position minus centre in half LR pixels.
        """
        index = (self.lower + side).clamp(0, length - 1)
        return index, 2 * ((self.lower - index) + self.offset)


def place(pixels: Tensor, size: int | Tensor, lr_size: int, dtype: torch.dtype) -> Axis:
    """Positions of HR pixel centres on an LR axis.

    Args:
        pixels: int64 indices of HR pixels.
        size: HR pixels of the axis, a number or int64 that broadcasts against `pixels`.
        lr_size: LR pixels of the axis.
        dtype: of the offsets.
    """
    distance = (2 * pixels + 1) * lr_size - size  # from the first LR centre, in 1 / (2 * size) LR pixels
    lower = torch.div(distance, 2 * size, rounding_mode="floor")
    return Axis(lower, ((distance - lower * 2 * size).double() / (2 * size)).to(dtype))


def place_all(size: int, lr_size: int, like: Tensor) -> Axis:
    """Positions of all `size` HR pixels of an axis, with the device and type of `like`."""
    return place(torch.arange(size, device=like.device), size, lr_size, like.dtype)


def grid(rows: Axis, columns: Axis) -> tuple[Axis, Axis]:
    """Row and column of every pixel of a raster in reading order: Axis (R) and Axis (C) become two Axis (1, R * C)."""
    shape = (len(rows), len(columns))

    def spread(values: Tensor) -> Tensor:
        return values.expand(shape).reshape(1, -1)

    return (
        Axis(spread(rows.lower[:, None]), spread(rows.offset[:, None])),
        Axis(spread(columns.lower[None]), spread(columns.offset[None])),
    )


def relative_cell(size: tuple[int, int] | Tensor, lr_size: tuple[int, int], like: Tensor) -> Tensor:
    """Height and width of an HR pixel (B, 2) in half LR pixels, 2 / scale and at least 2 / TRAINED_SCALE.

    Args:
        size: HR height and width, or int64 (B, 2).
        lr_size: LR height and width.
        like: tensor of the device and type wanted.
    """
    if isinstance(size, tuple):
        # From Python numbers, not through a tensor of them: this also works where tensors have no content.
        sides = [2 * lr / min(hr, TRAINED_SCALE * lr) for hr, lr in zip(size, lr_size)]
        return torch.stack([torch.full((1,), side, device=like.device, dtype=like.dtype) for side in sides], dim=1)
    lengths = on_device(torch.tensor(lr_size), like.device)
    return (2 * lengths.double() / size.minimum(TRAINED_SCALE * lengths)).to(like.dtype)


def target_size(lr_size: tuple[int, int], scale: float, size: tuple[int, int] | None) -> tuple[int, int]:
    """Height and width of the SR image.

    Args:
        lr_size: LR height and width.
        scale: factor for size None.
        size: height and width wanted, or None.

    Raises:
        ValueError: the image would shrink, or grow by more than LARGEST_SCALE.
    """
    height, width = (round(scale * side) for side in lr_size) if size is None else size
    for side, lr, name in ((height, lr_size[0], "height"), (width, lr_size[1], "width")):
        if not lr <= side <= LARGEST_SCALE * lr:
            raise UserError(
                f"size: {name} {side} for {lr} LR pixels is x{side / lr:.3g}; ask for x1 to x{LARGEST_SCALE}, here "
                f"{lr} to {LARGEST_SCALE * lr}"
            )
    return height, width
