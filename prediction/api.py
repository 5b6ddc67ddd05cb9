"""The Python API: one object that holds a trained system, and takes whatever people have as images.

    from prediction.api import ConditionalYOLO

    model = ConditionalYOLO("conditional_sr_yolo_jointly_tuned.pth")
    for result in model.predict("images/", policy="budget=0.25", stream=True):
        print(result.path, result.boxes.xyxy, result.kept_share)

Import it before Ultralytics, which would otherwise look for a network. Nothing is written to inputs, and images do not
depend on each other: a batch gives what single images give.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from data.images import ImageError
from data.sources import Frame, Skipped
from deployment.latency_profile import attach_profile
from deployment.prepare import how_it_runs
from loading.load import load_system, set_halo
from loading.shipped_weights import SHIPPED
from models.mask_policy import POLICIES, WITH_VALUE, MaskPolicy, parse_policy
from models.system import ConditionalSRDetector
from prediction.image_input import open_source
from prediction.predictor import PredictOptions, Predictor
from prediction.results import ConditionalResults
from prediction.super_resolver import SuperResolver, holds_system
from utils.convert import to_image, to_tensor
from utils.device import choose_device, compute_type
from utils.errors import UserError

DEVICES = ("auto", "cpu", "cuda")
DEFAULT_POLICY = "budget=0.25"
MAX_PIXELS = 100_000_000
