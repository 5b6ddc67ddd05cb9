"""data/image_cache.py: what is kept, and when it is made again."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from data.image_cache import ImageCache


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(b"some image")
    return tmp_path / "a.png"


class Maker:
    """Counts how often it makes its array."""

    def __init__(self):
        self.array, self.calls = np.arange(60, dtype=np.uint8).reshape(4, 5, 3), 0

    def __call__(self) -> np.ndarray:
        self.calls += 1
        return self.array


@pytest.mark.parametrize(("kind", "calls"), [("none", 3), ("memory", 1), ("disk", 1)])
def test_makes_an_array_as_often_as_its_kind_says(kind: str, calls: int, file: Path, tmp_path: Path):
    cache, make = ImageCache(kind, tmp_path / "cache"), Maker()
    for _ in range(3):
        np.testing.assert_array_equal(cache.get(file, "hr", make), make.array)
    assert make.calls == calls
    assert (tmp_path / "cache").exists() == (kind == "disk")


def test_names_and_files_are_told_apart(file: Path, tmp_path: Path):
    cache, other = ImageCache("memory"), tmp_path / "b.png"
    arrays = [cache.get(f, what, lambda k=k: np.full(1, k)) for k, (f, what) in
              enumerate([(file, "hr"), (file, "lr"), (other, "hr")])]  # fmt: skip
    assert [int(a[0]) for a in arrays] == [0, 1, 2]


def test_disk_survives_the_process_and_reads_only_what_is_asked(file: Path, tmp_path: Path):
    ImageCache("disk", tmp_path / "cache").get(file, "hr", Maker())
    make = Maker()
    found = ImageCache("disk", tmp_path / "cache").get(file, "hr", make)
    assert make.calls == 0 and isinstance(found, np.memmap) and not found.flags.writeable


def test_disk_notices_a_changed_image_and_a_damaged_copy(file: Path, tmp_path: Path):
    ImageCache("disk", tmp_path / "cache").get(file, "hr", Maker())
    (stored,) = (tmp_path / "cache").rglob("*.npy")
    stored.write_bytes(stored.read_bytes()[:-7])
    make = Maker()
    np.testing.assert_array_equal(ImageCache("disk", tmp_path / "cache").get(file, "hr", make), make.array)
    assert make.calls == 1
    file.write_bytes(b"another image of another size")
    ImageCache("disk", tmp_path / "cache").get(file, "hr", make)
    assert make.calls == 2


def test_disk_needs_a_folder():
    with pytest.raises(ValueError, match=r"data\.cache_folder"):
        ImageCache("disk")


@pytest.mark.parametrize("at", [5, 140, -20, -1])
def test_disk_notices_one_changed_bit(at: int, file: Path, tmp_path: Path):
    ImageCache("disk", tmp_path / "cache").get(file, "hr", Maker())
    (stored,) = (tmp_path / "cache").rglob("*.npy")
    content = bytearray(stored.read_bytes())
    content[at] ^= 16
    stored.write_bytes(content)
    make = Maker()
    np.testing.assert_array_equal(ImageCache("disk", tmp_path / "cache").get(file, "hr", make), make.array)
    assert make.calls == 1


def test_leftovers_of_killed_runs_go_and_files_that_are_being_written_stay(tmp_path: Path):
    old, new = (tmp_path / "cache" / "ab" / f".x.npy.{name}.tmp" for name in ("old", "new"))
    old.parent.mkdir(parents=True)
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    ImageCache("disk", tmp_path / "cache")
    assert not old.exists() and new.exists()
