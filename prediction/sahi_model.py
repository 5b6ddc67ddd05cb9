"""The Python API as a detection model of SAHI, which slices large images and merges the boxes of the slices."""

from __future__ import annotations

from typing import Any

import numpy as np

from prediction.api import ConditionalYOLO
from prediction.results import ConditionalResults
from utils.extras import require


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
    base = require("sahi.models.base", "integrations", "SAHI's detection model")
    prediction = require("sahi.prediction", "integrations", "SAHI's detection model")
    chosen = str(model.checked_policy(policy)) if model.conditional else None

    class ConditionalDetectionModel(base.DetectionModel):  # type: ignore[name-defined]
        """Runs all slices of a call through one `predict`."""

        def set_model(self, model: ConditionalYOLO, **_: object) -> None:
            self.model = model
            self.category_mapping = {str(label): name for label, name in model.names.items()}

        def perform_inference(self, image: np.ndarray) -> None:
            """Image (H, W, 3) RGB."""
            self.perform_batch_inference([image])

        def perform_batch_inference(self, images: list[np.ndarray]) -> None:
            found = self.model.predict(
                list(images), chosen, conf=self.confidence_threshold, channels="rgb", batch=len(images)
            )
            self._original_predictions = found
            self._original_shapes = [image.shape for image in images]

        def _create_object_prediction_list_from_original_predictions(
            self, shift_amount_list=((0, 0),), full_shape_list=None
        ) -> None:
            """Boxes of slices, shifted (x, y) into full images of (height, width)."""
            shifts = per_image(shift_amount_list)
            shapes = [[*shape[:2]] for shape in self._original_shapes]
            if full_shape_list is not None:
                shapes = per_image(full_shape_list)
            self._object_prediction_list_per_image = [
                [
                    prediction.ObjectPrediction(
                        bbox=box, category_id=int(label), category_name=self.category_mapping[str(int(label))],
                        score=score, shift_amount=[int(by) for by in shift], full_shape=[int(side) for side in shape],
                    )
                    for *box, score, label in rows_of(result)
                ]
                for result, shift, shape in zip(self._original_predictions, shifts, shapes, strict=True)
            ]  # fmt: skip

    return ConditionalDetectionModel(
        model=model, confidence_threshold=conf, device=str(model.predictor.device), load_at_init=True
    )


def rows_of(result: ConditionalResults) -> list[list[float]]:
    """x1, y1, x2, y2, score, class of each box."""
    return [] if result.boxes is None else result.boxes.data.tolist()


def per_image(values) -> list:
    """[x, y] of a single image, or [[x, y], ...] -> [[x, y], ...]."""
    return [values] if isinstance(values[0], int | float) else list(values)
