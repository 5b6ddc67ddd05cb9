"""A failed write leaves the old file and no litter."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
import torch

from utils.atomic_file import remove_leftovers, replace_file, replace_text


def test_write_and_replace(tmp_path: Path):
    path = tmp_path / "deep" / "a.txt"
    replace_text(path, "Größe\n")
    assert path.read_bytes() == "Größe\n".encode()
    replace_file(path, lambda file: file.write(b"new"), keep_as=path.with_name("old.txt"))
    assert path.read_bytes() == b"new" and path.with_name("old.txt").read_text(encoding="utf-8") == "Größe\n"


def test_a_failed_write_changes_nothing(tmp_path: Path):
    path = tmp_path / "a.txt"
    replace_text(path, "old")

    def fail(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        replace_file(path, fail, keep_as=tmp_path / "b.txt")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "old")]


def test_permissions_are_those_of_an_ordinary_file(tmp_path: Path):
    replace_text(tmp_path / "a.txt", "x")
    (tmp_path / "b.txt").write_text("x")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode


def test_leftovers_of_killed_writers_only(tmp_path: Path):
    names = [".a.txt.x1.tmp", ".a.txt.x2.tmp", "a.txt", ".ab.txt.x1.tmp", "a.txt.tmp"]
    for name in names:
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path / "a.txt")
    assert sorted(os.listdir(tmp_path)) == sorted(names[2:])


@pytest.mark.parametrize("cause", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_pytorchs_writer_hides_is_told(tmp_path: Path, cause: BaseException):
    class Fails(io.BytesIO):
        def write(self, content: bytes) -> int:
            raise cause

    with pytest.raises(type(cause)):
        replace_file(tmp_path / "a.pth", lambda file: torch.save({"a": torch.zeros(9)}, Fails()))
    assert not list(tmp_path.iterdir())
