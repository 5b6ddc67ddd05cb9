"""Which objects count as found, which are shown, and where they lie in the picture."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.comparison.failures import (
    SIDE,
    case_picture,
    found_ids,
    missed_objects,
    overlap,
    placed,
    read_detections,
    shown_cases,
)

BOXES = st.tuples(*[st.floats(0, 50)] * 2, *[st.floats(0.5, 50)] * 2).map(list)


def entry(image: int, category: int, box: list[float], score: float | None = None, **more) -> dict:
    found = {"image_id": image, "category_id": category, "bbox": box} | more
    return found if score is None else found | {"score": score}


def write(folder: Path, annotations: list[dict], **rows: list[dict]) -> Path:
    images = [{"id": i, "file_name": str(folder / f"{i}.png"), "height": 120, "width": 160} for i in (0, 1)]
    annotations = [annotation | {"id": number} for number, annotation in enumerate(annotations, start=1)]
    content = {"images": images, "categories": [{"id": 1, "name": "dark"}, {"id": 2, "name": "bright"}]}
    content |= {"annotations": annotations, "detections": rows}
    file = folder / "detections.json"
    file.write_text(json.dumps(content))
    return file


def test_overlap_of_known_boxes():
    assert overlap([0, 0, 10, 10], [0, 0, 10, 10]) == 1
    assert overlap([0, 0, 10, 10], [5, 0, 10, 10]) == pytest.approx(1 / 3)
    assert overlap([0, 0, 10, 10], [10, 0, 10, 10]) == 0 == overlap([0, 0, 1, 1], [5, 5, 1, 1])


@given(BOXES, BOXES)
def test_overlap_is_symmetric_and_a_share(box: list, other: list):
    assert overlap(box, other) == overlap(other, box) and 0 <= overlap(box, other) <= 1 + 1e-9


def test_found_needs_class_place_and_score_and_is_one_to_one(tmp_path: Path):
    truths = [entry(0, 1, [10, 10, 20, 20]), entry(0, 2, [60, 60, 20, 20]), entry(1, 1, [10, 10, 20, 20])]
    truths.append(entry(0, 1, [12, 10, 20, 20]))
    row = [
        entry(0, 1, [10, 10, 20, 20], 0.9),
        entry(0, 1, [60, 60, 20, 20], 0.9),  # another class
        entry(1, 1, [40, 40, 20, 20], 0.9),  # elsewhere
    ]
    weak = [entry(0, 2, [60, 60, 20, 20], 0.1)]
    twice = [entry(0, 1, [10, 10, 20, 20], 0.9), entry(0, 1, [11, 10, 20, 20], 0.8)]
    detections = read_detections(write(tmp_path, truths, row=row, weak=weak, twice=twice))
    assert found_ids(detections, "row") == {1}, "one box finds one object, although it covers two"
    assert found_ids(detections, "weak") == set()
    assert found_ids(detections, "twice") == {1, 4}


def test_missed_objects_name_who_finds_them(tmp_path: Path):
    truths = [entry(0, 1, [10, 10, 20, 20]), entry(0, 2, [60, 60, 20, 20]), entry(1, 1, [10, 10, 20, 20])]
    found = [entry(t["image_id"], t["category_id"], t["bbox"], 0.9) for t in truths]
    file = write(tmp_path, truths, own=found[:1], bicubic=found[:2], hr=found[1:2])
    missed = missed_objects(read_detections(file), "own", ["bicubic", "hr"])
    assert [(case.annotation["id"], case.found_by) for case in missed] == [(2, ("bicubic", "hr"))]


@given(st.lists(st.integers(0, 3), max_size=20), st.integers(0, 8))
def test_cases_come_from_as_many_images_as_possible(images: list[int], count: int):
    from evaluation.comparison.failures import Missed

    cases = [Missed({"id": image}, {"id": number}, ("hr",)) for number, image in enumerate(images)]
    shown = shown_cases(cases, count)
    assert len(shown) == min(count, len(cases))
    assert len({case.image["id"] for case in shown}) == min(count, len(set(images)))


def test_boxes_lie_in_the_enlarged_crop():
    entries = [entry(0, 2, [30, 20, 10, 5], 0.5), entry(0, 1, [0, 0, 10, 10])]
    boxes = placed(entries, left=20, top=10, zoom=2.0)
    assert boxes.tolist() == [[20, 20, 40, 30, 0.5, 1]], "the second lies outside"
    assert np.isnan(placed(entries[1:], 0, 0, 1.0)[0, 4]), "ground truth has no score"


@pytest.mark.parametrize("box", [[70, 50, 8, 8], [0, 0, 10, 10], [150, 110, 10, 10], [0, 0, 160, 120]])
def test_pictures_show_the_object_at_any_place(tmp_path: Path, box: list[int]):
    cv2.imwrite(str(tmp_path / "0.png"), np.full((120, 160, 3), 40, np.uint8))
    file = write(tmp_path, [entry(0, 1, box)], own=[], hr=[entry(0, 1, box, 0.9)])
    detections = read_detections(file)
    case = missed_objects(detections, "own", ["hr"])[0]
    image = case_picture(case, detections, ["own", "hr"])
    assert image.shape == (SIDE, 3 * SIDE, 3) and image.dtype == np.uint8
    truth, own, hr = np.split(image, 3, axis=1)
    assert (truth == 255).any() and (own == 40).all() and (hr != 40).any()
    (tmp_path / "0.png").unlink()
    assert case_picture(case, detections, ["own"]) is None


def test_another_file_is_refused(tmp_path: Path):
    (tmp_path / "detections.json").write_text("[]")
    with pytest.raises(ValueError, match=r"detections.json: no detections of evaluate.py"):
        read_detections(tmp_path / "detections.json")
