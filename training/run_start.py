"""How a run takes its folder: no other process has it, and what killed runs left behind goes."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from utils.config import ConfigError
from utils.logger import open_run

LOCK = ".lock"
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp|(?:best|last)\.part")  # of replace_file, and of stage 1
_held: dict[Path, BinaryIO] = {}


def start_run(config: Any, main: bool = True, extends: Mapping[str, int] | None = None) -> Path:
    """`open_run` in a folder that this process then holds until it ends, without temporary files of killed runs.

    Args:
        config, main, extends: see `open_run`.

    Raises:
        ConfigError: see `open_run` and `hold`.
    """
    if main:
        hold(Path(config.run.out))
    folder = open_run(config, main, extends)
    if main:
        remove_temporary(folder)
    return folder


def hold(folder: Path) -> None:
    """Lock a run folder, which is created, until this process ends, however it ends; again does no harm.

    The lock is the kernel's (POSIX), which a killed process loses and its children do not inherit; without such locks
    (Windows, some network file systems) nothing is held.

    Raises:
        ConfigError: another process holds it.
    """
    key = folder.resolve()
    if key in _held or (folder.exists() and not folder.is_dir()):  # of the latter open_run says what is wrong
        return
    try:
        import fcntl
    except ImportError:
        return
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / LOCK).open("a+b")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        owner = file.read(200).decode(errors="replace").strip() or "another process"
        file.close()
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise ConfigError(
                f"run.out: {folder} is in use by {owner}; wait for it, or choose another --run.out"
            ) from None
        return
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    file.flush()
    _held[key] = file


def remove_temporary(folder: Path) -> None:
    """Delete the half-written files of killed runs; call it only while nobody else writes there."""
    for path in folder.rglob("*"):
        if TEMPORARY.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)
