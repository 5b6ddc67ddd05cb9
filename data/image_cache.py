"""Decoded images kept between epochs: nowhere, in memory, or as memory-mapped files on the disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from utils.atomic_file import replace_file
from utils.errors import UserError


class ImageCache:
    """Arrays by (file, name of what was made of it).

    On the disk every array is a .npy file, of which a patch reads only its own rows; its name holds path, size and
    time of the image file, so that a changed image is decoded again. Runs may share the folder.

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
        if key not in self._paths:
            self._paths[key] = self._path(file, what)
        path = self._paths[key]
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):  # not there yet, or cut short by a full disk
            array = make()
            replace_file(path, lambda stream: np.save(stream, array, allow_pickle=False))
            return array

    def _path(self, file: Path, what: str) -> Path:
        state = file.stat()
        name = f"{file.resolve()}|{state.st_size}|{state.st_mtime_ns}|{what}"
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:24]
        return self.folder / digest[:2] / f"{digest}.npy"
