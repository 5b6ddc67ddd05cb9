"""Pictures without labels: label files beside them are not looked at; some are held out."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.data_spec import DataSetError
from data.images import ImageError, list_images
from data.unlabelled import hold_out, unlabelled_records
from tests.drawn import draw_detection_set


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = draw_detection_set(tmp_path / "set", images=12, size=(30, 40)).parent
    (data / "labels" / "train" / "0.txt").write_text("no label at all\n")
    return data / "images" / "train"


def test_records_know_no_labels(folder: Path):
    records = unlabelled_records(list_images(folder))
    assert len(records) == 12 and {(r.height, r.width, r.labelled, len(r.classes)) for r in records} == {
        (30, 40, False, 0)
    }


def test_bad_pictures(folder: Path):
    said: list[str] = []
    (folder / "3.png").write_text("no picture")
    files = list_images(folder)
    assert len(unlabelled_records(files, say=said.append)) == 11
    assert said[0].startswith(f"1 of 12 pictures skipped: {folder / '3.png'}: not an image")
    with pytest.raises(ImageError, match=r"3\.png"):
        unlabelled_records(files, "error")
    (folder / "4.png").write_text("nor this")
    with pytest.raises(DataSetError, match=r"2 of 12 pictures cannot be used, such as .*3\.png"):
        unlabelled_records(files)
    with pytest.raises(DataSetError, match="0 of 0 pictures"):
        unlabelled_records([])


def test_some_are_held_out(folder: Path):
    records = unlabelled_records(list_images(folder))
    train, held = hold_out(records, 0.25, seed=0)
    assert len(held) == 3 and sorted(r.image for r in (*train, *held)) == [r.image for r in records]
    assert (
        [r.image for r in hold_out(records, 0.25, seed=0)[1]]
        == [r.image for r in held]
        == sorted(r.image for r in held)
    )
    assert hold_out(records, 0.25, seed=1)[1] != held
    assert [len(part) for part in hold_out(records, 0.001, 0)] == [11, 1] and len(hold_out(records[:2], 0.9, 0)[0]) == 1
    with pytest.raises(DataSetError, match="1 picture is too few"):
        hold_out(records[:1], 0.5, 0)


def test_damage_in_the_middle_is_found(folder: Path):
    content = bytearray((folder / "5.png").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "5.png").write_bytes(content)
    assert len(unlabelled_records(list_images(folder), say=lambda text: None)) == 11
