"""A function that finds boxes as a detection model of SAHI."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from utils.extras import require

Find = Callable[[list[np.ndarray], float], list[list[list[float]]]]


def sahi_detection_model(find: Find, names: Sequence[str], conf: float, device: str) -> Any:
    """A detection model of SAHI around a function.

    Args:
        find: images of a call (H, W, 3) RGB, all of one size, and the lowest score -> rows x1, y1, x2, y2, score,
            class of each, in its pixels.
        names: of the classes.
        conf: lowest score.
        device: where `find` runs.

    Raises:
        MissingExtra: SAHI is not installed.
    """
    base = require("sahi.models.base", "integrations", "SAHI's detection model")
    prediction = require("sahi.prediction", "integrations", "SAHI's detection model")

    class FoundBy(base.DetectionModel):  # type: ignore[name-defined]
        """Runs all slices of a call through one call of `find`."""

        def set_model(self, model: Find, **_: object) -> None:
            self.model = model
            self.category_mapping = {str(label): name for label, name in enumerate(names)}

        def perform_inference(self, image: np.ndarray) -> None:
            """Image (H, W, 3) RGB."""
            self.perform_batch_inference([image])

        def perform_batch_inference(self, images: list[np.ndarray]) -> None:
            self._original_predictions = self.model(images, self.confidence_threshold)
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
                    for *box, score, label in rows
                ]
                for rows, shift, shape in zip(self._original_predictions, shifts, shapes, strict=True)
            ]  # fmt: skip

    return FoundBy(model=find, confidence_threshold=conf, device=device, load_at_init=True)


def per_image(values) -> list:
    """[x, y] of a single image, or [[x, y], ...] -> [[x, y], ...]."""
    return [values] if isinstance(values[0], int | float) else list(values)
