"""Conversions agree with known labels, lose nothing silently, and leave sources and existing files alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from data.annotations import normalise
from data.data_spec import load_data_spec, scan_split
from data.degradation import degrade_bicubic
from data.detection import DetectionDataset
from data.prepare_detection_data import main

ROOT = Path(__file__).resolve().parents[2]


def voc_xml(width: int, height: int, objects: list[tuple], extra: str = "") -> str:
    items = "".join(
        f"<object><name>{name}</name><difficult>{int(name == 'hard')}</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}"
        f"</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, x1, y1, x2, y2 in objects
    )
    return f"<annotation><size><width>{width}</width><height>{height}</height></size>{extra}{items}</annotation>"


def make_voc(folder: Path, objects: dict[str, list[tuple]], size: tuple[int, int] = (40, 30)) -> Path:
    for name, boxes in objects.items():
        for kind in ("images", "xml"):
            (folder / kind / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (90, 80, 70)).save(folder / "images" / f"{name}.jpg")
        (folder / "xml" / f"{name}.xml").write_text(voc_xml(*size, boxes))
    return folder


def voc(folder: Path, *options: str, out: str = "out") -> int:
    base = ["voc", "--images", str(folder / "images"), "--annotations", str(folder / "xml")]
    return main([*base, "--out", str(folder / out), *options])


def state(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(file: Path) -> np.ndarray:
    return np.array([line.split() for line in file.read_text().splitlines()], float).reshape(-1, 5)


# ---------------------------------------------------------------------- Pascal VOC


def test_voc_with_sub_folders_as_splits(tmp_path):
    make_voc(tmp_path, {"train/a": [("cat", 4, 3, 20, 18)], "train/deep/b": [], "val/a": [("dog", 0, 0, 40, 30)]})
    before = state(tmp_path)
    assert voc(tmp_path) == 0
    assert {k: v for k, v in state(tmp_path).items() if not k.startswith("out/")} == before
    spec = load_data_spec(tmp_path / "out/data.yaml")
    assert spec.names == ("cat", "dog")
    (a, b), report = scan_split(spec, "train")
    np.testing.assert_allclose(a.boxes, [[0.3, 0.35, 0.4, 0.5]], atol=1e-7)
    assert len(b.classes) == 0 and b.image.parent.name == "deep" and report.unlabelled == 0
    assert scan_split(spec, "val")[0][0].boxes.tolist() == [[0.5, 0.5, 1, 1]]
    assert (tmp_path / "out/images/train/a.jpg").read_bytes() == before["images/train/a.jpg"]
    assert not list(tmp_path.glob("*.partial"))


def test_voc_options(tmp_path):
    make_voc(tmp_path, {"a": [("cat", 1, 1, 20, 15), ("hard", 1, 1, 5, 5), ("DontCare", 3, 3, 3, 3)]})
    classes = ["--classes", "dog", "cat", "--drop", "DontCare"]
    assert voc(tmp_path, "--one-based", "--drop-difficult", "--link", "--lr", "2", "--splits", "val", *classes) == 0
    np.testing.assert_allclose(rows(tmp_path / "out/labels/val/a.txt"), [[1, 0.25, 0.25, 0.5, 0.5]])
    assert (tmp_path / "out/images/val/a.jpg").is_symlink()
    hr = np.asarray(Image.open(tmp_path / "images/a.jpg"))
    np.testing.assert_array_equal(Image.open(tmp_path / "out/images_lr_x2/val/a.png"), degrade_bicubic(hr, 2))
    assert yaml.safe_load((tmp_path / "out/data.yaml").read_text()) == {
        "val": "images/val",
        "names": {0: "dog", 1: "cat"},
    }


def test_voc_lists(tmp_path):
    make_voc(tmp_path, {name: [("cat", 1, 1, 5, 5)] for name in "abcd"})
    (tmp_path / "lists").mkdir()
    for split, text in {"train": "a\nb  -1\n", "val": "c\n", "trainval": "a\nb\nc\n"}.items():
        (tmp_path / f"lists/{split}.txt").write_text(text)
    lists = ["--lists", str(tmp_path / "lists")]
    assert voc(tmp_path, *lists) == 0
    spec = load_data_spec(tmp_path / "out/data.yaml")
    assert {split: [p.stem for p in files] for split, files in spec.splits.items()} == {
        "train": ["a", "b"],
        "val": ["c"],
    }
    assert voc(tmp_path, *lists, "--splits", "trainval", out="all") == 0
    (tmp_path / "lists/val.txt").write_text("c\nmissing\n")
    assert voc(tmp_path, *lists, out="other") == 1


def test_bad_voc_files_are_named_and_left_out(tmp_path, capsys):
    good = [("cat", 1, 1, 5, 5)]
    make_voc(tmp_path, {name: good for name in ["a", "b", "c", "d", "e", "f", "g", "h"]})
    make_voc(
        tmp_path, {"empty": [("cat", 5, 5, 5, 9)], "outside": [("cat", 50, 5, 60, 9)], "part": [("cat", 30, 5, 60, 9)]}
    )
    (tmp_path / "xml/b.xml").write_text("<annotation>")
    (tmp_path / "xml/c.xml").write_text(voc_xml(40, 31, good))
    (tmp_path / "xml/d.xml").write_text(voc_xml(40, 30, [("cat", 1, "x", 5, 5)]))
    (tmp_path / "xml/e.xml").write_text(voc_xml(40, 30, [("cat", "nan", 1, 5, 5)]))
    (tmp_path / "xml/f.xml").write_text(voc_xml("inf", 30, good))
    (tmp_path / "images/g.jpg").unlink()
    (tmp_path / "images/h.jpg").write_bytes(b"damaged")
    assert voc(tmp_path) == 1
    said = capsys.readouterr()
    bad = ("b.xml", "c.xml", "d.xml", "e.xml", "f.xml", "g.xml", "h.jpg", "empty.xml", "outside.xml")
    for name in bad:
        assert name in said.err
    assert "40x31" in said.err and len(said.err.splitlines()) == len(bad)
    assert "2 images written, 9 files left out" in said.out
    assert sorted(p.stem for p in (tmp_path / "out/images/train").iterdir()) == ["a", "part"]
    np.testing.assert_allclose(
        rows(tmp_path / "out/labels/train/part.txt")[0, 1:], [35 / 40, 7 / 30, 0.25, 4 / 30], atol=1e-8
    )


def test_unknown_class_is_no_silent_loss(tmp_path, capsys):
    make_voc(tmp_path, {"a": [("cat", 1, 1, 5, 5)], "b": [("dog", 1, 1, 5, 5)]})
    assert voc(tmp_path, "--classes", "cat") == 1
    assert "class `dog` is not in --classes" in capsys.readouterr().err


def test_nothing_is_overwritten(tmp_path, capsys):
    make_voc(tmp_path, {"a": [("cat", 1, 1, 5, 5)]})
    (tmp_path / "out").mkdir()
    (tmp_path / "out/precious").write_text("x")
    before = state(tmp_path)
    for out in ("out", "images/new", "xml/new"):
        with pytest.raises(SystemExit, match="2"):
            voc(tmp_path, out=out)
    assert state(tmp_path) == before
    said = capsys.readouterr().err
    assert "never overwritten" in said and "lies inside the source" in said
    (tmp_path / "new.partial").mkdir()
    with pytest.raises(SystemExit, match="2"):
        voc(tmp_path, out="new")
    assert "interrupted" in capsys.readouterr().err


def test_nothing_usable_leaves_nothing_behind(tmp_path, capsys):
    make_voc(tmp_path, {"a": [("cat", 5, 5, 5, 5)]})
    before = state(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        voc(tmp_path)
    assert state(tmp_path) == before and not (tmp_path / "out.partial").exists()
    for wrong in (["--lists", str(tmp_path / "none")], ["--splits", "a", "b"]):
        with pytest.raises(SystemExit, match="2"):
            voc(tmp_path, *wrong)
    assert "check --lists" in capsys.readouterr().err


# ---------------------------------------------------------------------- COCO


def coco_json(images: list[dict], annotations: list[dict], names: dict[int, str]) -> dict:
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": n} for i, n in names.items()],
    }


def run_coco(folder: Path, content: dict, *options: str, out: str = "out", split: str = "train") -> int:
    (folder / f"{split}.json").write_text(json.dumps(content))
    images = ["coco", "--split", split, str(folder / f"{split}.json"), str(folder / "pictures")]
    return main([*images, "--out", str(folder / out), *options])


def test_yolo_to_coco_and_back(tmp_path):
    """Boxes survive the way through COCO pixels within 1e-6."""
    rng = np.random.default_rng(0)
    (tmp_path / "pictures/sub").mkdir(parents=True)
    images, annotations, written = [], [], {}
    for i in range(12):
        height, width = int(rng.integers(20, 700)), int(rng.integers(20, 700))
        name = f"sub/{i}.png" if i % 2 else f"{i}.png"
        Image.new("L", (width, height)).save(tmp_path / "pictures" / name)
        images.append({"id": 100 - i, "file_name": name, "height": height, "width": width})
        low = rng.random((i, 2)) * 0.9
        size = rng.random((i, 2)) * (1 - low) + 1e-3
        size = np.minimum(size, 1 - low)
        classes = rng.integers(0, 3, i)
        written[Path(name).stem] = np.column_stack([classes, low + size / 2, size])
        for label, (x, y), (w, h) in zip(classes, low, size):
            box = [float(x * width), float(y * height), float(w * width), float(h * height)]
            annotations.append({"image_id": 100 - i, "category_id": [3, 7, 90][label], "bbox": box, "iscrowd": 0})
    annotations.append({"image_id": 100, "category_id": 3, "bbox": [0, 0, 5, 5], "iscrowd": 1})
    assert run_coco(tmp_path, coco_json(images, annotations, {90: "c", 3: "a", 7: "b"})) == 0
    spec = load_data_spec(tmp_path / "out/data.yaml")
    assert spec.names == ("a", "b", "c")
    records, report = scan_split(spec, "train")
    assert report.used == 12 and report.boxes == sum(range(12))
    for record in records:
        expected = written[record.image.stem]
        np.testing.assert_array_equal(record.classes, expected[:, 0])
        np.testing.assert_allclose(record.boxes, expected[:, 1:], atol=1e-6)


def test_bad_coco_entries_are_named_and_left_out(tmp_path, capsys):
    (tmp_path / "pictures").mkdir()
    for name in "abcdef":
        Image.new("RGB", (40, 30)).save(tmp_path / f"pictures/{name}.png")
    Image.new("RGB", (40, 30)).save(tmp_path / "secret.png")
    names = ["a.png", "b.png", "c.png", "d.png", "../secret.png", "none.png", "f.png"]
    images = [{"id": i, "file_name": name, "height": 30, "width": 40} for i, name in enumerate(names)]
    images[6]["width"] = 41
    boxes = [[1, 1, 5, 5], [1, 1, 0, 5], [1, 1, 5], [1, 1, 5, 5], [1, 1, 5, 5], [1, 1, 5, 5], [1, 1, 5, 5]]
    annotations = [{"image_id": i, "category_id": 1, "bbox": box} for i, box in enumerate(boxes)]
    annotations[3]["category_id"] = 5
    assert run_coco(tmp_path, coco_json(images, annotations, {1: "x"}), "--lr", "4") == 1
    said = capsys.readouterr()
    assert "1 images written, 6 files left out" in said.out
    for text in (
        "b: none of its objects can be used (box without area)",
        "(c.png)",
        "(d.png)",
        "leaves the image folder",
        "none",
        "41x30",
    ):
        assert text in said.err
    assert [p.name for p in (tmp_path / "out/images_lr_x4/train").iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": []}, "key or image id 'categories'"),
        ([], "not a COCO"),
        ({"images": [], "categories": [], "annotations": [{"image_id": 4}]}, "image id '4'"),
        (coco_json([], [], {1: "a", 2: "a"}), "same name"),
    ],
)
def test_unusable_coco_file(tmp_path, capsys, content, message):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(SystemExit, match="2"):
        run_coco(tmp_path, content)
    assert message in capsys.readouterr().err


def test_coco_splits_must_name_the_same_classes(tmp_path, capsys):
    for split, names in (("train", {1: "a"}), ("val", {1: "b"})):
        (tmp_path / f"{split}.json").write_text(json.dumps(coco_json([], [], names)))
    with pytest.raises(SystemExit, match="2"):
        splits = [["--split", s, f"{tmp_path / s}.json", str(tmp_path)] for s in ("train", "val")]
        main(["coco", "--out", str(tmp_path / "out"), *splits[0], *splits[1]])
    assert "categories differ" in capsys.readouterr().err


# ---------------------------------------------------------------------- LR copies, command line


def test_lr_copies_serve_the_folder_mode(tmp_path):
    make_voc(tmp_path, {"train/a": [("cat", 4, 3, 20, 18)], "val/b": []}, size=(41, 30))
    assert voc(tmp_path) == 0
    out = tmp_path / "out"
    made = main(["lr", "--data", str(out / "data.yaml"), "--scale", "4", "--out", str(out / "images_lr_x4")])
    assert made == 0 and {p.name for p in (out / "images_lr_x4").rglob("*.png")} == {"a.png", "b.png"}
    records, _ = scan_split(load_data_spec(out / "data.yaml"), "train")
    dataset = DetectionDataset(records, ("cat",), (64, 64), 4, lr="folder", lr_folder=out / "images_lr_x4")
    assert dataset[0]["lr"].shape == (3, 16, 16)


def test_runs_by_path_and_as_module():
    for how in (["data/prepare_detection_data.py"], ["-m", "data.prepare_detection_data"]):
        done = subprocess.run([sys.executable, *how, "voc", "--help"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and "--one-based" in done.stdout


@pytest.mark.parametrize("box", [(5, 5, 5, 6), (5, 5, 4, 6), (-9, 0, -1, 5), (0, 0, float("nan"), 5), (10, 0, 12, 5)])
def test_box_without_area_inside_is_refused(box):
    with pytest.raises(ValueError, match="box"):
        normalise(box, 10, 10)


# ---------------------------------------------------------------------- real data sets, and drawn ones like them


def test_a_set_laid_out_as_hit_uav(tmp_path):
    """Sub-folders as splits, a class that stands for nothing; labels as computed from the drawn boxes."""
    rng, names, drawn = np.random.default_rng(0), ("Person", "Car", "DontCare"), {}
    for split, images in (("train", 5), ("val", 2), ("test", 3)):
        for number in range(images):
            corner = rng.integers(0, (30, 20), (4, 2))
            far = corner + rng.integers(1, 10, (4, 2))
            drawn[f"{split}/{number}"] = [(names[k % 3], *corner[k].tolist(), *far[k].tolist()) for k in range(4)]
    make_voc(tmp_path, drawn)
    assert voc(tmp_path, "--link", "--drop", "DontCare", "--classes", "Person", "Car") == 0
    for name, boxes in drawn.items():
        expected = [
            [names.index(label), (x1 + x2) / 2 / 40, (y1 + y2) / 2 / 30, (x2 - x1) / 40, (y2 - y1) / 30]
            for label, x1, y1, x2, y2 in boxes
            if label != "DontCare"
        ]
        np.testing.assert_allclose(rows(tmp_path / "out/labels" / f"{name}.txt"), expected, atol=1e-8)
    spec = load_data_spec(tmp_path / "out/data.yaml")
    counts = {split: scan_split(spec, split)[1] for split in ("train", "val", "test")}
    assert spec.names == ("Person", "Car")
    assert {split: (r.used, r.boxes) for split, r in counts.items()} == {
        "train": (5, 15),
        "val": (2, 6),
        "test": (3, 9),
    }


def test_a_set_laid_out_as_bccd(tmp_path, capsys):
    """Lists as splits, all images in one folder; a box without area that the one-based reading makes a pixel of."""
    boxes = {f"cell_{k}": [("RBC", 4 + k, 3, 20, 18), ("WBC", 1, 1, 30, 25)] for k in range(6)}
    boxes["cell_2"].append(("Platelets", 9, 7, 9, 12))
    make_voc(tmp_path, boxes)
    (tmp_path / "lists").mkdir()
    for split, chosen in (("train", (0, 1, 2)), ("val", (3,)), ("test", (4, 5))):
        (tmp_path / "lists" / f"{split}.txt").write_text("".join(f"cell_{k}\n" for k in chosen))
    options = ["--lists", str(tmp_path / "lists"), "--classes", "Platelets", "RBC", "WBC"]
    assert voc(tmp_path, *options, out="edges") == 0
    said = capsys.readouterr()
    assert not said.err and "left out: 1 object: box without area (cell_2" in said.out
    assert voc(tmp_path, *options, "--one-based", out="pixels") == 0
    np.testing.assert_allclose(
        rows(tmp_path / "pixels/labels/train/cell_2.txt")[2], [0, 8.5 / 40, 9 / 30, 1 / 40, 6 / 30]
    )
    spec = load_data_spec(tmp_path / "pixels/data.yaml")
    found = {split: scan_split(spec, split)[0] for split in spec.splits}
    assert {split: len(records) for split, records in found.items()} == {"train": 3, "val": 1, "test": 2}
    classes = Counter(spec.names[c] for records in found.values() for record in records for c in record.classes)
    assert classes == {"Platelets": 1, "RBC": 6, "WBC": 6}


def test_hit_uav_agrees_with_its_own_labels(shared_data, tmp_path):
    source = shared_data("hit_uav")
    status = main(
        ["voc", "--images", str(source / "images"), "--annotations", str(source / "annotations_voc"), "--link", "--out",
         str(tmp_path / "out"), "--drop", "DontCare", "--classes", "Person", "Car", "Bicycle", "OtherVehicle"]
    )  # fmt: skip
    assert status == 0
    count = 0
    for split in ("train", "val", "test"):
        for label in sorted((tmp_path / "out/labels" / split).iterdir()):
            expected, found = rows(source / "labels" / split / label.name), rows(label)
            assert found.shape == expected.shape
            order = [table[np.lexsort(table.round(5).T)] for table in (found, expected)]
            np.testing.assert_allclose(*order, atol=1.1e-6)
            count += len(found)
    assert count == 4125 + 1359 + 1212


def test_bccd(shared_data, tmp_path, capsys):
    source = shared_data("bccd")
    base = ["voc", "--images", str(source / "JPEGImages"), "--annotations", str(source / "Annotations"), "--link"]
    base += ["--lists", str(source / "ImageSets/Main")]
    # Two files hold a box without area, which only the one-based reading makes a pixel of.
    assert main([*base, "--out", str(tmp_path / "edges")]) == 0
    said = capsys.readouterr()
    assert not said.err and "left out: 2 objects: box without area" in said.out
    assert "BloodImage_00338" in said.out and "BloodImage_00343" in said.out
    assert main([*base, "--one-based", "--out", str(tmp_path / "pixels")]) == 0
    spec = load_data_spec(tmp_path / "pixels/data.yaml")
    found = {split: scan_split(spec, split)[0] for split in spec.splits}
    assert {split: len(records) for split, records in found.items()} == {"train": 205, "val": 87, "test": 72}
    classes = Counter(spec.names[c] for records in found.values() for record in records for c in record.classes)
    assert spec.names == ("Platelets", "RBC", "WBC") and classes == {"Platelets": 361, "RBC": 4155, "WBC": 372}
