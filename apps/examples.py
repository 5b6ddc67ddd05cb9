"""Example images of the app, drawn as it starts: rings of the demo and photographs of scikit-image, made small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from data.demo import DemoSpec, draw_scene

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")


def draw_examples(folder: Path, scale: int, rings: int = 2) -> list[Path]:
    """Write LR images, shrunk by `scale` from images of about 512 (photographs) and 320 pixels (rings)."""
    scenes = {f"rings_{number}": draw_scene(DemoSpec(), "test", number).image for number in range(rings)}
    scenes |= {name: getattr(data, name)() for name in PHOTOGRAPHS}
    paths = []
    for name, image in scenes.items():
        paths.append(folder / f"{name}.png")
        save_small(image, scale, paths[-1])
    return paths


def save_small(image: np.ndarray, scale: int, path: Path) -> None:
    """Write an image of uint8 (H, W, 3) RGB at 1/scale of its size, as a low-resolution camera would have taken it."""
    with Image.fromarray(image) as large:
        size = (large.width // scale, large.height // scale)
        path.parent.mkdir(parents=True, exist_ok=True)
        large.resize(size, Image.Resampling.BICUBIC).save(path)
