"""Tiny systems for the simulated device: untrained, but their maskers hesitate and their detectors find boxes."""

from __future__ import annotations

import torch

from models import build_sr
from models.conditional_sr import ConditionalSR
from models.detector_yolo import YoloDetector
from models.masker import Masker
from models.system import ConditionalSRDetector

TINY = {
    "nc": 2,
    "backbone": [[-1, 1, "Conv", [width, 3, 2]] for width in (8, 16, 16, 32, 32)],
    "head": [[[2, 3, 4], 1, "Detect", ["nc"]]],
    "yaml_file": "tiny.yaml",
}
POLICIES = ("learned", "threshold=0.5", "budget=0.25", "random=0.25", "edge=0.25", "all_fast", "all_quality")
ARGS: dict[str, dict] = {
    "espcn": {"n_feats": 8},
    "edsr": {"n_blocks": 1, "n_feats": 8},
    "srresnet": {"n_blocks": 1},
    "rcan": {"n_groups": 1, "n_blocks": 1},
    "swinir_light": {"n_groups": 1},
}


def tiny_detector() -> YoloDetector:
    detector = YoloDetector(TINY, ("dark", "bright"))
    with torch.no_grad():
        for scores, sides in zip(detector.head.cv3, detector.head.cv2, strict=True):
            scores[-1].weight.normal_(std=0.1)
            scores[-1].bias.fill_(-1.0)
            sides[-1].bias.view(4, -1)[:, 1] += 5.0
    return detector.eval()


def tiny_system(fast: str = "espcn", quality: str = "edsr") -> ConditionalSRDetector:
    torch.manual_seed(0)
    front = ConditionalSR(Masker(8), build_sr(fast, 2, ARGS.get(fast)), build_sr(quality, 2, ARGS.get(quality)))
    with torch.no_grad():
        front.masker.offset.zero_()
        front.masker.logits.weight.normal_()
    return ConditionalSRDetector(front, tiny_detector()).eval()


def image(batch: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))
