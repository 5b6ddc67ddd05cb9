"""Images made up to sizes that the detector takes, and its boxes brought back to the images."""

from __future__ import annotations

import numpy as np
import torch

from utils.convert import GREY


def padded_size(height: int, width: int, unit: int) -> tuple[int, int]:
    """Smallest multiples of `unit` that hold an image."""
    return -(-height // unit) * unit, -(-width // unit) * unit


def pad_images(images: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Images (H, W, 3) of any size up to `size`, padded at the bottom and right -> uint8 (B, *size, 3)."""
    padded = np.full((len(images), *size, 3), GREY, np.uint8)
    for row, image in zip(padded, images, strict=True):
        row[: image.shape[0], : image.shape[1]] = image
    return padded


def content_of(images: list[np.ndarray], size: tuple[int, int]) -> torch.Tensor | None:
    """Which part of `pad_images` is image, see models/content.py: int64 (B, 1, 4), None where nothing was padded."""
    if all(image.shape[:2] == size for image in images):
        return None
    return torch.tensor([[[0, 0, *image.shape[:2]]] for image in images])


def to_image_pixels(boxes: np.ndarray, scale: int, height: int, width: int) -> np.ndarray:
    """Boxes (n, 6) in HR pixels -> pixels of the image, clipped to it; those that lie in the padding are dropped."""
    boxes = boxes.astype(np.float32)
    boxes[:, :4] = (boxes[:, :4] / scale).clip(0, np.array([width, height, width, height], np.float32))
    return boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
