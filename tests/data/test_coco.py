"""data/coco.py by the converter: COCO files as other programs write them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask

from data.coco import load_coco
from data.data_spec import load_data_spec
from tests.data.drawn_annotations import coco, entry, picture, rows, run_coco, value_of, write


def written(folder: Path, split: str = "train", out: str = "out") -> list[str]:
    root = folder / out / "images" / split
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


# The right picture


def test_a_missing_folder_never_takes_the_picture_of_another(tmp_path, capsys):
    for name in ("cam2/1.png", "cam2/2.png"):
        picture(tmp_path / "pictures" / name, 200)
    assert run_coco(tmp_path, train=coco(tmp_path, ["cam1/1.png", "cam2/1.png", "cam1/2.png", "cam2/2.png"])) == 1
    said = capsys.readouterr()
    assert written(tmp_path) == ["cam2/1.png", "cam2/2.png"]
    np.testing.assert_allclose(rows(tmp_path / "out/labels/train/cam2/1.txt")[0, 3], 11 / 40)
    assert "2 files: no such image" in said.out and "no folder" in said.err and "cam1" in said.err


folders = st.sampled_from(("a", "b", "a/c", ""))
files = st.sampled_from(("1.png", "2.png", "1.PNG", "1.bmp"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    there=st.sets(st.tuples(folders, files), min_size=1),
    wanted=st.lists(st.tuples(folders, files), min_size=1, unique=True),
)
def test_every_label_belongs_to_its_own_picture(tmp_path_factory, there, wanted):
    """Names in full: the very file, or another only where no other file can be meant, and never of another folder."""
    root = tmp_path_factory.mktemp("set")
    values = {}
    for value, (folder, file) in enumerate(sorted(there)):
        values[picture(root / "pictures" / folder / file, value)] = value
    names = [f"{folder}/{file}".strip("/") for folder, file in wanted]
    try:
        run_coco(root, train=coco(root, names))
    except SystemExit as stop:
        assert stop.code == 2 and not (root / "out").exists()
        return
    for image in (root / "out/images/train").rglob("*"):
        if image.is_dir():
            continue
        label = root / "out/labels" / image.relative_to(root / "out/images").with_suffix(".txt")
        number = round(rows(label)[0, 3] * 40) - 10
        folder, file = wanted[number]
        exact = root / "pictures" / folder / file
        if exact in values:
            assert value_of(image) == values[exact]
        else:
            source = next(path for path, value in values.items() if value == value_of(image))
            below = source.parent.relative_to(root / "pictures").as_posix().strip(".")
            shared = len({f.split("/")[0] for f, _ in wanted}) == 1
            allowed = {folder, *(["/".join(folder.split("/")[k:]) for k in (1, 2)] if shared else [])}
            assert (below in allowed or not folder) and source.stem == Path(file).stem


def test_the_exact_name_counts_before_others_of_its_stem(tmp_path):
    for value, name in enumerate(("001.jpg", "001.png", "001.JPG")):
        picture(tmp_path / "pictures" / name, 50 * value)
    assert run_coco(tmp_path, train=coco(tmp_path, ["001.jpg"])) == 0
    assert written(tmp_path) == ["001.jpg"] and value_of(tmp_path / "out/images/train/001.jpg") <= 2


def test_pictures_of_one_stem_both_keep_their_labels(tmp_path):
    picture(tmp_path / "pictures/001.bmp", 10), picture(tmp_path / "pictures/001.png", 200)
    assert run_coco(tmp_path, train=coco(tmp_path, ["001.bmp", "001.png"])) == 0
    assert written(tmp_path) == ["001.bmp", "001_png.png"]
    widths = [round(rows(tmp_path / f"out/labels/train/{stem}.txt")[0, 3] * 40) for stem in ("001", "001_png")]
    assert widths == [10, 11]


@pytest.mark.parametrize(
    "name", ["JPEGImages\\000.png", "JPEGImages/000.png", ".\\000.png", "deep\\JPEGImages\\000.png"]
)
def test_folders_that_all_names_share_may_be_left_out(tmp_path, name):
    """As where the folder itself was given, and with the backslashes of Windows."""
    picture(tmp_path / "pictures/000.png"), picture(tmp_path / "pictures/001.png")
    assert run_coco(tmp_path, train=coco(tmp_path, [name, name.replace("000", "001")])) == 0
    assert len(written(tmp_path)) == 2


def test_a_shared_folder_that_lies_beside_is_the_one_that_is_meant(tmp_path, capsys):
    picture(tmp_path / "pictures/000.png"), picture(tmp_path / "val2017/000.png")
    with pytest.raises(SystemExit, match="2"):
        run_coco(tmp_path, train=coco(tmp_path, ["val2017/000.png"]))
    assert "no such image" in capsys.readouterr().err
    assert run_coco(tmp_path, images="val2017", train=coco(tmp_path, ["val2017/000.png"])) == 0


def test_one_picture_in_two_splits_is_said(tmp_path, capsys):
    picture(tmp_path / "pictures/0.PNG"), picture(tmp_path / "pictures/1.PNG")
    content = coco(tmp_path, ["0.PNG"])
    assert run_coco(tmp_path, train=content, val=coco(tmp_path, ["1.PNG", "0.PNG"])) == 0
    said = capsys.readouterr().out
    assert "WARNING: 1 pictures stand in several splits" in said and "0.PNG in train and val" in said
    assert run_coco(tmp_path, out="other", train=content, val=coco(tmp_path, ["1.PNG"])) == 0
    assert "WARNING" not in capsys.readouterr().out


def test_a_picture_of_a_kind_that_is_not_read_is_named(tmp_path, capsys):
    picture(tmp_path / "pictures/0.png")
    write(tmp_path / "pictures/1.heic", "x")
    assert run_coco(tmp_path, train=coco(tmp_path, ["0.png", "1.heic"])) == 1
    said = capsys.readouterr()
    assert "nothing here reads" in said.err and "1 file: image of a kind that is not read" in said.out


# Boxes


def segmentation(kind: str) -> object:
    """x 5..25, y 10..22 on an image of 40 x 30."""
    pixels = np.zeros((30, 40), np.uint8, order="F")
    pixels[10:22, 5:25] = 1
    packed = mask.encode(pixels)
    column = [10 + 30 * 5, *[12, 18] * 19, 12, 8 + 30 * 15]
    return {
        "polygon": [[5, 10, 25, 10, 25, 22, 5, 22]],
        "flat polygon": [5, 10, 25, 10, 25, 22, 5, 22],
        "several": [[5, 10, 15, 10, 15, 22], [15, 12, 25, 12, 25, 20, 15, 21]],
        "rle": {"size": [30, 40], "counts": packed["counts"].decode()},
        "counts": {"size": [30, 40], "counts": column},
    }[kind]


@pytest.mark.parametrize("kind", ["polygon", "flat polygon", "several", "rle", "counts"])
@pytest.mark.parametrize("box", [{}, {"bbox": []}, {"bbox": None}])
def test_without_bbox_the_box_around_the_segmentation_is_taken(tmp_path, kind, box):
    picture(tmp_path / "pictures/0.png")
    annotation = {"image_id": 0, "category_id": 2, "segmentation": segmentation(kind)} | box
    assert run_coco(tmp_path, train=coco(tmp_path, ["0.png"], [annotation])) == 0
    np.testing.assert_allclose(rows(tmp_path / "out/labels/train/0.txt"), [[1, 15 / 40, 16 / 30, 0.5, 0.4]], atol=1e-6)


def test_objects_without_a_usable_box_are_counted_and_left_out(tmp_path, capsys):
    picture(tmp_path / "pictures/0.png"), picture(tmp_path / "pictures/1.png")
    good = {"image_id": 0, "category_id": 1, "bbox": [4, 3, 10, 15]}
    bad = [
        {"bbox": [5, 5, 0, 9]},
        {"bbox": [5, 5, 9, 0]},
        {"bbox": [50, 5, 9, 9]},
        {},
        {"segmentation": [[1, 1, 2, 2]]},
    ]
    annotations = [good, *({"image_id": 0, "category_id": 1} | box for box in bad)]
    assert run_coco(tmp_path, train=coco(tmp_path, ["0.png", "1.png"], annotations)) == 0
    said = capsys.readouterr().out
    assert len(rows(tmp_path / "out/labels/train/0.txt")) == 1
    for count, cause in ((2, "box without area"), (1, "box outside its image"), (2, "object without a box")):
        assert f"left out: {count} object{'s' * (count > 1)}: {cause} (0, ...)" in said
    assert "2 images written, 0 files left out" in said


def test_an_image_that_loses_all_its_objects_is_no_background(tmp_path, capsys):
    picture(tmp_path / "pictures/0.png"), picture(tmp_path / "pictures/1.png")
    annotations = [{"image_id": 0, "category_id": 1, "bbox": [4, 3, 10, 15]}, {"image_id": 1, "category_id": 1}]
    assert run_coco(tmp_path, train=coco(tmp_path, ["0.png", "1.png"], annotations)) == 1
    assert written(tmp_path) == ["0.png"]
    assert "1 file: image with no usable object (object without a box)" in capsys.readouterr().out


def test_nothing_but_crowd_regions_is_an_error_or_taken_on_request(tmp_path, capsys):
    picture(tmp_path / "pictures/0.png")
    crowd = [{"image_id": 0, "category_id": 1, "bbox": [4, 3, 10, 15], "iscrowd": 1}] * 2
    with pytest.raises(SystemExit, match="2"):
        run_coco(tmp_path, train=coco(tmp_path, ["0.png"], crowd))
    said = capsys.readouterr().err
    assert "2 x crowd region" in said and "--keep-crowd" in said and not (tmp_path / "out").exists()
    assert run_coco(tmp_path, "--keep-crowd", train=coco(tmp_path, ["0.png"], crowd)) == 0
    assert len(rows(tmp_path / "out/labels/train/0.txt")) == 2


def test_a_split_of_which_nothing_is_left_is_an_error(tmp_path, capsys):
    picture(tmp_path / "pictures/0.png")
    with pytest.raises(SystemExit, match="2"):
        run_coco(tmp_path, train=coco(tmp_path, ["0.png"]), val=coco(tmp_path, ["1.png", "2.png"]))
    assert "none of the 2 files of split val could be used (2 x no such image)" in capsys.readouterr().err


# Classes and ids


@pytest.mark.parametrize("project", ["shapes", "disc"])
def test_the_project_of_roboflow_is_no_class(tmp_path, capsys, project):
    picture(tmp_path / "pictures/0.png"), picture(tmp_path / "pictures/1.png")
    categories = [
        {"id": 0, "name": project, "supercategory": "none"},
        {"id": 1, "name": "disc", "supercategory": project},
        {"id": 2, "name": "box", "supercategory": project},
    ]
    assert run_coco(tmp_path, train=coco(tmp_path, ["0.png", "1.png"], None, categories)) == 0
    assert load_data_spec(tmp_path / "out/data.yaml").names == ("disc", "box")
    assert rows(tmp_path / "out/labels/train/0.txt")[0, 0] == 0
    assert f"`{project}` (id 0)" in capsys.readouterr().out


def test_a_group_that_has_objects_stays_a_class(tmp_path):
    picture(tmp_path / "pictures/0.png"), picture(tmp_path / "pictures/1.png")
    categories = [
        {"id": 0, "name": "vehicle", "supercategory": "none"}, {"id": 1, "name": "car", "supercategory": "vehicle"}
    ]  # fmt: skip
    used = [{"image_id": 0, "category_id": 0, "bbox": [4, 3, 10, 15]}]
    both = {"train": coco(tmp_path, ["0.png"], None, categories), "val": coco(tmp_path, ["1.png"], used, categories)}
    both["train"]["annotations"][0]["category_id"] = 1
    assert run_coco(tmp_path, **both) == 0
    assert load_data_spec(tmp_path / "out/data.yaml").names == ("vehicle", "car")
    # COCO's own person belongs to the group person, and is the only one.
    one = [{"id": 1, "name": "person", "supercategory": "person"}]
    assert run_coco(tmp_path, out="one", train=coco(tmp_path, ["0.png"], None, one)) == 0
    assert load_data_spec(tmp_path / "one/data.yaml").names == ("person",)


@pytest.mark.parametrize("what", ["image", "category", "annotation"])
@pytest.mark.parametrize("text", [True, False])
def test_ids_may_be_text_or_numbers(tmp_path, what, text):
    picture(tmp_path / "pictures/0.png"), picture(tmp_path / "pictures/1.png")
    content = coco(tmp_path, ["0.png", "1.png"], None, [{"id": i, "name": str(i)} for i in (10, 9, 1)])
    change = str if text else float
    if what == "image":
        content["images"] = [entry(change(i), f"{i}.png") for i in (0, 1)]
    for category in content["categories"] if what == "category" else []:
        category["id"] = change(category["id"])
    for annotation in content["annotations"] if what == "annotation" else []:
        annotation |= {"image_id": change(annotation["image_id"]), "category_id": change(annotation["category_id"])}
    assert run_coco(tmp_path, train=content) == 0
    assert load_data_spec(tmp_path / "out/data.yaml").names == ("1", "9", "10")
    assert [len(rows(tmp_path / f"out/labels/train/{i}.txt")) for i in (0, 1)] == [1, 1]


def test_doubled_ids_are_refused(tmp_path):
    for key in ("images", "categories"):
        content = coco(tmp_path, ["0.png", "1.png"])
        content[key][1]["id"] = str(content[key][0]["id"])
        path = write(tmp_path / "a.json", json.dumps(content))
        with pytest.raises(ValueError, match="have the same id"):
            load_coco(path, "train")
