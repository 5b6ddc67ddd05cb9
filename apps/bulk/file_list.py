"""The files of a bulk run: of a folder or glob, a list file, or a Parquet table."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from data.sources import SourceFile, list_sources
from utils.errors import UserError
from utils.extras import require

COLUMN = "path"


def list_files(source: str) -> tuple[list[Path], int]:
    """Absolute paths, each once, in the order given, and how many names were left out because they stand twice.

    Files of lists and tables need not exist: the run counts what it cannot read. Nothing is opened here but the list.

    Args:
        source: what `list_sources` takes; or a .txt file with one path a line, or a .parquet file with a column
            `path`, both with paths from the folder of that file.

    Raises:
        UserError: nothing is named, or no such file or column.
    """
    suffix = Path(source).suffix.lower()
    if suffix == ".txt":
        names = _lines(Path(source))
    elif suffix == ".parquet":
        names = _column(Path(source))
    else:
        files = list_sources(source)
        if any(file.stream is not None for file in files):
            raise UserError(f"{files[-1].name}: cameras and streams do not end; inference.py reads them")
        return [file.path.absolute() for file in files], 0
    folder = Path(source).absolute().parent
    paths = [*dict.fromkeys(folder / name for name in names)]
    if not paths:
        raise UserError(f"{source}: names no file; write one path a line, or fill the column {COLUMN}")
    return paths, len(names) - len(paths)


def source_files(paths: list[Path]) -> list[SourceFile]:
    """What `read_frames` takes."""
    return [SourceFile(path, Path(path.name), number, len(paths)) for number, path in enumerate(paths, 1)]


def _lines(file: Path) -> list[str]:
    try:
        text = file.read_bytes().removeprefix(codecs.BOM_UTF8).decode("utf-8", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}; name a text file with one path a line") from error
    # Not `splitlines`, which also parts at characters that names may hold.
    return [line for line in re.split("\r\n|\n|\r", text) if line.strip()]


def _column(file: Path) -> list[str]:
    parquet = require("pyarrow.parquet", "bulk", "a table of files")
    try:
        table = parquet.read_table(file, columns=[COLUMN])
    except Exception as error:  # Arrow has many
        raise UserError(f"{file}: {str(error).splitlines()[0]}; give a Parquet table with a column {COLUMN}") from error
    if COLUMN not in table.column_names:
        raise UserError(f"{file}: has no column {COLUMN}; rename that of the paths")
    return [name for name in table[COLUMN].to_pylist() if name]
