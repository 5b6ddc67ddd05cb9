"""The label parser gives what is written, or says what is wrong and where."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.labels import LabelError, label_path, parse_label_file

SHARED_TMP = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def parse(folder: Path, content: str | bytes, n_classes: int = 3):
    file = folder / "a.txt"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return parse_label_file(file, n_classes)


def test_reads_what_is_written(tmp_path):
    classes, boxes = parse(tmp_path, "0 0.5 0.25 0.1 0.2\n2 0.3 0.4 1e-1 .05\n")
    assert classes.dtype == np.int64 and boxes.dtype == np.float32
    np.testing.assert_array_equal(classes, [0, 2])
    np.testing.assert_allclose(boxes, [[0.5, 0.25, 0.1, 0.2], [0.3, 0.4, 0.1, 0.05]], rtol=1e-7)


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r", "\n\n  \n"])
def test_byte_order_mark_and_line_ends(tmp_path, ends):
    lines = ["0 0.5 0.5 0.1 0.1", "1\t0.5  0.5 0.2 0.1 "]
    classes, boxes = parse(tmp_path, b"\xef\xbb\xbf" + ends.join(lines).encode())
    assert classes.tolist() == [0, 1] and boxes.shape == (2, 4)


def test_missing_and_empty_files_are_background(tmp_path):
    for found in (parse_label_file(tmp_path / "none.txt", 1), parse(tmp_path, ""), parse(tmp_path, "\n \n")):
        assert found[0].shape == (0,) and found[1].shape == (0, 4)


def test_repeated_lines_count_once(tmp_path):
    classes, _ = parse(tmp_path, "0 0.5 0.5 0.1 0.1\n1 0.5 0.5 0.1 0.1\n0 0.50 0.5 0.1 0.1\n")
    assert classes.tolist() == [0, 1]


def test_boxes_are_cut_at_the_border(tmp_path):
    _, boxes = parse(tmp_path, "0 0.95 -0.005 0.2 0.1\n0 1.01 0.5 0.1 1\n")
    np.testing.assert_allclose(boxes, [[0.925, 0.0225, 0.15, 0.045], [0.98, 0.5, 0.04, 1]], atol=1e-7)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("3 0.5 0.5 0.1 0.1", "class id 3.*names 3 classes.*`names`"),
        ("-1 0.5 0.5 0.1 0.1", "not a whole number"),
        ("0.5 0.5 0.5 0.1 0.1", "not a whole number"),
        ("0 320 240 64 48", "look like pixels.*divide cx and w by the image width"),
        ("0 0.5 0.5 0.1 1.02", "above 1"),
        ("0 -0.5 0.5 0.1 0.1", "below 0"),
        ("0 0.5 0.5 0 0.1", "width 0"),
        ("0 0.5 0.5 0.1 -0.005", "height -0.005"),
        ("0 -0.01 0.5 0.005 0.1", "outside the image"),
        ("0 0.5 0.5 1e-60 0.1", "empty"),
        ("0 nan 0.5 0.1 0.1", "`nan` is not a finite number"),
        ("0 0.5 inf 0.1 0.1", "`inf` is not a finite number"),
        ("0 0.5 1e999 0.1 0.1", "not a finite number"),
        ("0 0.5 0,5 0.1 0.1", "`0,5` is not a finite number"),
        ("1_0 0.5 0.5 0.1 0.1", "`1_0` is not a finite number"),
        ("\u0660 0.5 0.5 0.1 0.1", "not a finite number"),
        ("0 0.5 0.5 0.1", "4 columns"),
        ("0 0.5 0.5 0.1 0.1 0.9", "6 columns.*score"),
        ("0 0.5 0.5 0.1 1.0371", r"box value 1\.0371 is above 1.*larger than its image.*correct or remove the line"),
        ("0 0.1 0.1 0.5 0.1 0.5 0.5 0.5", "8 columns.*polygon.*kpt_shape"),
        ("0 0.1 0.1 0.5 0.1 0.5 0.5 2 0.5", "polygon value 2 is above 1.*kpt_shape"),
        ("0 10 10 50 10 50 50", "polygon value 50 is above 1.*divide x by the image width"),
        ("0 0.1 0.1 0.5 0.1 0.9 0.1", "polygon of width 0.8 and height 0"),
        ("0 0.1 0.1 0.5 0.1 -0.5 0.5", "below 0"),
    ],
)
def test_faulty_lines_are_named(tmp_path, line, message):
    with pytest.raises(LabelError, match=rf"(?s)a\.txt:2: .*{message}"):
        parse(tmp_path, f"0 0.5 0.5 0.1 0.1\n{line}\n")


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(LabelError, match=r"a\.txt: not UTF-8"):
        parse(tmp_path, b"\xff\xfe0\x00")
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(LabelError, match=r"folder\.txt: cannot be read"):
        parse_label_file(tmp_path / "folder.txt", 1)


def test_error_survives_the_way_between_processes():
    error = pickle.loads(pickle.dumps(LabelError("a.txt", 3, "reason", "remedy")))
    assert str(error) == "a.txt:3: reason; remedy" and error.line == 3


values = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.floats(-0.02, 1.02))


@SHARED_TMP
@given(st.lists(st.tuples(st.integers(-1, 4), values, values, values, values), max_size=4))
def test_no_box_is_silently_wrong(tmp_path, rows):
    """A good line comes back as the part of its box inside the image, anything else raises."""

    def inside(row):
        label, cx, cy, w, h = row
        if not (0 <= label < 3 and all(map(math.isfinite, row))):
            return None
        if min(row[1:]) < -0.01 or max(row[1:]) > 1.01 or w <= 0 or h <= 0:
            return None
        x1, x2, y1, y2 = (min(max(v, 0), 1) for v in (cx - w / 2, cx + w / 2, cy - h / 2, cy + h / 2))
        return (label, x1, y1, x2, y2) if np.float32(x2 - x1) > 0 and np.float32(y2 - y1) > 0 else None

    expected = [inside(row) for row in rows]
    text = "\n".join(" ".join(map(repr, row)) for row in rows)
    if None in expected:
        with pytest.raises(LabelError):
            parse(tmp_path, text)
        return
    classes, boxes = parse(tmp_path, text)
    expected = list(dict.fromkeys(expected))
    assert len(classes) <= len(expected)
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
    found = np.concatenate([classes[:, None], corners], axis=1)
    for row in expected:
        assert np.abs(found - row).max(axis=1).min() < 1e-6


@SHARED_TMP
@given(st.binary(max_size=60))
def test_any_bytes_give_boxes_or_a_label_error(tmp_path, content):
    try:
        classes, boxes = parse(tmp_path, content)
    except LabelError:
        return
    assert ((classes >= 0) & (classes < 3)).all()
    assert np.isfinite(boxes).all() and (boxes[:, 2:] > 0).all() and (boxes >= 0).all() and (boxes <= 1).all()


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("/d/images/train/a.jpg", "/d/labels/train/a.txt"),
        ("/images/x/images/a.b.png", "/images/x/labels/a.b.txt"),
        ("/d/photos/a.jpg", "/d/photos/a.txt"),
        ("/d/myimages/a.jpg", "/d/myimages/a.txt"),
    ],
)
def test_label_path_follows_ultralytics(image, label):
    assert label_path(image) == Path(label)


points = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=30)


@SHARED_TMP
@given(st.lists(points, min_size=1, max_size=4), st.booleans())
def test_polygons_and_oriented_boxes_become_boxes(tmp_path, polygons, with_box):
    """The smallest box around the points, as Ultralytics takes it for detection; lines with a box may stand beside."""
    box = "2 0.5 0.5 0.25 0.125\n" if with_box else ""
    text = "".join(f"1 {' '.join(f'{x!r} {y!r}' for x, y in polygon)}\n" for polygon in polygons)
    around = []
    for polygon in polygons:
        (x1, y1), (x2, y2) = np.min(polygon, axis=0), np.max(polygon, axis=0)
        around.append((x1, y1, x2, y2))
    if any(np.float32(x2 - x1) <= 0 or np.float32(y2 - y1) <= 0 for x1, y1, x2, y2 in around):
        with pytest.raises(LabelError, match=r"polygon of width|is empty"):
            parse(tmp_path, box + text)
        return
    classes, boxes = parse(tmp_path, box + text)
    assert classes.tolist().count(2) == with_box
    found = boxes[classes == 1]
    corners = np.concatenate([found[:, :2] - found[:, 2:] / 2, found[:, :2] + found[:, 2:] / 2], axis=1)
    assert all(np.abs(corners - row).max(axis=1).min() < 1e-6 for row in around)


@pytest.mark.parametrize("shape", [(2, 3), (17, 3), (4, 2), (5, 2)])
def test_pose_labels_keep_the_box(tmp_path, shape):
    """Also where the number of columns is that of a polygon, and whatever the visibilities."""
    tail = " ".join(["0.9 0.1 2.0", "0 0 0"][i % 2] if shape[1] == 3 else "0.9 0.1" for i in range(shape[0]))
    line = f"1 0.5 0.25 0.1 0.2 {tail}"
    (tmp_path / "a.txt").write_text(f"{line}\n0 0.5 0.5 0.5 0.5\n")
    classes, boxes = parse_label_file(tmp_path / "a.txt", 2, shape[0] * shape[1])
    assert classes.tolist() == [1, 0]
    np.testing.assert_allclose(boxes, [[0.5, 0.25, 0.1, 0.2], [0.5, 0.5, 0.5, 0.5]])
    with pytest.raises(LabelError, match="kpt_shape"):
        parse_label_file(tmp_path / "a.txt", 2, shape[0] * shape[1] + 1)


def test_a_huge_file_is_refused_unread(tmp_path):
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(40_000_000_000)
    with pytest.raises(LabelError, match="40,000,000,000 bytes, more than the limit"):
        parse_label_file(tmp_path / "a.txt", 1)
