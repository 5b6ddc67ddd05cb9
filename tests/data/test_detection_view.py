"""The view that stage 1 trains on: links and fresh labels; the user's folders are only read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from data.data_spec import Record
from data.detection_view import build_view, label_file_text, unique_names


def record(image: Path, n: int = 1) -> Record:
    return Record(image, image.with_suffix(".txt"), 8, 8, np.arange(n), np.full((n, 4), 0.25, np.float32))


def draw(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    return path


def test_view_holds_links_labels_and_yaml(tmp_path):
    images = [draw(tmp_path / "a" / "x.png"), draw(tmp_path / "b" / "x.png"), draw(tmp_path / "b" / "X.jpg")]
    splits = {"train": [record(images[0], 2), record(images[1], 0), record(images[2])], "val": [record(images[1])]}
    file = build_view(tmp_path / "view", ["cat", "Öl"], splits)
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert content == {
        "path": str(tmp_path / "view"),
        "names": {0: "cat", 1: "Öl"},
        "train": "images/train",
        "val": "images/val",
    }
    view = tmp_path / "view"
    links = sorted((view / "images" / "train").iterdir())
    assert [p.name for p in links] == ["1_x.png", "2_X.jpg", "x.png"]
    assert [p.resolve() for p in links] == [images[1], images[2], images[0]]
    texts = {p.name: p.read_text() for p in (view / "labels" / "train").iterdir()}
    assert texts == {
        "x.txt": "0 0.25 0.25 0.25 0.25\n1 0.25 0.25 0.25 0.25\n",
        "1_x.txt": "",
        "2_X.txt": label_file_text(splits["train"][2]),
    }


def test_view_replaces_an_earlier_view_only(tmp_path):
    image = draw(tmp_path / "a" / "x.png")
    build_view(tmp_path / "view", ["cat"], {"train": [record(image), record(image)]})
    (tmp_path / "view" / "labels" / "train.cache").write_text("written by Ultralytics")
    build_view(tmp_path / "view", ["cat"], {"train": [record(image)]})
    assert sorted(p.name for p in (tmp_path / "view" / "images" / "train").iterdir()) == ["x.png"]
    assert not (tmp_path / "view" / "labels" / "train.cache").exists() and image.is_file()
    (tmp_path / "precious").mkdir()
    with pytest.raises(ValueError, match="is no data view"):
        build_view(tmp_path / "precious", ["cat"], {})


def test_names_stay_unique_even_if_a_number_is_taken():
    paths = [Path("a/x.png"), Path("a/1_x.png"), Path("b/x.png"), Path("c/X.jpg")]
    assert unique_names(paths) == ["x.png", "1_x.png", "2_x.png", "3_X.jpg"]


def test_labels_keep_single_precision(tmp_path):
    boxes = np.random.default_rng(0).random((50, 4), dtype=np.float32)
    text = label_file_text(Record(tmp_path, tmp_path, 1, 1, np.zeros(50, np.int64), boxes))
    again = np.array([line.split()[1:] for line in text.splitlines()], np.float32)
    np.testing.assert_allclose(again, boxes, rtol=1e-7)


def test_images_that_ultralytics_reads_otherwise_are_written_as_png(tmp_path):
    image = draw(tmp_path / "a" / "x.png").rename(tmp_path / "a" / "x.ppm.png")
    odd = replace(record(image), common=None)
    named = replace(record(draw(tmp_path / "b" / "y.png").rename(tmp_path / "b" / "y.apng")), common=".png")
    build_view(tmp_path / "view", ["cat"], {"train": [odd, named]})
    view = tmp_path / "view" / "images" / "train"
    assert sorted(path.name for path in view.iterdir()) == ["x.ppm.png", "y.png"]
    assert not (view / "x.ppm.png").is_symlink() and (view / "y.png").is_symlink()
    np.testing.assert_array_equal(np.asarray(Image.open(view / "x.ppm.png")), np.zeros((8, 8, 3), np.uint8))
