"""data/voc.py by the converter: Pascal VOC files as other programs write them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from data.data_spec import load_data_spec
from tests.data.drawn_annotations import bndbox, picture, rows, run_voc, value_of, voc_xml, write

POLYGONS = {
    "numbered": "<polygon><x1>5</x1><y1>10</y1><x2>25</x2><y2>12</y2><x3>20</x3><y3>22</y3></polygon>",
    "labelme": "<polygon><pt><x>5</x><y>10</y></pt><pt><x>25</x><y>12</y></pt><pt><x>20</x><y>22</y></pt></polygon>",
    "rotated": "<robndbox><cx>15</cx><cy>16</cy><w>20</w><h>12</h><angle>0</angle></robndbox>",
    "half turn": f"<robndbox><cx>15</cx><cy>16</cy><w>12</w><h>20</h><angle>{math.pi / 2}</angle></robndbox>",
}


@pytest.mark.parametrize("kind", POLYGONS)
def test_objects_without_bndbox_get_the_box_around_their_shape(tmp_path, kind):
    picture(tmp_path / "images/a.png")
    write(tmp_path / "xml/a.xml", voc_xml(f"<object><name>car</name>{POLYGONS[kind]}</object>"))
    assert run_voc(tmp_path) == 0
    np.testing.assert_allclose(rows(tmp_path / "out/labels/train/a.txt"), [[0, 15 / 40, 16 / 30, 0.5, 0.4]], atol=1e-7)


def test_a_turned_box_is_surrounded(tmp_path):
    picture(tmp_path / "images/a.png")
    shape = f"<robndbox><cx>20</cx><cy>15</cy><w>8</w><h>4</h><angle>{math.pi / 4}</angle></robndbox>"
    write(tmp_path / "xml/a.xml", voc_xml(f"<object><name>car</name>{shape}</object>"))
    assert run_voc(tmp_path) == 0
    side = 12 / math.sqrt(2)
    np.testing.assert_allclose(rows(tmp_path / "out/labels/train/a.txt")[0, 3:], [side / 40, side / 30], atol=1e-7)


def test_objects_without_any_shape_are_counted_and_left_out(tmp_path, capsys):
    for name in "ab":
        picture(tmp_path / f"images/{name}.png")
    nothing = "<object><name>car</name></object><object><name>bus</name><polygon><x1>1</x1></polygon></object>"
    write(tmp_path / "xml/a.xml", voc_xml(nothing + bndbox()))
    write(tmp_path / "xml/b.xml", voc_xml(bndbox("bus")))
    assert run_voc(tmp_path) == 0
    assert "left out: 2 objects: object without a box (a, ...)" in capsys.readouterr().out
    write(tmp_path / "xml/a.xml", voc_xml(nothing))
    write(tmp_path / "xml/b.xml", voc_xml(nothing))
    with pytest.raises(SystemExit, match="2"):
        run_voc(tmp_path, out="none")
    said = capsys.readouterr().err
    assert "4 x object without a box" in said and "--classes" not in said.rpartition("error:")[2]


def test_names_in_lists_may_hold_spaces(tmp_path):
    names = ["img 0", "img 1", "two  words 1", "img -1", "c"]
    for value, name in enumerate(names):
        picture(tmp_path / f"images/{name}.png", 20 * value)
        write(tmp_path / f"xml/{name}.xml", voc_xml(bndbox(box=(4, 3, 10 + value, 18))))
    write(tmp_path / "lists/train.txt", "img 0\r\nimg 1\ntwo  words 1  -1\n img -1 \n")
    write(tmp_path / "lists/val.txt", "c  1\n")
    assert run_voc(tmp_path, "--lists", str(tmp_path / "lists")) == 0
    for value, name in enumerate(names):
        split = "val" if name == "c" else "train"
        assert round(rows(tmp_path / f"out/labels/{split}/{name}.txt")[0, 3] * 40) == 6 + value
        assert value_of(tmp_path / f"out/images/{split}/{name}.png") == 20 * value


def test_a_name_of_a_list_that_is_missing_is_given_in_full(tmp_path, capsys):
    picture(tmp_path / "images/a.png")
    write(tmp_path / "xml/a.xml", voc_xml(bndbox()))
    write(tmp_path / "lists/train.txt", "a\nmy img\nother 1\nb.jpg\n")
    assert run_voc(tmp_path, "--lists", str(tmp_path / "lists")) == 1
    said = capsys.readouterr()
    assert all(f"{name}.xml: no such annotation" in said.err for name in ("my img", "other", "b.jpg"))
    assert "3 files: no such annotation" in said.out


@pytest.mark.parametrize(
    "encoding", ["gb2312", "gbk", "gb18030", "big5", "shift_jis", "euc-kr", "utf-16", "windows-1251"]
)
def test_other_encodings_are_read(tmp_path, encoding):
    name = {"euc-kr": "\uc6d0", "windows-1251": "\u043a\u0440\u0443\u0433", "shift_jis": "\u5186"}.get(
        encoding, "\u5713"
    )
    name = "\u5706" if encoding.startswith("gb") else name
    picture(tmp_path / "images/a.png")
    text = f'<?xml version="1.0" encoding="{encoding.upper()}"?>\n' + voc_xml(bndbox(name))
    write(tmp_path / "xml/a.xml", text, encoding)
    assert run_voc(tmp_path) == 0
    assert load_data_spec(tmp_path / "out/data.yaml").names == (name,)


def test_text_of_another_encoding_than_declared_is_called_so(tmp_path, capsys):
    picture(tmp_path / "images/a.png")
    for declared, words in (("utf-8", "no utf-8: save it as UTF-8"), ("klingon", "unknown encoding klingon")):
        text = f'<?xml version="1.0" encoding="{declared}"?>' + voc_xml(bndbox("\u8f66\u8f86"))
        write(tmp_path / "xml/a.xml", text, "gb2312")
        with pytest.raises(SystemExit, match="2"):
            run_voc(tmp_path)
        said = capsys.readouterr().err
        assert words in said and "1 x annotation that cannot be read" in said


def test_a_folder_of_annotations_never_takes_the_picture_of_another(tmp_path, capsys):
    picture(tmp_path / "images/train/a.png", 10), picture(tmp_path / "images/val/a.png", 200)
    picture(tmp_path / "images/val/b.png", 200)
    for name in ("train/a", "train/b", "val/a"):
        write(tmp_path / f"xml/{name}.xml", voc_xml(bndbox()))
    assert run_voc(tmp_path) == 1
    assert "train/b" in capsys.readouterr().err
    assert [value_of(tmp_path / f"out/images/{split}/a.png") for split in ("train", "val")] == [10, 200]
    assert not (tmp_path / "out/images/train/b.png").exists()


def test_folders_of_annotations_with_all_pictures_in_one(tmp_path):
    for name in "ab":
        picture(tmp_path / f"images/{name}.png")
    write(tmp_path / "xml/train/a.xml", voc_xml(bndbox()))
    write(tmp_path / "xml/val/b.xml", voc_xml(bndbox()))
    assert run_voc(tmp_path) == 0
    assert (tmp_path / "out/images/train/a.png").is_file() and (tmp_path / "out/images/val/b.png").is_file()


def test_the_stated_suffix_counts(tmp_path):
    picture(tmp_path / "images/a.bmp", 10), picture(tmp_path / "images/a.png", 200)
    write(tmp_path / "xml/a.xml", voc_xml(bndbox(), filename="C:\\pictures\\a.bmp"))
    assert run_voc(tmp_path) == 0
    assert value_of(tmp_path / "out/images/train/a.bmp") == 10


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_impossible_orientation_turns_no_box(tmp_path, orientation):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "images").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "images/a.jpg", exif=exif)
    write(tmp_path / "xml/a.xml", f"<annotation>{bndbox(box=(5, 10, 25, 22))}</annotation>")
    assert run_voc(tmp_path) == 0
    np.testing.assert_allclose(rows(tmp_path / "out/labels/train/a.txt"), [[0, 15 / 40, 16 / 30, 0.5, 0.4]], atol=1e-7)
