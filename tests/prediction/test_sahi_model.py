"""SAHI slices images for our API, and its boxes are those of the slices, moved to their places."""

from __future__ import annotations

import numpy as np
import pytest

from prediction.api import ConditionalYOLO
from tests.extras import needs
from tests.prediction.running import noise
from utils.errors import UserError

pytestmark = needs("sahi")


@pytest.fixture(scope="module")
def model(yolov8n_weights) -> ConditionalYOLO:
    return ConditionalYOLO(yolov8n_weights, device="cpu")


def strongest(found: list[list[float]]) -> np.ndarray:
    """(n, 6) x1, y1, x2, y2, score, class in a fixed order; of equal boxes of a class (cut at the border) the best."""
    best = {(*np.round(box, 2).tolist(), label): score for *box, score, label in sorted(found, key=lambda row: row[4])}
    return np.array(sorted([*key[:4], score, key[4]] for key, score in best.items()), np.float32).reshape(-1, 6)


def rows(objects) -> np.ndarray:
    """`strongest` of SAHI's predictions."""
    return strongest([[*it.bbox.to_xyxy(), it.score.value, it.category.id] for it in objects])


def expected(model: ConditionalYOLO, slices: dict[tuple[int, int], np.ndarray]) -> np.ndarray:
    """What `predict` finds in slices (x, y) -> image, in the whole image."""
    found = []
    for (x, y), image in slices.items():
        (result,) = model.predict(image, "budget=0.5", conf=0.1, channels="rgb")
        found += (result.boxes.data.numpy() + np.array([x, y, x, y, 0, 0], np.float32)).tolist()
    return strongest(found)


def test_an_image_without_slices(model):
    from sahi.predict import get_prediction

    from prediction.sahi_model import sahi_model

    image = noise(18, 22, 3)
    result = get_prediction(image, sahi_model(model, "budget=0.5", conf=0.1))
    assert len(result.object_prediction_list) > 0
    np.testing.assert_allclose(rows(result.object_prediction_list), expected(model, {(0, 0): image}), atol=0.02)
    assert {it.category.name for it in result.object_prediction_list} <= {"cat", "dog"}


@pytest.mark.parametrize("batch", [1, 3])
def test_slices(model, batch: int):
    from sahi.predict import get_sliced_prediction

    from prediction.sahi_model import sahi_model

    image = noise(24, 32, 3)
    result = get_sliced_prediction(
        image, sahi_model(model, "budget=0.5", conf=0.1), slice_height=12, slice_width=16, overlap_height_ratio=0,
        overlap_width_ratio=0, perform_standard_pred=False, postprocess_type="NMS", postprocess_match_metric="IOU",
        postprocess_match_threshold=0.999, batch_size=batch, verbose=0,
    )  # fmt: skip
    slices = {(x, y): np.ascontiguousarray(image[y : y + 12, x : x + 16]) for y in (0, 12) for x in (0, 16)}
    right = expected(model, slices)
    assert len(right) > 4
    np.testing.assert_allclose(rows(result.object_prediction_list), right, atol=0.02)


def test_a_policy_that_cannot_be_is_refused_at_once(model):
    from prediction.sahi_model import sahi_model

    with pytest.raises(UserError, match="latency profile"):
        sahi_model(model, "latency_ms=5")
