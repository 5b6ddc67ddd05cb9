"""Objects that one row misses and another finds, from detections.json: how many, and what they look like."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from utils.errors import UserError
from utils.overlay import draw_boxes

SCORE, OVERLAP = 0.25, 0.5  # what counts as found: what a user sees, at the IoU of mAP50
CROP, SIDE = 96, 224  # pixels of the original image around an object at least; pixels of a panel


@dataclass(frozen=True)
class Missed:
    """An object that the examined row does not find.

    Args:
        image: its entry in detections.json.
        annotation: its entry there.
        found_by: rows that find it.
    """

    image: dict
    annotation: dict
    found_by: tuple[str, ...]


@dataclass(frozen=True)
class Detections:
    """detections.json: a COCO data set with the boxes of every row.

    Args:
        images: by id.
        annotations: ground truth.
        names: class names, index = category id - 1.
        found: row -> image id -> COCO results, with a score of at least SCORE.
    """

    images: dict[int, dict]
    annotations: list[dict]
    names: list[str]
    found: dict[str, dict[int, list[dict]]]


def read_detections(file: Path) -> Detections:
    """Raises ValueError where the file is no such file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        found = {}
        for row, entries in content["detections"].items():
            found[row] = defaultdict(list)
            for entry in entries:
                if entry["score"] >= SCORE:
                    found[row][entry["image_id"]].append(entry)
        images = {image["id"]: image for image in content["images"]}
        names = [entry["name"] for entry in sorted(content["categories"], key=lambda entry: entry["id"])]
        return Detections(images, content["annotations"], names, found)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: no detections of evaluate.py ({error!r}); delete it and measure again") from None


def overlap(box: list[float], other: list[float]) -> float:
    """Intersection over union of two boxes x, y, width, height."""
    width = min(box[0] + box[2], other[0] + other[2]) - max(box[0], other[0])
    height = min(box[1] + box[3], other[1] + other[3]) - max(box[1], other[1])
    shared = max(width, 0) * max(height, 0)
    union = box[2] * box[3] + other[2] * other[3] - shared
    return shared / union if union > 0 else 0.0


def found_ids(detections: Detections, row: str) -> set[int]:
    """Ids of the objects that a row finds: boxes take objects of their class one to one, the best score first."""
    objects = defaultdict(list)
    for annotation in detections.annotations:
        objects[annotation["image_id"]].append(annotation)
    taken: set[int] = set()
    for image, entries in detections.found[row].items():
        for entry in sorted(entries, key=lambda entry: -entry["score"]):
            free = [
                (overlap(entry["bbox"], annotation["bbox"]), annotation["id"])
                for annotation in objects[image]
                if annotation["category_id"] == entry["category_id"] and annotation["id"] not in taken
            ]
            best = max(free, default=(0.0, 0))
            if best[0] >= OVERLAP:
                taken.add(best[1])
    return taken


def missed_objects(detections: Detections, row: str, others: list[str]) -> list[Missed]:
    """Objects that `row` misses and at least one of `others` finds, in the order of the file."""
    own = found_ids(detections, row)
    theirs = {other: found_ids(detections, other) for other in others}
    missed = []
    for annotation in detections.annotations:
        finders = tuple(other for other in others if annotation["id"] in theirs[other])
        if annotation["id"] not in own and finders:
            missed.append(Missed(detections.images[annotation["image_id"]], annotation, finders))
    return missed


def shown_cases(missed: list[Missed], count: int) -> list[Missed]:
    """At most `count` of them, from as many images as possible."""
    turns: dict[int, int] = defaultdict(int)
    ranked = []
    for number, case in enumerate(missed):
        ranked.append((turns[case.image["id"]], number, case))
        turns[case.image["id"]] += 1
    return [case for _, _, case in sorted(ranked, key=lambda entry: entry[:2])[:count]]


def case_picture(case: Missed, detections: Detections, rows: list[str]) -> np.ndarray | None:
    """The object in the HR image, the ground truth and then what each of the rows finds around it; uint8
    (SIDE, SIDE x (1 + rows), 3), RGB; None where the image is not there any more."""
    pixels = cv2.imread(case.image["file_name"], cv2.IMREAD_COLOR)
    if pixels is None:
        return None
    x, y, width, height = case.annotation["bbox"]
    side = int(min(max(CROP, 2 * width, 2 * height), *pixels.shape[:2]))
    left = int(np.clip(x + width / 2 - side / 2, 0, pixels.shape[1] - side))
    top = int(np.clip(y + height / 2 - side / 2, 0, pixels.shape[0] - side))
    crop = cv2.resize(pixels[top : top + side, left : left + side, ::-1], (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    panels = [draw_boxes(crop, placed([case.annotation], left, top, SIDE / side), detections.names, (255, 255, 255))]
    for row in rows:
        boxes = placed(detections.found[row][case.image["id"]], left, top, SIDE / side)
        panels.append(draw_boxes(crop, boxes, detections.names))
    return np.concatenate(panels, axis=1)


def placed(entries: list[dict], left: int, top: int, zoom: float) -> np.ndarray:
    """COCO entries as (n, 6) x1, y1, x2, y2 in pixels of an enlarged crop, score (NaN for ground truth), class; those
    outside of the crop are left out."""
    boxes = np.zeros((len(entries), 6))
    for row, entry in zip(boxes, entries, strict=True):
        x, y, width, height = entry["bbox"]
        corners = np.array([x - left, y - top, x + width - left, y + height - top]) * zoom
        row[:] = (*corners, entry.get("score", np.nan), entry["category_id"] - 1)
    inside = (boxes[:, 2] > 0) & (boxes[:, 3] > 0) & (boxes[:, 0] < SIDE) & (boxes[:, 1] < SIDE)
    return boxes[inside]
