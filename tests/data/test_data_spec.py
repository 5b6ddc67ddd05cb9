"""Data-set YAMLs of every kind, and the scan of their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from configs.schema import DetectionDataConfig
from data.data_spec import DataSetError, load_data_spec, scan_split, scan_splits
from data.images import ImageError, inspect_image, read_rgb
from data.labels import LabelError


def make_set(folder: Path, images: int = 3, splits: tuple[str, ...] = ("train", "val")) -> Path:
    for split in splits:
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for i in range(images):
            Image.fromarray(np.full((8, 12, 3), i, np.uint8)).save(folder / f"images/{split}/{i}.png")
            (folder / f"labels/{split}/{i}.txt").write_text("0 0.5 0.5 0.5 0.5\n" * (i % 2))
    return folder


def write(folder: Path, name: str = "data.yaml", **content) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump({"train": "images/train", "val": "images/val", "names": ["a"]} | content))
    return file


def stems(spec, split="train"):
    return [path.stem for path in spec.splits[split]]


@pytest.mark.parametrize("place", ["absent", "absolute", "to the yaml", "to the working directory"])
def test_path_may_be_relative_to_either(tmp_path, monkeypatch, place):
    root = make_set(tmp_path / "sets" / "one")
    monkeypatch.chdir(tmp_path / "sets")
    file = {
        "absent": lambda: write(root),
        "absolute": lambda: write(tmp_path / "elsewhere", path=str(root)),
        "to the yaml": lambda: write(tmp_path / "yamls", path="../sets/one"),
        "to the working directory": lambda: write(tmp_path / "yamls", path="one"),
    }[place]()
    spec = load_data_spec(file)
    assert stems(spec) == ["0", "1", "2"] and all(path.is_file() for path in spec.splits["val"])
    assert set(spec.splits) == {"train", "val"}


def test_split_may_be_text_list_or_several(tmp_path):
    root = make_set(tmp_path / "one")
    (root / "lists").mkdir()
    absolute = root / "images/train/2.png"
    (root / "lists/train.txt").write_text(f"\ufeff../images/train/0.png\r\nimages/train/1.png\n\n{absolute}\n")
    spec = load_data_spec(write(root, train="lists/train.txt", val=["images/val", "images/train"]))
    assert stems(spec) == ["0", "1", "2"] and all(path.is_file() for path in spec.splits["train"])
    assert len(spec.splits["val"]) == 6
    records, _ = scan_split(spec, "train")
    assert [len(record.classes) for record in records] == [0, 1, 0]


def test_linked_folders_are_resolved_as_ultralytics_does(tmp_path):
    root = make_set(tmp_path / "real")
    (tmp_path / "one/images").mkdir(parents=True)
    (tmp_path / "one/images/train").symlink_to(root / "images/train")
    records, _ = scan_split(load_data_spec(write(tmp_path / "one", val=None)), "train")
    assert sum(len(record.classes) for record in records) == 1


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"names": ["a", "b"], "nc": 2}, ("a", "b")),
        ({"names": {1: "b", 0: "a"}}, ("a", "b")),
        ({"names": {"0": "no", "1": 7}}, ("no", "7")),
        ({"names": None, "nc": 2}, ("class_0", "class_1")),
    ],
)
def test_names(tmp_path, content, names):
    assert load_data_spec(write(make_set(tmp_path), **content)).names == names


def test_unquoted_yaml_words_stay_names(tmp_path):
    file = make_set(tmp_path) / "data.yaml"
    file.write_text("train: images/train\nval: images/val\ntest:  # optional\nnames:\n  0: no\n  1: 007\n")
    spec = load_data_spec(file)
    assert spec.names == ("no", "007") and "test" not in spec.splits


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"names": ["a", "b"], "nc": 3}, "nc is 3, but `names` has 2"),
        ({"nc": "many"}, "`nc: many`"),
        ({"names": {0: "a", 2: "b"}}, r"0\.\.1, got 0, 2"),
        ({"names": "a"}, "must be a list"),
        ({"names": None}, "no class names"),
        ({"train": None, "val": None}, "none of the keys"),
        ({"train": "nothing", "val": "nowhere"}, r"`train: nothing` not found, looked for .*nothing"),
        ({"train": "nothing", "val": "nowhere", "download": "https://x.y/z.zip"}, "nothing is downloaded"),
    ],
)
def test_faulty_yaml_is_explained(tmp_path, content, message):
    with pytest.raises(DataSetError, match=rf"data\.yaml: .*{message}"):
        load_data_spec(write(make_set(tmp_path), **content))


def test_no_yaml_at_all(tmp_path):
    with pytest.raises(DataSetError, match=r"none\.yaml: no such"):
        load_data_spec(tmp_path / "none.yaml")
    for text, message in (("- a\n", "holds no keys"), ("a: [", "not a YAML file"), ("", "holds no keys")):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(DataSetError, match=message):
            load_data_spec(tmp_path / "bad.yaml")


def test_only_the_split_that_is_used_must_exist(tmp_path):
    root = make_set(tmp_path)
    (root / "images/empty").mkdir()
    spec = load_data_spec(write(root, val="images/empty", test="images/none"))
    assert len(scan_split(spec, "train")[0]) == 3
    with pytest.raises(DataSetError, match=r"`val: images/empty` holds no image"):
        scan_split(spec, "val")
    with pytest.raises(DataSetError, match=r"`test: images/none` not found"):
        scan_split(spec, "test")
    with pytest.raises(DataSetError, match="no split `extra`; it has train"):
        scan_split(spec, "extra")


def test_report_counts(tmp_path):
    root = make_set(tmp_path, images=30)
    (root / "images/train/3.png").write_bytes(b"no image")
    (root / "labels/train/5.txt").write_text("9 0.5 0.5 0.1 0.1\n")
    (root / "labels/train/7.txt").unlink()
    spec = load_data_spec(write(root))
    with pytest.raises(LabelError, match=r"5\.txt:1: class id 9"):
        scan_split(spec, "train")
    with pytest.raises(ImageError, match=r"3\.png"):
        scan_split(spec, "train", on_bad_image="error", on_bad_label="skip")
    records, report = scan_split(spec, "train", on_bad_label="skip")
    assert (report.listed, report.used, report.boxes, report.backgrounds, report.unlabelled) == (30, 28, 12, 16, 1)
    assert report.dropped == {"bad image": 1, "bad label": 1} and len(records) == 28
    line = report.summary()
    assert "\n" not in line and "3.png" in line and "5.txt:1" in line and "28 images, 12 boxes" in line
    assert records[1].height == 8 and records[1].width == 12 and records[1].boxes.shape == (1, 4)


def test_splits_are_scanned_as_configured_and_reported(tmp_path, capsys):
    root = make_set(tmp_path, images=30)
    (root / "images/train/3.png").write_bytes(b"no image")
    (root / "labels/val/5.txt").write_text("9 0.5 0.5 0.1 0.1\n")
    spec, lines = load_data_spec(write(root)), []
    with pytest.raises(LabelError):
        scan_splits(spec, DetectionDataConfig(), ("train", "val"))
    assert capsys.readouterr().out.startswith("train: 29 images")
    records = scan_splits(spec, DetectionDataConfig(on_bad_label="skip"), ("train", "val"), lines.append)
    assert {split: len(found) for split, found in records.items()} == {"train": 29, "val": 29}
    assert [line.split(",")[0] for line in lines] == ["train: 29 images", "val: 29 images"]
    with pytest.raises(ImageError):
        scan_splits(spec, DetectionDataConfig(on_bad_image="error"), ("train",))
    small = make_set(tmp_path / "small", images=5)
    (small / "images/train/0.png").write_bytes(b"")
    assert scan_split(load_data_spec(write(small)), "train")[1].used == 4  # one always may be
    with pytest.raises(DataSetError, match="30 of 30"):
        scan_splits(spec, DetectionDataConfig(max_pixels=10), ("val",))


def test_too_many_bad_files_stop(tmp_path):
    root = make_set(tmp_path, images=30)
    for i in range(4):
        (root / f"images/train/{i}.png").write_bytes(b"")
    with pytest.raises(DataSetError, match="4 of 30 images cannot be used, more than 10%"):
        scan_split(load_data_spec(write(root)), "train")
    with pytest.raises(DataSetError, match="30 of 30"):
        scan_split(load_data_spec(write(root)), "val", max_pixels=10)


def test_labels_in_the_wrong_place_are_pointed_out(tmp_path):
    root = make_set(tmp_path)
    (root / "labels").rename(root / "annotations")
    assert "WARNING: no label file at all" in scan_split(load_data_spec(write(root)), "train")[1].summary()


def test_real_data_set(shared_data):
    spec = load_data_spec(shared_data("hit_uav") / "data.yaml")
    assert spec.names == ("Person", "Car", "Bicycle", "OtherVehicle")
    counts = {split: scan_split(spec, split)[1] for split in ("train", "val", "test")}
    assert {s: (r.used, r.boxes) for s, r in counts.items()} == {
        "train": (480, 4125),
        "val": (120, 1359),
        "test": (160, 1212),
    }


# Other people's files


def test_backslashes_of_windows_are_read(tmp_path):
    root = make_set(tmp_path / "sets" / "one")
    spec = load_data_spec(write(root, train=r"images\train", val=r"..\one\images\val"))
    assert stems(spec) == stems(spec, "val") == ["0", "1", "2"]
    assert stems(load_data_spec(write(tmp_path, path=r"sets\one"))) == ["0", "1", "2"]
    (root / "list.txt").write_text("images\\train\\0.png\r\n.\\images\\train\\1.png\r\n")
    records, report = scan_split(load_data_spec(write(root, train="list.txt")), "train")
    assert [len(record.classes) for record in records] == [0, 1] and report.unlabelled == 0
    with pytest.raises(DataSetError, match="separates folders on Windows only"):
        load_data_spec(write(root, train=r"C:\data\train", val=None))
    (root / "list.txt").write_text("D:\\images\\0.png\n")
    with pytest.raises(ImageError, match=r"backslash.*data\.on_bad_image: skip"):
        scan_split(load_data_spec(write(root, train="list.txt")), "train", on_bad_image="error")


def test_a_file_whose_name_holds_a_backslash_comes_first(tmp_path):
    root = make_set(tmp_path)
    (root / "images/train/0.png").rename(root / "images\\train.png")
    assert stems(load_data_spec(write(root, train="images\\train.png"))) == ["images\\train"]


def test_images_that_nothing_reads_are_counted(tmp_path):
    root = make_set(tmp_path)
    for name in ("a.heic", "b.HEIC", "c.exr"):
        (root / "images/train" / name).write_bytes(b"x")
    _, report = scan_split(load_data_spec(write(root)), "train")
    assert report.listed == 3 and report.used == 3
    assert "3 files are left out, nothing here reads .heic (2), .exr (1)" in report.summary()
    (root / "list.txt").write_text("images/train/0.png\nimages/train/a.heic\n")
    _, report = scan_split(load_data_spec(write(root, train="list.txt")), "train")
    assert "1 file is left out" in report.summary() and report.used == 1
    for i in range(3):
        (root / f"images/val/{i}.png").rename(root / f"images/val/{i}.heif")
    with pytest.raises(DataSetError, match=r"holds no image.*\.heif \(3\)"):
        load_data_spec(write(root)).images("val")


def test_other_suffixes_are_used(tmp_path):
    root = make_set(tmp_path)
    (root / "images/train/0.png").rename(root / "images/train/0.apng")
    Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(root / "images/train/1.jfif", "JPEG")
    (root / "images/train/1.png").unlink()
    records, _ = scan_split(load_data_spec(write(root)), "train")
    assert [len(record.classes) for record in records] == [0, 1, 0]
    assert [record.common for record in records] == [".png", ".jpg", ""]


def test_polygons_and_pose_labels_are_read(tmp_path):
    root = make_set(tmp_path)
    (root / "labels/train/0.txt").write_text("0 0.1 0.2 0.5 0.2 0.5 0.6 0.1 0.6\n")
    records, _ = scan_split(load_data_spec(write(root)), "train")
    np.testing.assert_allclose(records[0].boxes, [[0.3, 0.4, 0.4, 0.4]], atol=1e-6)
    (root / "labels/train/0.txt").write_text("0 0.3 0.4 0.4 0.4 0.1 0.1 2 0.5 0.5 1\n")
    records, _ = scan_split(load_data_spec(write(root, kpt_shape=[2, 3])), "train")
    np.testing.assert_allclose(records[0].boxes, [[0.3, 0.4, 0.4, 0.4]], atol=1e-6)
    with pytest.raises(DataSetError, match="kpt_shape"):
        load_data_spec(write(root, kpt_shape=[2]))


def test_a_box_larger_than_its_image_names_the_way_out(tmp_path):
    root = make_set(tmp_path, images=12)
    (root / "labels/train/0.txt").write_text("0 0.5 0.5 0.5 1.0371\n")
    spec = load_data_spec(write(root))
    with pytest.raises(LabelError, match=r"1\.0371 is above 1.*data\.on_bad_label: skip"):
        scan_split(spec, "train")
    records, report = scan_split(spec, "train", on_bad_label="skip")
    assert len(records) == 11 and "1 skipped for a bad label" in report.summary()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: a\ntrain: b\nnames: [x]\n", "the key `train` stands in line 1 already"),
        ("train: a\nnames:\n  0: x\n  1: y\n  0: z\n", "the key `0` stands in line 3 already"),
        ("train: a\nnames:\n  0: x\n  00: y\n", "class id twice"),
        ("train: {a: b}\nnames: [x]\n", "`train` must be a path"),
        ("train: [[a]]\nnames: [x]\n", "`train` must be a path"),
        ("path: [a]\ntrain: a\nnames: [x]\n", "`path` must be one folder"),
        ("? [a]\n: b\ntrain: a\n", "not a YAML file"),
        ("a: " + "[" * 2000, "not a YAML file"),
    ],
)
def test_doubled_keys_and_odd_structures_are_refused(tmp_path, text, message):
    (make_set(tmp_path) / "data.yaml").write_text(text)
    with pytest.raises(DataSetError, match=message):
        load_data_spec(tmp_path / "data.yaml")


def test_a_huge_yaml_is_refused_unread(tmp_path):
    with (tmp_path / "data.yaml").open("wb") as file:
        file.truncate(40_000_000_000)
    with pytest.raises(DataSetError, match="40,000,000,000 bytes"):
        load_data_spec(tmp_path / "data.yaml")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_damage_in_the_middle_of_an_image_is_found_where_such_images_are_skipped(tmp_path, suffix):
    root = make_set(tmp_path, images=4)
    file = root / f"images/train/damaged{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(file)
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = b"\xff\xd8\xff\xc4" * 10  # as a marker in JPEG data
    file.write_bytes(content)
    with pytest.raises(ImageError):
        read_rgb(file, 10_000)
    records, report = scan_split(load_data_spec(write(root)), "train", on_bad_image="skip")
    assert [record.image.stem for record in records] == ["0", "1", "2", "3"]
    assert "1 skipped for a bad image" in report.summary() and file.name in report.summary()


def test_a_jpeg_decodes_at_its_smallest_where_it_decodes_whole(tmp_path):
    """The scan decodes JPEG files at an eighth of their size."""
    noise = np.random.default_rng(0).integers(0, 255, (40, 56, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.jpg")
    whole, chance, outcomes = (tmp_path / "whole.jpg").read_bytes(), np.random.default_rng(1), set()
    for _ in range(150):
        content = bytearray(whole)
        for at in chance.integers(20, len(whole) - 2, 6):
            content[at] = chance.integers(0, 256)
        (tmp_path / "a.jpg").write_bytes(content)
        found = []
        for read in (lambda p: read_rgb(p, 10**6), lambda p: inspect_image(p, 10**6, decode=True)):
            try:
                read(tmp_path / "a.jpg")
                found.append(True)
            except ImageError:
                found.append(False)
        outcomes.add(tuple(found))
    assert outcomes == {(True, True), (False, False)}
