"""Results are what supervision takes them for, as docs/python_api.md says."""

from __future__ import annotations

import numpy as np

from prediction.api import ConditionalYOLO
from tests.extras import needs


@needs("supervision")
def test_detections_from_a_result(weights, good):
    import supervision as sv

    (result,) = ConditionalYOLO(weights, device="cpu").predict(good / "odd.png", conf=0.1)
    detections = sv.Detections.from_ultralytics(result)
    assert len(detections) == len(result) > 0
    np.testing.assert_allclose(detections.xyxy, result.boxes.xyxy.numpy())
    np.testing.assert_array_equal(detections.class_id, result.boxes.cls.numpy().astype(int))
