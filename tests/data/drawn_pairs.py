"""Pictures of random pixels, and data sets of patches of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from configs.sr_schema import SRDataConfig
from data.image_cache import ImageCache
from data.sr_pairs import SRPairDataset

LIMIT = 10**8


def save(path: Path, height: int, width: int, seed: int = 0) -> np.ndarray:
    image = np.random.default_rng((seed, height, width)).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return image


def make(folder: Path, scale: int = 2, lr: Path | None = None, **more) -> SRPairDataset:
    own = {"seed": 1, "cache": ImageCache("memory"), "scales": None, "draw": None}
    own |= {key: more.pop(key) for key in own.keys() & more.keys()}
    data = {"patch": 8, "samples_per_epoch": 40, "max_pixels": LIMIT, "on_bad_image": "error"} | more
    return SRPairDataset(SRDataConfig([str(folder)], [str(lr)] if lr else [], **data), scale, **own)
