"""detections.json: it gives the mAP of the table, to the last digit, however many boxes there are."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from evaluation.detection_eval import SplitResult
from evaluation.detections_file import MOST, counted, write_detections

NAMES = ("small", "large", "third")


def crowded(images: int = 6) -> SplitResult:
    """More than 100 boxes of an image, most of them of one class, with many equal scores; nothing on round numbers."""
    rng, result = np.random.default_rng(0), SplitResult()
    for _ in range(images):
        corners = rng.uniform(0, 300, (9, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(5, 120, (9, 2))], axis=1)
        classes = rng.integers(0, 2, 9)
        moved = np.tile(boxes, (30, 1)) + rng.normal(0, 6, (270, 4))
        scores = (rng.integers(1, 40, 270) / 41).astype(np.float32)
        found = np.column_stack([moved.astype(np.float32), scores, np.tile(classes, 30)]).astype(np.float32)
        found[:60, 5] = 2
        result.detections.append(found)
        result.ground_truth.append((boxes.astype(np.float32), classes, (480, 640)))
    return result


def reloaded(path: Path, row: str) -> np.ndarray:
    """The twelve figures of pycocotools, of the file alone."""
    saved = json.loads(path.read_text())
    with redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {key: saved[key] for key in ("images", "categories", "annotations")} | {"info": {}}
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(saved["detections"][row]), "bbox")
        evaluation.evaluate(), evaluation.accumulate(), evaluation.summarize()
    return evaluation.stats


def test_the_file_gives_exactly_the_map_of_the_table(tmp_path: Path):
    result = crowded()
    records = [SimpleNamespace(image=Path(f"{number}.png")) for number in range(6)]
    write_detections(tmp_path / "d.json", SimpleNamespace(records=records, names=NAMES), {"row": result})
    table = result.metrics(NAMES)
    keys = ("map50_95", "map50", "ap_small", "ap_medium", "ap_large")
    assert reloaded(tmp_path / "d.json", "row")[[0, 1, 3, 4, 5]].tolist() == [table[key] for key in keys]
    assert 0.1 < table["map50_95"] < 0.9


def test_what_counts_is_the_best_hundred_of_a_class():
    found = crowded(1).detections[0]
    left = counted(found)
    for label in (0, 1, 2):
        scores = np.sort(found[found[:, 5] == label, 4])[::-1][:MOST]
        assert left[left[:, 5] == label, 4].tolist() == scores.tolist()
    assert (np.diff(left[:, 4]) <= 0).all() and len(left) < len(found)
