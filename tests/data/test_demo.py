"""Embedded data set: deterministic, honest labels, never overwrites."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from data.demo import DIRECTIONS, PHOTOS, SPLITS, DemoError, DemoSpec, _coverage, build_demo, draw_scene, main

SMALL = DemoSpec(images=(2, 1, 1), sr_images=(2, 1), side=160, rings=(4, 6))


def digests(folder: Path) -> dict[str, str]:
    """Relative path -> hash of the content of every file."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_seed_gives_the_same_bytes(tmp_path):
    build_demo(tmp_path / "a", SMALL)
    build_demo(tmp_path / "b", SMALL)
    first = digests(tmp_path / "a")
    assert first == digests(tmp_path / "b")
    assert len(first) == 2 * 4 + 3 + 2  # images and labels, SR images, data.yaml and demo.json
    build_demo(tmp_path / "c", replace(SMALL, seed=1))
    assert first["images/train/000000.png"] != digests(tmp_path / "c")["images/train/000000.png"]


def test_an_image_depends_on_its_index_alone():
    more = replace(SMALL, images=(50, 9, 9))
    for split in (*SPLITS, "sr_train"):
        assert np.array_equal(draw_scene(SMALL, split, 1).image, draw_scene(more, split, 1).image)
    images = [draw_scene(SMALL, split, index).image for split in SPLITS for index in range(2)]
    assert len({image.tobytes() for image in images}) == len(images)


def test_splits_share_no_photograph():
    names = [name for split in SPLITS for name in PHOTOS[split]]
    assert len(names) == len(set(names))


def test_files_form_an_ultralytics_data_set(tmp_path):
    path = build_demo(tmp_path / "set", SMALL)
    spec = yaml.safe_load(path.read_text())
    assert spec["names"] == {0: "right", 1: "down", 2: "left", 3: "up"}
    for split in SPLITS:
        pictures = sorted((path.parent / spec[split]).glob("*.png"))
        assert pictures
        for index, picture in enumerate(pictures):
            rows = [line.split() for line in (path.parent / "labels" / split / f"{picture.stem}.txt").open()]
            scene = draw_scene(SMALL, split, index)
            assert np.array_equal(np.asarray(Image.open(picture)), scene.image)
            assert [int(row[0]) for row in rows] == scene.classes.tolist()
            assert np.allclose([[float(v) for v in row[1:]] for row in rows], scene.boxes, atol=1e-6)


@pytest.mark.parametrize("directions", sorted(DIRECTIONS))
def test_the_gap_points_where_the_class_says(directions):
    for label, name in enumerate(DIRECTIONS[directions]):
        angle = 2 * np.pi * label / directions
        ink = _coverage("ring", 30.0, 20.3, 19.6, angle, 40)
        missing = _coverage("closed", 30.0, 20.3, 19.6, angle, 40) - ink
        y, x = np.argwhere(missing > 0.5).mean(axis=0) + 0.5
        assert ("right" in name) == (x - 20.3 > 4) and ("left" in name) == (x - 20.3 < -4)
        assert ("down" in name) == (y - 19.6 > 4) and ("up" in name) == (y - 19.6 < -4)
        assert missing.sum() == pytest.approx(6 * 6, rel=0.1)  # stroke and gap are a fifth of the diameter


def test_boxes_lie_inside_and_have_the_asked_sizes():
    for index in range(5):
        boxes = draw_scene(SMALL, "train", index).boxes
        assert 1 <= len(boxes) <= 6
        assert (boxes[:, :2] - boxes[:, 2:] / 2 >= 0).all() and (boxes[:, :2] + boxes[:, 2:] / 2 <= 1).all()
        pixels = boxes[:, 2] * SMALL.side
        assert (pixels >= SMALL.diameter[0] - 1e-6).all() and (pixels <= SMALL.diameter[1] + 1e-6).all()
        assert np.array_equal(boxes[:, 2], boxes[:, 3])


def test_objects_do_not_touch():
    boxes = draw_scene(replace(SMALL, rings=(30, 30), distractors=(0, 0)), "train", 0).boxes
    gaps = (
        np.hypot(*(boxes[:, None, :2] - boxes[None, :, :2]).transpose(2, 0, 1))
        - (boxes[:, None, 2] + boxes[None, :, 2]) / 2
    )
    assert gaps[~np.eye(len(boxes), dtype=bool)].min() > 0


def test_look_alikes_have_no_label():
    bare = replace(SMALL, rings=(0, 0), distractors=(5, 5))
    scene = draw_scene(bare, "train", 0)
    assert scene.boxes.shape == (0, 4) and scene.classes.shape == (0,)
    empty = draw_scene(replace(bare, distractors=(0, 0)), "train", 0)
    assert (scene.image != empty.image).any()


def test_every_second_sr_image_is_a_plain_photograph():
    assert len(draw_scene(SMALL, "sr_train", 0).boxes) == 0
    assert len(draw_scene(SMALL, "sr_train", 1).boxes) > 0


def test_an_interrupted_build_is_continued_and_a_whole_one_left(tmp_path):
    out = tmp_path / "set"
    build_demo(out, SMALL)
    before = digests(out)
    for lost in ("images/train/000001.png", "labels/train/000001.txt", "sr_val/000000.png", "data.yaml"):
        (out / lost).unlink()
    kept = (out / "images/val/000000.png").stat().st_mtime_ns
    build_demo(out, SMALL)
    assert digests(out) == before
    assert (out / "images/val/000000.png").stat().st_mtime_ns == kept


def test_other_folders_are_not_touched(tmp_path):
    build_demo(tmp_path / "set", SMALL)
    before = digests(tmp_path)
    with pytest.raises(DemoError, match="other parameters"):
        build_demo(tmp_path / "set", replace(SMALL, seed=3))
    with pytest.raises(DemoError, match="not a data set of this command"):
        build_demo(tmp_path, SMALL)
    with pytest.raises(DemoError, match="not a data set of this command"):
        build_demo(tmp_path / "set" / "data.yaml", SMALL)
    assert digests(tmp_path) == before


@pytest.mark.parametrize(
    "change",
    [
        {"directions": 5},
        {"rings": (5, 3)},
        {"images": (-1, 1, 1)},
        {"diameter": (2.0, 40.0)},
        {"side": 64},
        {"faint": 1.5},
        {"groups": (0, 2)},
        {"seed": -1},
    ],
)
def test_faulty_parameters_are_named(change):
    with pytest.raises(DemoError, match=next(iter(change))):
        replace(SMALL, **change)


def test_command(tmp_path, capsys):
    options = ["--images", *"111", "--sr-images", *"11", "--side", "160", "--directions", "8", "--rings", *"23"]
    main(["--out", str(tmp_path / "set"), *options])
    assert capsys.readouterr().out.strip() == str(tmp_path / "set" / "data.yaml")
    assert len(yaml.safe_load((tmp_path / "set" / "data.yaml").read_text())["names"]) == 8
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path / "set"), *options, "--seed", "1"])
    assert "other parameters" in capsys.readouterr().err
