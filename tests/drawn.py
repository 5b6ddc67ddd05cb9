"""Small drawn data sets for tests, in YOLO format and noise photographs for SR; an arbitrary-scale network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from torch import nn

from models.capabilities import AnyScale, Capabilities


def draw_detection_set(folder: Path, images: int = 6, size: tuple[int, int] = (64, 64), seed: int = 0) -> Path:
    """Write images/{train,val}, labels/{train,val} and data.yaml (2 classes); returns the YAML's path."""
    rng = np.random.default_rng(seed)
    height, width = size
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for index in range(images):
            image = rng.integers(60, 120, (height, width, 3), dtype=np.uint8)
            lines = []
            for _ in range(2):
                side = int(rng.integers(8, 24))
                x, y = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
                label = int(rng.integers(0, 2))
                image[y : y + side, x : x + side] = (250, 250, 250) if label else (10, 10, 10)
                box = ((x + side / 2) / width, (y + side / 2) / height, side / width, side / height)
                lines.append(f"{label} " + " ".join(f"{v:.6f}" for v in box))
            Image.fromarray(image).save(folder / "images" / split / f"{index}.png")
            (folder / "labels" / split / f"{index}.txt").write_text("\n".join(lines) + "\n")
    data = {"path": ".", "train": "images/train", "val": "images/val", "names": {0: "dark", 1: "bright"}}
    (folder / "data.yaml").write_text(yaml.safe_dump(data))
    return folder / "data.yaml"


def draw_photographs(folder: Path, images: int = 3, size: tuple[int, int] = (48, 48), seed: int = 0) -> Path:
    """Write smooth random PNG images; returns the folder."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for index in range(images):
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


class AnySize(nn.Module):
    """The smallest arbitrary-scale network: a convolution, then interpolation to the size."""

    capabilities = Capabilities(receptive_radius=2, scales=AnyScale())
    scale = 2
    tail = None
    spec = {"name": "any_size", "args": {}}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, lr: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return F.interpolate(self.conv(lr), size=size, mode="bilinear")
