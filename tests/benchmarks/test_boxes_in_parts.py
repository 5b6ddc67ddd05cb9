"""What is counted of boxes in parts; with published weights and photographs, how many are those of the whole image."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from benchmarks.boxes_in_parts import canvas, compare, main
from tests.prediction.running import noise


def box(x: float, y: float, side: float, score: float = 0.9, label: int = 0) -> list[float]:
    return [x, y, x + side, y + side, score, label]


def test_every_box_is_counted_once():
    whole = np.array(
        [box(0, 0, 10), box(20, 0, 10), box(40, 0, 10), box(60, 0, 10), box(80, 0, 10, 0.2), box(0, 50, 40)]
    )
    parts = np.array([box(0, 0.2, 10), box(20, 0, 10, 0.1), box(42, 0, 10), box(60, 0, 10, label=1), box(80, 0, 10)])
    counts = compare(whole, parts, 0, 20)
    assert counts == {"boxes": 4, "same": 1, "unsure": 1, "moved": 1, "lost": 1, "more": 1}  # of the other class
    assert compare(whole, parts, 20, None) == {"boxes": 1, "same": 0, "unsure": 0, "moved": 0, "lost": 1, "more": 0}
    assert compare(whole, whole, 0, None)["same"] == 5
    none = np.zeros((0, 6))
    assert compare(none, none, 0, None) == dict.fromkeys(("boxes", "same", "unsure", "moved", "lost", "more"), 0)


def test_the_canvas_is_full(tmp_path):
    for number, size in enumerate(((40, 32), (24, 48))):
        Image.fromarray(np.full((*size, 3), 200 + number, np.uint8)).save(tmp_path / f"{number}.png")
    image = canvas(tmp_path, 30, 50, 4, seed=0)
    assert image.shape == (30, 50, 3) and (image[0] >= 200).all() and (canvas(tmp_path, 30, 50, 4, 0) == image).all()


@pytest.mark.slow
def test_boxes_of_parts_are_those_of_the_whole(tmp_path, shared_data):
    """YOLO11n before photographs: not all, since a detector that sees less of the surroundings scores otherwise."""
    weights = shared_data("weights") / "yolo11n_coco_state_dict_fp16.pt"
    words = ["--detector", str(weights), "--images", str(shared_data("coco128") / "images" / "train")]
    words += ["--lr", "640x480", "--memory-mb", "256", "--json", str(tmp_path / "boxes.json")]
    assert main(words) == 0
    small, _ = json.loads((tmp_path / "boxes.json").read_text())["rows"]
    assert small["parts"] > 1 and small["boxes"] >= 20
    assert small["same"] + small["unsure"] >= 0.8 * small["boxes"] and small["lost"] <= 0.1 * small["boxes"]


def test_a_run_at_toy_size(tmp_path, capsys):
    from tests.test_evaluate import talkative_detector
    from utils.checkpoint import save_network

    detector = talkative_detector(("cat", "dog"))
    save_network(
        tmp_path / "d.pth", "detector", detector.spec["name"], detector.spec["args"], detector.state_dict(), {}
    )
    Image.fromarray(noise(40, 60, 3)).save(tmp_path / "a.png")
    words = ["--detector", str(tmp_path / "d.pth"), "--images", str(tmp_path), "--lr", "120x100", "--memory-mb", "16"]
    assert main([*words, "--json", str(tmp_path / "boxes.json")]) == 0
    rows = json.loads((tmp_path / "boxes.json").read_text())["rows"]
    assert [row["objects"] for row in rows] == ["up to an eighth", "larger"] and rows[0]["parts"] > 1
    assert sum(row["boxes"] for row in rows) > 0
