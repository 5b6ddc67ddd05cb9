"""detections.json: what every row found in every image, beside the ground truth, for pictures that are drawn later."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data.detection import DetectionDataset
from evaluation.detection_eval import SplitResult
from utils.atomic_file import replace_file

DETECTIONS = "detections.json"
MOST = 100  # boxes per image and class; COCO counts no more


def write_detections(path: Path, dataset: DetectionDataset, results: dict[str, SplitResult]) -> None:
    """Write a COCO data set (images, categories, annotations) with one more key, `detections`: row -> COCO results.

    Boxes are x, y, width, height in pixels of the original images; image ids count from 0 in the order of the split,
    category ids from 1 in that of the classes. All that COCO counts is written, unrounded, so that the file gives the
    mAP of the table: of every image and class the 100 best boxes. (A score is the shortest text of its float32: the
    order of scores is kept, and equal ones stay equal.)

    Args:
        path: file to write.
        dataset: the split.
        results: row name -> its result.
    """

    def write(file) -> None:
        for part in parts(dataset, results):
            file.write(part.encode())

    replace_file(path, write)


def parts(dataset: DetectionDataset, results: dict[str, SplitResult]) -> Iterator[str]:
    """The text of the file, bit by bit: with many rows it is large."""
    ground_truth = next(iter(results.values())).ground_truth
    images = [
        {"id": number, "file_name": str(record.image), "height": height, "width": width}
        for number, (record, (_, _, (height, width))) in enumerate(zip(dataset.records, ground_truth, strict=True))
    ]
    found = [
        coco_box(number, box, label)
        for number, (boxes, labels, _) in enumerate(ground_truth)
        for box, label in zip(boxes, labels, strict=True)
    ]
    annotations = [
        entry | {"id": index, "area": entry["bbox"][2] * entry["bbox"][3], "iscrowd": 0}
        for index, entry in enumerate(found, start=1)
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(dataset.names, start=1)]
    for key, value in (("images", images), ("categories", categories), ("annotations", annotations)):
        yield f"{'{' if key == 'images' else ','}\n{json.dumps(key)}: {compact(value)}"
    yield ',\n"detections": {'
    for index, (name, result) in enumerate(results.items()):
        entries = [
            coco_box(number, row[:4], row[5]) | {"score": float(str(np.float32(row[4])))}
            for number, rows in enumerate(result.detections)
            for row in counted(rows)
        ]
        yield f"{',' * (index > 0)}\n{json.dumps(name)}: {compact(entries)}"
    yield "\n}}\n"


def counted(rows: np.ndarray) -> np.ndarray:
    """Those of the detections (n, 6) of an image that COCO counts, best first: MOST of each class."""
    rows = rows[np.argsort(-rows[:, 4], kind="stable")]
    rank = np.zeros(len(rows), int)
    for label in np.unique(rows[:, 5]):
        same = rows[:, 5] == label
        rank[same] = np.arange(same.sum())
    return rows[rank < MOST]


def coco_box(image: int, corners: np.ndarray, label: float) -> dict:
    """Box x1, y1, x2, y2 of an image as a COCO entry."""
    x1, y1, x2, y2 = (float(value) for value in corners)
    return {"image_id": image, "category_id": int(label) + 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}


def compact(value: list) -> str:
    return json.dumps(value, separators=(",", ":"))
