"""What `YoloDetector.raw` gives, the output of the detector's head before decoding: a part of a batch, other types."""

from __future__ import annotations

import torch
from torch import Tensor


def select_images(raw: dict, rows: Tensor) -> dict:
    """Head output of these images of the batch, by their row."""
    if "one2many" in raw:
        return {key: select_images(value, rows) for key, value in raw.items()}
    picked = {"boxes": raw["boxes"][rows], "scores": raw["scores"][rows]}
    return picked | {"feats": [level[rows] for level in raw["feats"]]}


def float32(raw: dict) -> dict:
    """Head output in fp32: in 16 bit the grid positions alone would be off by up to half a cell."""
    if "one2many" in raw:
        return {key: float32(value) for key, value in raw.items()}
    # of the feature maps only shape and type are read, so no copy is needed
    shapes = [raw["boxes"].new_zeros((), dtype=torch.float32).expand(x.shape) for x in raw["feats"]]
    return {"boxes": raw["boxes"].float(), "scores": raw["scores"].float(), "feats": shapes}
