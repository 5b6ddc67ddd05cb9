"""Small drawn data sets for tests, in YOLO format, photographs and a benchmark for SR; an arbitrary-scale network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from torch import nn

from models.capabilities import AnyScale, Capabilities
from tests.imresize import imresize


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


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A picture with what photographs have, shading, edges at any angle, fine texture and grain; uint8 (H, W, 3)."""
    rng, fine = np.random.default_rng(seed), 3
    y, x = (np.mgrid[0 : fine * height, 0 : fine * width] + 0.5) / (fine * max(height, width))
    image = np.stack([0.35 + 0.4 * x, 0.5 + 0.3 * y, 0.65 - 0.3 * x * y], axis=-1)
    for number in range(16):
        row, column, size, angle, *colour = rng.random(7)
        along, across = (
            (x - column) * np.cos(turn) + (y - row) * np.sin(turn) for turn in (np.pi * angle, np.pi * (angle + 0.5))
        )
        shape = (
            np.hypot(along, across) < 0.15 * size if number % 2 else (abs(along) < 0.3) & (abs(across) < 0.03 * size)
        )
        texture = 0.12 * np.sin(2 * np.pi * (8 + 40 * size) * along) if number % 3 == 0 else 0 * along
        image[shape] = (np.array(colour) + texture[..., None])[shape]
    image = image.reshape(height, fine, width, fine, 3).mean((1, 3)) + 0.02 * (rng.random((height, width, 3)) - 0.5)
    return np.floor(image.clip(0, 1) * 255 + 0.5).astype(np.uint8)


BENCHMARK_SIZES = ((96, 120), (84, 132), (108, 72))  # multiples of every scale


def draw_sr_benchmark(folder: Path, scales: tuple[int, ...] = (2, 3, 4)) -> Path:
    """Three photographs laid out as the published benchmarks are, LR as MATLAB makes it; returns the folder."""
    (folder / "HR").mkdir(parents=True)
    for number, size in enumerate(BENCHMARK_SIZES, start=1):
        hr = photograph(*size, seed=number)
        Image.fromarray(hr).save(folder / "HR" / f"img_{number:03d}.png")
        for scale in scales:
            (folder / "LR_bicubic" / f"X{scale}").mkdir(parents=True, exist_ok=True)
            lr = Image.fromarray(imresize(hr, 1 / scale))
            lr.save(folder / "LR_bicubic" / f"X{scale}" / f"img_{number:03d}x{scale}.png")
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
