"""A system that is small enough to be exported in seconds: a detector of nine layers, one block of SR_Quality."""

from __future__ import annotations

import torch

from models import build_sr
from models.conditional_sr import ConditionalSR
from models.detector_yolo import YoloDetector
from models.execution import Execution
from models.masker import Masker
from models.system import ConditionalSRDetector
from tests.prediction.running import liven_up

TINY_YOLO = {
    "nc": 2,
    "backbone": [
        [-1, 1, "Conv", [8, 3, 2]],
        [-1, 1, "Conv", [8, 3, 2]],
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "Conv", [16, 3, 2]],
    ],
    "head": [
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [[-1, 2], 1, "Concat", [1]],
        [-1, 1, "C2f", [16]],
        [[6, 3], 1, "Detect", ["nc"]],
    ],
}


def tiny_system(patch: int = 8, fast: str = "espcn", halo: int | None = 1, n_blocks: int = 1) -> ConditionalSRDetector:
    torch.manual_seed(0)
    quality = build_sr("edsr", 4, {"n_blocks": n_blocks, "n_feats": 8})
    torch.nn.init.normal_(quality.body[-1].weight, std=0.1)  # the body starts as zero: it shall be seen
    front = ConditionalSR(Masker(patch, 4), build_sr(fast, 4), quality, Execution(halo=halo))
    system = ConditionalSRDetector(front, YoloDetector(TINY_YOLO, ("cat", "dog")))
    liven_up(system)
    return system.eval()
