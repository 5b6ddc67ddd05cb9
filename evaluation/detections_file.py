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
MOST = 100  # boxes per image; COCO counts no more of a class


def write_detections(path: Path, dataset: DetectionDataset, results: dict[str, SplitResult]) -> None:
    """Write a COCO data set (images, categories, annotations) with one more key, `detections`: row -> COCO results.

    Boxes are x, y, width, height in pixels of the original images, rounded to 1/100; image ids count from 0 in the
    order of the split, category ids from 1 in that of the classes. At most the 100 best boxes of an image are written.

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
    truths = next(iter(results.values())).truths
    images = [
        {"id": number, "file_name": str(record.image), "height": height, "width": width}
        for number, (record, (_, _, (height, width))) in enumerate(zip(dataset.records, truths, strict=True))
    ]
    found = [
        (number, box, label)
        for number, (boxes, labels, _) in enumerate(truths)
        for box, label in zip(boxes, labels, strict=True)
    ]
    annotations = [
        coco_box(number, box, label) | {"id": index, "area": round(float(np.prod(box[2:] - box[:2])), 2), "iscrowd": 0}
        for index, (number, box, label) in enumerate(found, start=1)
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(dataset.names, start=1)]
    for key, value in (("images", images), ("categories", categories), ("annotations", annotations)):
        yield f"{'{' if key == 'images' else ','}\n{json.dumps(key)}: {compact(value)}"
    yield ',\n"detections": {'
    for index, (name, result) in enumerate(results.items()):
        entries = [
            coco_box(number, row[:4], row[5]) | {"score": round(float(row[4]), 5)}
            for number, rows in enumerate(result.detections)
            for row in rows[np.argsort(-rows[:, 4], kind="stable")][:MOST]
        ]
        yield f"{',' * (index > 0)}\n{json.dumps(name)}: {compact(entries)}"
    yield "\n}}\n"


def coco_box(image: int, corners: np.ndarray, label: float) -> dict:
    """Box x1, y1, x2, y2 of an image as a COCO entry."""
    x1, y1, x2, y2 = (float(value) for value in corners)
    box = [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)]
    return {"image_id": image, "category_id": int(label) + 1, "bbox": box}


def compact(value: list) -> str:
    return json.dumps(value, separators=(",", ":"))
