"""Decoded images kept between epochs: nowhere, in memory, or as memory-mapped files on the disk."""

from __future__ import annotations

import hashlib
import io
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from utils.atomic_file import replace_file
from utils.errors import UserError

CHECK_BYTES = 4
OLD_SECONDS = 3600  # no image takes that long to write


class ImageCache:
    """Arrays by (file, name of what was made of it).

    On the disk every array is a .npy file, of which a patch reads only its own rows; its name holds path, size and
    time of the image file, so that a changed image is decoded again. Behind the array stands a CRC-32 of all before it,
    which is looked at once in a run: a damaged file is made again. Runs may share the folder.

    Args:
        kind: none, memory or disk.
        folder: where `disk` keeps its files.

    Raises:
        ValueError: disk without a folder.
    """

    def __init__(self, kind: Literal["none", "memory", "disk"], folder: str | Path | None = None):
        if kind == "disk" and folder is None:
            raise UserError("data.cache is disk, but no folder is named; set data.cache_folder")
        self.kind, self.folder = kind, None if folder is None else Path(folder)
        self._arrays: dict[tuple[Path, str], np.ndarray] = {}
        self._paths: dict[tuple[Path, str], Path] = {}
        if self.folder is not None and kind == "disk":
            _remove_old_temporary(self.folder)

    def get(self, file: Path, what: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The array, made by `make` where it is not kept; treat it as read-only.

        Raises:
            OSError: the folder cannot be written.
        """
        if self.kind == "none":
            return make()
        key = (file, what)
        if self.kind == "memory":
            if key not in self._arrays:
                self._arrays[key] = make()
            return self._arrays[key]
        seen = key in self._paths
        path = self._paths.setdefault(key, self._paths.get(key) or self._path(file, what))
        try:
            if not seen:
                _check_sum(path)
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):  # not there yet, or damaged
            array, content = make(), io.BytesIO()
            np.save(content, array, allow_pickle=False)
            content.write(zlib.crc32(content.getbuffer()).to_bytes(CHECK_BYTES, "little"))
            replace_file(path, lambda stream: stream.write(content.getbuffer()))
            return array

    def _path(self, file: Path, what: str) -> Path:
        state = file.stat()
        name = f"{file.resolve()}|{state.st_size}|{state.st_mtime_ns}|{what}"
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:24]
        return self.folder / digest[:2] / f"{digest}.npy"


def _check_sum(path: Path) -> None:
    """Raises ValueError where the file is not as it was written, OSError where it is not there."""
    content = np.memmap(path, np.uint8, "r")  # ValueError for an empty file
    if zlib.crc32(content[:-CHECK_BYTES]).to_bytes(CHECK_BYTES, "little") != content[-CHECK_BYTES:].tobytes():
        raise ValueError(f"{path}: damaged")


def _remove_old_temporary(folder: Path) -> None:
    """Delete what killed runs left half-written; other runs may be writing now."""
    for path in folder.glob("??/.*.npy.*.tmp"):
        if time.time() - path.stat().st_mtime > OLD_SECONDS:
            path.unlink(missing_ok=True)
