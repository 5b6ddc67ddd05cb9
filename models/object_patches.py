"""In which patches objects lie: what the Masker is told by `losses.objects`, from labels or from a teacher's boxes."""

from __future__ import annotations

import torch
from torch import Tensor

from models.device_constants import on_device
from utils.device import sent


def objects_per_patch(
    centres: Tensor, image_index: Tensor, images: int, lr_size: tuple[int, int], patch: int, grid: tuple[int, int]
) -> Tensor:
    """Number of objects whose centre lies in a patch, float32 (B, 1, gh, gw).

    Centres, not areas: where boxes crowd, areas cover nearly all patches and say nothing.

    Args:
        centres: (N, 2) cx, cy as shares of the canvas; N may be 0.
        image_index: (N,) row of the batch.
        images: B.
        lr_size: height and width of the LR images.
        patch: side of a patch in LR pixels.
        grid: rows and columns of patches.
    """
    height, width = lr_size
    counts = torch.zeros((images, 1, *grid), device=centres.device)
    rows = (centres[:, 1] * height / patch).long().clamp(0, grid[0] - 1)
    columns = (centres[:, 0] * width / patch).long().clamp(0, grid[1] - 1)
    where = (image_index.long(), torch.zeros_like(rows), rows, columns)
    return counts.index_put_(where, torch.ones(len(centres), device=centres.device), accumulate=True)


def detected_centres(detections: list[Tensor], canvas: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Centres (N, 2) of detected boxes as shares of the canvas, and the image (N,) of each.

    Args:
        detections: per image (n, 6), see `YoloDetector.predict`.
        canvas: height and width in pixels.
    """
    boxes = torch.cat([found[:, :4] for found in detections])
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 / on_device(torch.tensor(canvas[::-1], dtype=boxes.dtype), boxes.device)
    counts = torch.tensor([len(found) for found in detections])
    return centres, sent(torch.arange(len(detections)).repeat_interleave(counts), boxes.device)
