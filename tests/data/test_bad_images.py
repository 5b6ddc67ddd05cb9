"""data/bad_images.py in SR training: a bad image stops the run, or is named, skipped and replaced by another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from data.image_cache import ImageCache
from data.images import ImageError, read_rgb
from tests.data.drawn_pairs import LIMIT, make, save


def test_bad_images_are_found_before_training(photographs: Path) -> None:
    save(photographs / "bad.png", 50, 50)
    (photographs / "bad.png").write_bytes((photographs / "bad.png").read_bytes()[:100])
    with pytest.raises(ImageError, match=r"bad\.png: truncated"):
        make(photographs)


def break_header(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def break_pixels(file: Path) -> None:
    """Header and end stay as they are, so that only decoding finds out."""
    content = bytearray(file.read_bytes())
    start = content.index(b"IDAT") + 4
    content[start : start + 200] = bytes(200)
    file.write_bytes(content)


@pytest.mark.parametrize("breaks", [break_header, break_pixels])
@pytest.mark.parametrize("kind", ["none", "memory", "disk"])
def test_a_bad_image_is_named_and_skipped(photographs: Path, tmp_path: Path, capsys, breaks, kind: str) -> None:
    good = make(photographs)
    save(photographs / "zz_bad.png", 50, 50)
    breaks(photographs / "zz_bad.png")
    dataset = make(photographs, on_bad_image="skip", cache=ImageCache(kind, tmp_path / "cache"))
    dataset.preload()
    keys = [(0, index) for index in range(40)]
    files = {Path(dataset[key]["file"]).name for key in keys}
    assert files == {file.name for file, _ in good.files}
    (note,) = dataset.notes()
    assert note.startswith(f"1 bad image skipped: {photographs / 'zz_bad.png'}: ") and "replace or remove" in note
    warned = capsys.readouterr().err
    assert warned.count("warning: skipped") == int(kind == "none" and breaks is break_pixels)
    if breaks is break_header:  # as if it were not there
        assert all(torch.equal(dataset[key]["hr"], good[key]["hr"]) for key in keys)


@pytest.mark.parametrize("breaks", [break_header, break_pixels])
def test_samples_beside_a_bad_image_do_not_depend_on_the_cache(photographs: Path, tmp_path: Path, breaks) -> None:
    save(photographs / "bad.png", 50, 50)
    breaks(photographs / "bad.png")
    caches = (ImageCache(kind, tmp_path / "cache") for kind in ("none", "memory", "disk"))
    first, *others = (make(photographs, on_bad_image="skip", cache=cache) for cache in caches)
    others[0].preload()
    for key in ((0, index) for index in range(40)):
        for other in others:
            assert all(torch.equal(first[key][name], other[key][name]) for name in ("lr", "hr"))


def test_bad_pixels_stop_the_run_where_that_is_asked_for(photographs: Path) -> None:
    save(photographs / "bad.png", 50, 50)
    break_pixels(photographs / "bad.png")
    dataset = make(photographs)
    with pytest.raises(ImageError, match=r"bad\.png: damaged or truncated"):
        dataset.preload()
    lazy = make(photographs, cache=ImageCache("none"))
    with pytest.raises(ImageError, match=r"bad\.png: damaged or truncated"):
        [lazy[0, index] for index in range(40)]


def test_too_many_bad_images_stop_the_run(photographs: Path, tmp_path: Path) -> None:
    for name in "ab":
        save(photographs / f"{name}.png", 50, 50)
        break_header(photographs / f"{name}.png")
    with pytest.raises(ImageError, match=r"b\.png: truncated .*, and 2 of 5 images cannot be used, too many"):
        make(photographs, on_bad_image="skip")
    for breaks in (break_header, break_pixels):
        file = tmp_path / breaks.__name__ / "only.png"
        save(file, 50, 50)
        breaks(file)
        with pytest.raises(ImageError, match=r"only\.png: "):
            make(file.parent, on_bad_image="skip").preload()


def test_a_bad_lr_image_takes_its_pair_along(photographs: Path, tmp_path: Path) -> None:
    for file in photographs.rglob("*.png"):
        hr = read_rgb(file, LIMIT)
        save(tmp_path / "lr" / file.relative_to(photographs), hr.shape[0] // 2, hr.shape[1] // 2)
    bad = sorted((tmp_path / "lr").rglob("*.png"))[1]
    for breaks in (break_pixels, break_header):
        breaks(bad)
        dataset = make(photographs, lr=tmp_path / "lr", on_bad_image="skip", cache=ImageCache("none"))
        seen = {Path(dataset[0, index]["file"]).name for index in range(40)}
        assert len(seen) == 2 and bad.name not in seen and str(bad) in dataset.notes()[0]
