"""Training augmentation as a plan: drawn once from (seed, epoch, index), then applied alike to HR, LR and boxes.

Mosaic, zoom, shift, flips and HSV follow Ultralytics' definitions. All lengths in a plan are shares of the canvas, so
the same plan serves both resolutions.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from configs.schema import AugmentConfig
from data.letterbox import GREY
from utils.errors import UserError

NO_RECOLOUR = (0.0, 1.0, 1.0)
KEPT_AREA = 0.1
KEPT_SIDE = 2.0


@dataclass(frozen=True)
class AugmentPlan:
    """What happens to one training sample.

    Args:
        indices: its image, or four of a mosaic: top left, top right, bottom left, bottom right.
        centre: (y, x) where the four meet, as a share of the canvas.
        zoom: magnification about the canvas centre.
        shift: (y, x) shift after the zoom, as a share of the canvas.
        flip_lr, flip_ud: mirror left-right, up-down.
        hsv: hue shift as a share of the circle, factor of saturation, factor of brightness.
    """

    indices: tuple[int, ...]
    centre: tuple[float, float] = (0.5, 0.5)
    zoom: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    flip_lr: bool = False
    flip_ud: bool = False
    hsv: tuple[float, float, float] = NO_RECOLOUR

    @property
    def mosaic(self) -> bool:
        return len(self.indices) > 1

    @property
    def resamples(self) -> bool:
        """Whether pixels move by other than whole LR pixels."""
        return self.zoom != 1.0 or self.shift != (0.0, 0.0)


def check_augment(config: AugmentConfig) -> None:
    """Raises ValueError, naming the key, for a value that has no meaning."""
    for name in ("mosaic", "flip_lr", "flip_ud", "hsv_h", "hsv_s", "hsv_v", "translate"):
        if not 0 <= getattr(config, name) <= 1:
            raise UserError(f"augment.{name} must lie in 0..1, got {getattr(config, name)}")
    if not 0 <= config.scale < 1:
        raise UserError(f"augment.scale must be at least 0 and below 1 (nothing is left at 1), got {config.scale}")


def draw_plan(config: AugmentConfig | None, seed: int, epoch: int, index: int, length: int, epochs: int) -> AugmentPlan:
    """The plan of a sample, a pure function of the arguments.

    Args:
        config: what may happen; None changes nothing.
        seed, epoch, index: key of the sample, none negative.
        length: images to choose mosaic partners from.
        epochs: length of the training, for `close_mosaic`.
    """
    if config is None:
        return AugmentPlan((index,))
    rng = np.random.default_rng((seed, epoch, index))
    # Everything is drawn whether used or not, so switching one augmentation off leaves the others as they were.
    partners = rng.integers(length, size=3)
    centre = rng.random(2)
    chance = rng.random(3)
    zoom, down, right, hue, saturation, value = rng.uniform(-1, 1, 6)
    mosaic = chance[0] < config.mosaic and epoch < epochs - config.close_mosaic
    return AugmentPlan(
        indices=(index, *map(int, partners)) if mosaic else (index,),
        centre=(float(centre[0]), float(centre[1])),
        zoom=float(1 + config.scale * zoom),
        shift=(float(config.translate * down), float(config.translate * right)),
        flip_lr=bool(chance[1] < config.flip_lr),
        flip_ud=bool(chance[2] < config.flip_ud),
        hsv=(float(config.hsv_h * hue), float(1 + config.hsv_s * saturation), float(1 + config.hsv_v * value)),
    )


# ---------------------------------------------------------------------- pixels


def recolour(image: np.ndarray, hsv: tuple[float, float, float]) -> np.ndarray:
    """Change hue, saturation and brightness of uint8 RGB (H, W, 3) by tables, as Ultralytics does."""
    if hsv == NO_RECOLOUR:
        return image
    levels = np.arange(256, dtype=np.float64)
    hue = (levels + hsv[0] * 180) % 180
    saturation = np.clip(levels * hsv[1], 0, 255)
    # White has hue 0 by convention only: it must not become red.
    saturation[0] = 0
    table = np.stack((hue, saturation, np.clip(levels * hsv[2], 0, 255)), axis=-1).astype(np.uint8)
    return cv2.cvtColor(cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), table[None]), cv2.COLOR_HSV2RGB)


def mosaic_origin(canvas: tuple[int, int], mosaic: bool) -> tuple[int, int]:
    """(y, x) of the canvas on its board, in LR pixels. The board of a mosaic reaches half a canvas beyond each side."""
    return (canvas[0] // 2, canvas[1] // 2) if mosaic else (0, 0)


def mosaic_places(sizes: list[tuple[int, int]], plan: AugmentPlan, canvas: tuple[int, int]) -> list[tuple[int, int]]:
    """(top, left) on the board of the four images of a mosaic, so that they meet at its centre.

    Args:
        sizes: (height, width) of the images in LR pixels.
        plan: plan with four indices.
        canvas: (height, width) of the canvas in LR pixels.
    """
    y, x = (o + round(c * n) for o, c, n in zip(mosaic_origin(canvas, True), plan.centre, canvas, strict=True))
    corners = ((-1, -1), (-1, 0), (0, -1), (0, 0))
    return [(y + dy * h, x + dx * w) for (dy, dx), (h, w) in zip(corners, sizes, strict=True)]


def view(board: np.ndarray, plan: AugmentPlan, canvas: tuple[int, int], origin: tuple[int, int]) -> np.ndarray:
    """Cut the canvas out of the board with zoom, shift and flips.

    Args:
        board: uint8 (H', W', 3) at either resolution.
        plan: what happens.
        canvas: (H, W) of the result at that resolution.
        origin: (y, x) of the canvas on the board at that resolution.

    Returns:
        uint8 (H, W, 3); without zoom and shift no pixel is interpolated.
    """
    height, width = canvas
    if plan.resamples:
        y, x = (
            n / 2 + shift * n - plan.zoom * (o + n / 2) for n, shift, o in zip(canvas, plan.shift, origin, strict=True)
        )
        # Pixel centres lie at halves: cv2 counts them as whole numbers.
        half = (plan.zoom - 1) / 2
        matrix = np.array([[plan.zoom, 0, x + half], [0, plan.zoom, y + half]])
        out = cv2.warpAffine(board, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=(GREY,) * 3)
    else:
        out = board[origin[0] : origin[0] + height, origin[1] : origin[1] + width]
    return out[:: -1 if plan.flip_ud else 1, :: -1 if plan.flip_lr else 1]


# ---------------------------------------------------------------------- boxes


def image_rectangles(
    sizes: list[tuple[int, int]], places: list[tuple[int, int]], plan: AugmentPlan, canvas: tuple[int, int]
) -> np.ndarray:
    """Where a sample's canvas holds image instead of grey, int64 (K, 4): top, left, bottom, right in LR pixels.

    Rounded outwards, where pixels are interpolated; one rectangle, the canvas, where there is no grey at all.

    Args:
        sizes: (height, width) of the K images on the board, in LR pixels.
        places: (top, left) of each.
        plan: what happens.
        canvas: (height, width) of the canvas in LR pixels.
    """
    height, width = canvas
    size, origin = 2 if plan.mosaic else 1, mosaic_origin(canvas, plan.mosaic)
    boxes = np.array([[x, y, x + w, y + h] for (h, w), (y, x) in zip(sizes, places, strict=True)], np.float64)
    seen = view_boxes(clip_boxes(boxes, height * size, width * size), plan, canvas, origin)
    seen = clip_boxes(seen, height, width)
    first, last = np.floor(seen[:, 1::-1] + 1e-6), np.ceil(seen[:, :1:-1] - 1e-6)  # y before x
    rectangles = np.concatenate([first, np.maximum(first, last)], axis=1).astype(np.int64)
    shown = np.zeros(canvas, bool)
    for top, left, bottom, right in rectangles:
        shown[top:bottom, left:right] = True
    return np.array([[0, 0, height, width]]) if shown.all() else rectangles


def view_boxes(boxes: np.ndarray, plan: AugmentPlan, canvas: tuple[int, int], origin: tuple[int, int]) -> np.ndarray:
    """The way of boxes x1, y1, x2, y2 (n, 4) in board pixels through `view`; not cut at the canvas."""
    size, start = np.array(canvas[::-1], np.float64), np.array(origin[::-1], np.float64)
    corners = boxes.reshape(-1, 2, 2)
    corners = (corners - start - size / 2) * plan.zoom + size / 2 + np.array(plan.shift[::-1]) * size
    flips = np.array([plan.flip_lr, plan.flip_ud])
    corners = np.where(flips, size - corners, corners)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def clip_boxes(boxes: np.ndarray, height: float, width: float) -> np.ndarray:
    """Boxes x1, y1, x2, y2 (n, 4) cut at 0 and at (height, width)."""
    return np.clip(boxes, 0, np.array([width, height, width, height], np.float64))


def still_there(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Which boxes are worth learning: at least 10 % of the area inside, both sides at least 2 HR pixels. Bool (n,)."""
    sides = after[:, 2:] - after[:, :2]
    whole = np.maximum((before[:, 2:] - before[:, :2]).prod(axis=1), 1e-9)
    return (sides >= KEPT_SIDE).all(axis=1) & (sides.prod(axis=1) >= KEPT_AREA * whole)
