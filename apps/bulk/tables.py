"""Results as Parquet: boxes/part-N.parquet with a row for each box, files/part-N.parquet with a row for each file.

Part N holds chunk N of the plan. Its boxes are written first: a part of files that is there says that all is there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.extras import require

OK, SKIPPED, FAILED = "ok", "skipped", "failed"
STATUSES = (OK, SKIPPED, FAILED)


@dataclass
class FileResult:
    """What became of one file.

    Args:
        path: of the file.
        status: ok; skipped: it cannot be read (to its end); failed: an error of the program.
        reason: why it is not ok.
        frames: images that were read: 1, or those of a video.
        width, height: of the last image.
        kept_share: mean over its images; None without a masker.
        boxes: of all images: frame (None for an image), class, name, score, x1, y1, x2, y2 in pixels.
    """

    path: str
    status: str = OK
    reason: str | None = None
    frames: int = 0
    width: int | None = None
    height: int | None = None
    kept_share: float | None = None
    boxes: list[tuple] = field(default_factory=list)


def part_file(out: Path, kind: str, chunk: int) -> Path:
    return out / kind / f"part-{chunk:06d}.parquet"


def finished(out: Path) -> set[int]:
    """Numbers of the chunks whose results are complete."""
    numbers = (file.stem.removeprefix("part-") for file in (out / "files").glob("part-*.parquet"))
    return {int(number) for number in numbers if number.isdecimal()}


def write_part(out: Path, chunk: int, results: Iterable[FileResult]) -> dict[str, int]:
    """Write both tables of a chunk, each in one step.

    Returns:
        Numbers of its files by status, and of its boxes.

    Raises:
        OSError: they cannot be written.
    """
    pa = require("pyarrow", "bulk", "bulk inference")
    results = list(results)
    whole, part, text = pa.int32(), pa.float32(), pa.string()
    box_types = [text, whole, whole, text, part, part, part, part, part]
    box_names = ["path", "frame", "class", "name", "score", "x1", "y1", "x2", "y2"]
    boxes = [(printable(result.path), *box) for result in results for box in result.boxes]
    _write(part_file(out, "boxes", chunk), boxes, [*zip(box_names, box_types, strict=True)])
    names = ["path", "status", "reason", "frames", "width", "height", "kept_share", "boxes", "chunk"]
    types = [text, text, text, whole, whole, whole, part, whole, whole]
    rows = [
        (printable(r.path), r.status, r.reason and printable(r.reason), r.frames, r.width, r.height, r.kept_share,
         len(r.boxes), chunk)
        for r in results
    ]  # fmt: skip
    _write(part_file(out, "files", chunk), rows, [*zip(names, types, strict=True)])
    counts = {status: sum(result.status == status for result in results) for status in STATUSES}
    return counts | {"boxes": len(boxes)}


def printable(path: str) -> str:
    """A name that Parquet holds, whatever bytes it is made of."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _write(file: Path, rows: list[tuple], columns: list[tuple[str, Any]]) -> None:
    """One table, complete or not at all."""
    pa, parquet = require("pyarrow", "bulk"), require("pyarrow.parquet", "bulk")
    values = [*zip(*rows, strict=True)] or [()] * len(columns)
    arrays = [pa.array(value, kind) for value, (_, kind) in zip(values, columns, strict=True)]
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        parquet.write_table(pa.table(arrays, names=[name for name, _ in columns]), temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
