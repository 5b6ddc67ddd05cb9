"""A detector of one of Ultralytics' models with spread-out scores, so that prediction has something to suppress."""

from __future__ import annotations

import torch

from models.detector_yolo import YoloDetector

NAMES = ["dark", "bright", "odd"]


def build(model: str = "yolo11n.yaml") -> YoloDetector:
    """Detector with spread-out scores, so that prediction has something to suppress."""
    torch.manual_seed(0)
    detector = YoloDetector(model, NAMES)
    for name, parameter in detector.named_parameters():
        if "cv3" in name and name.endswith("2.bias"):
            parameter.data.normal_()
    return detector
