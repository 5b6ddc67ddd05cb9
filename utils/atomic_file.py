"""Replace a file in one step, so that a kill at any instant leaves the old content or the new one, never a mixture."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def replace_file(path: str | Path, write: Callable[[BinaryIO], object], keep_as: str | Path | None = None) -> None:
    """Write a file through a temporary one in the same folder: flush, fsync, rename, fsync of the folder.

    Args:
        path: file to create or replace; its folder is created.
        write: receives the open binary file.
        keep_as: name in the same folder under which the replaced file stays available.

    Raises:
        OSError: the folder cannot be written, or the disk is full; `path` is then as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if keep_as is not None and path.exists():
            os.replace(path, keep_as)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        # PyTorch's writer reports another error on top of that of the disk, or of Ctrl-C.
        if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError | KeyboardInterrupt):
            raise error.__context__ from None
        raise
    _sync_folder(path.parent)


def replace_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text in one step, see `replace_file`."""
    replace_file(path, lambda file: file.write(text.encode("utf-8")))


def remove_leftovers(path: str | Path) -> None:
    """Delete temporary files that killed writers of `path` left behind; call it only while nobody writes there."""
    path = Path(path)
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        leftover.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
