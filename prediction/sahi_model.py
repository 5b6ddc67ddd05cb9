"""The Python API as a detection model of SAHI, which slices large images and merges the boxes of the slices."""

from __future__ import annotations

from typing import Any

import numpy as np

from prediction.api import ConditionalYOLO
from prediction.results import ConditionalResults
from prediction.sahi_detection import sahi_detection_model


def sahi_model(model: ConditionalYOLO, policy: str | None = None, conf: float = 0.3) -> Any:
    """What `sahi.predict.get_prediction` and `get_sliced_prediction` take as detection_model.

    Args:
        model: system with a detector; boxes come in pixels of the image that SAHI is given.
        policy: where SR_Quality runs in each slice; see `ConditionalYOLO.predict`.
        conf: lowest score.

    Returns:
        An instance of a class derived from `sahi.models.base.DetectionModel`.

    Raises:
        UserError: a policy that this system does not have, an SR network alone, or SAHI is missing.
    """
    chosen = str(model.checked_policy(policy)) if model.conditional else None

    def find(images: list[np.ndarray], conf: float) -> list[list[list[float]]]:
        found = model.predict(list(images), chosen, conf=conf, channels="rgb", batch=len(images))
        return [rows_of(result) for result in found]

    return sahi_detection_model(find, tuple(model.names.values()), conf, str(model.predictor.device))


def rows_of(result: ConditionalResults) -> list[list[float]]:
    """x1, y1, x2, y2, score, class of each box."""
    return [] if result.boxes is None else result.boxes.data.tolist()
