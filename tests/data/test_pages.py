"""Files that hold several images: all pages of TIFF, WebP and PNG, and nothing that is none."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from configs.schema import DetectionDataConfig
from configs.sr_schema import SRDataConfig
from data.data_spec import load_data_spec, scan_splits
from data.image_cache import ImageCache
from data.images import inspect_image
from data.pages import page_numbers
from data.sources import Frame, Skipped, list_sources, read_frames
from data.sr_pairs import SRPairDataset
from data.unlabelled import unlabelled_records

LIMIT = 10_000


def page(value: int, height: int = 6, width: int = 8) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def frames(path: Path) -> list[Frame | Skipped]:
    return list(read_frames(list_sources(path), LIMIT))


@pytest.mark.parametrize("name", ["a.tif", "a.webp", "a.png", "a.apng"])
def test_every_page_is_read(tmp_path, name):
    first, *others = [Image.fromarray(page(value)) for value in (40, 90, 200)]
    kind = {"webp": "WEBP", "tif": "TIFF"}.get(name.partition(".")[2], "PNG")
    options = {"lossless": True} if kind == "WEBP" else {}
    first.save(tmp_path / name, kind, save_all=True, append_images=others, **options)
    found = frames(tmp_path / name)
    assert [frame.image.mean() for frame in found] == [40, 90, 200]
    assert [frame.index for frame in found] == [1, 2, 3] and found[0].fps is None
    assert found[1].label.endswith(f"{name} (page 2)")


def test_a_single_image_has_no_page_number(tmp_path):
    for name in ("a.tif", "a.webp", "a.png", "a.jpg"):
        Image.fromarray(page(90)).save(tmp_path / name)
        (found,) = frames(tmp_path / name)
        assert found.index is None and not found.label.endswith(")")


def test_pages_of_any_kind_and_size(tmp_path):
    """The second is one of those that Pillow reads wrongly: 16 bit, bands one after the other."""
    deep = np.zeros((3, 5, 7), np.uint16)
    deep[1] = 65535
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(page(40), photometric="rgb")
        file.write(deep, photometric="rgb", planarconfig="separate")
        file.write(page(200)[..., 0], photometric="minisblack")
    found = frames(tmp_path / "a.tif")
    assert [frame.image.shape for frame in found] == [(6, 8, 3), (5, 7, 3), (6, 8, 3)]
    assert [frame.image[2, 2].tolist() for frame in found] == [[40] * 3, [0, 255, 0], [200] * 3]


def test_overviews_and_masks_are_no_pages(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(page(40), photometric="rgb")
        file.write(page(40, 3, 4), photometric="rgb", subfiletype=1)
        file.write(np.ones((6, 8), bool), photometric="minisblack", subfiletype=4)
    (found,) = frames(tmp_path / "a.tif")
    assert found.index is None and found.image.shape == (6, 8, 3)


def test_the_second_picture_of_a_phone_is_no_page(tmp_path):
    Image.fromarray(page(40)).save(tmp_path / "a.mpo", save_all=True, append_images=[Image.fromarray(page(90))])
    assert page_numbers(tmp_path / "a.mpo") == [0] and len(frames(tmp_path / "a.mpo")) == 1


def test_a_damaged_page_is_named_and_ends_the_file(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for value in (40, 90, 200):
            file.write(page(value, 40, 40), photometric="rgb", compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        at, count = file.pages[1].dataoffsets[0], file.pages[1].databytecounts[0]
    whole = bytearray((tmp_path / "a.tif").read_bytes())
    whole[at : at + count] = bytes(count)
    (tmp_path / "a.tif").write_bytes(whole)
    first, last = frames(tmp_path / "a.tif")
    assert isinstance(first, Frame) and isinstance(last, Skipped) and last.reason.startswith("page 2: ")


def test_pages_larger_than_the_limit_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(page(40), photometric="rgb")
        file.write(page(40, 101, 100), photometric="rgb")
    first, last = frames(tmp_path / "a.tif")
    assert isinstance(first, Frame) and "100x101 = 10,100 pixels" in last.reason


@pytest.mark.parametrize("pages", [1, 3])
def test_a_chain_of_pages_that_comes_back_to_itself_ends(tmp_path, pages):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for number in range(pages):
            file.write(page(40 + number), photometric="rgb")
    with tifffile.TiffFile(path) as file:
        first, last = file.pages[0].offset, file.pages[-1].offset
    content = bytearray(path.read_bytes())
    after = last + 2 + 12 * struct.unpack_from("<H", content, last)[0]
    assert content[after : after + 4] == bytes(4)
    struct.pack_into("<I", content, after, first)
    path.write_bytes(content)
    assert [frame.image.mean() for frame in frames(path)] == [40, 41, 42][:pages]
    assert inspect_image(path, LIMIT).pages == pages


def test_a_picture_that_says_it_has_billions_of_frames(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(page(40)).save(path, save_all=True, append_images=[Image.fromarray(page(90))])
    content = bytearray(path.read_bytes())
    at = content.index(b"acTL")
    struct.pack_into(">I", content, at + 4, 2**31 - 1)
    struct.pack_into(">I", content, at + 12, zlib.crc32(content[at : at + 12]))
    path.write_bytes(content)
    assert len(page_numbers(path)) == 2**31 - 1
    *good, bad = frames(path)
    assert [frame.image.mean() for frame in good] == [40, 90] and "page 3" in bad.reason


def test_what_is_no_image_has_one_page(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0" + b"x" * 40)
    assert page_numbers(tmp_path / "a.tif") == page_numbers(tmp_path / "none.png") == [0]
    (found,) = frames(tmp_path / "a.tif")
    assert isinstance(found, Skipped)


def test_training_says_that_it_takes_first_pages_alone(tmp_path):
    """In every scan: labelled and unlabelled pictures, and photographs for SR; each file is named once."""
    folder = tmp_path / "images" / "train"
    folder.mkdir(parents=True)
    pictures = [Image.fromarray(page(value, 40, 40)) for value in (40, 90)]
    pictures[0].save(folder / "pages.tif", save_all=True, append_images=pictures[1:])
    pictures[0].save(folder / "moves.webp", save_all=True, append_images=pictures[1:], lossless=True)
    for name in ("a.png", "b.tif", "c.jpg", "d.webp"):
        pictures[0].save(folder / name)
    assert {path.name: inspect_image(path, LIMIT).pages for path in folder.iterdir()} == {
        "pages.tif": 2, "moves.webp": 2, "a.png": 1, "b.tif": 1, "c.jpg": 1, "d.webp": 1
    }  # fmt: skip
    (tmp_path / "data.yaml").write_text("train: [images/train, images/train]\nval: images/train\nnames: [a]\n")
    notes: list[str] = []
    scan_splits(load_data_spec(tmp_path / "data.yaml"), DetectionDataConfig(), ["train"], notes.append)
    unlabelled_records(sorted(folder.iterdir()), max_pixels=LIMIT, say=notes.append)
    photographs = SRPairDataset(SRDataConfig(train=[str(folder)], patch=8), 2, 0, ImageCache("none"))
    notes += photographs.notes()
    expected = f"only the first image is taken of 2 files that hold several ({folder / 'moves.webp'}, "
    assert len(notes) == 3 and all(f"{expected}{folder / 'pages.tif'}): save the others" in note for note in notes)
    (folder / "moves.webp").unlink()
    (folder / "pages.tif").unlink()
    scan_splits(load_data_spec(tmp_path / "data.yaml"), DetectionDataConfig(), ["train"], notes.append)
    assert "only the first" not in notes[-1]
