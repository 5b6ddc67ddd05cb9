"""Which files of a bulk run belong together, fixed before the first is read: what makes a run resumable.

A chunk of files is finished or not as a whole, under its number. A run that is started again finds the plan, computes
the chunks that are missing, and can only ever write the same content under the same name, even where a process of the
run that was killed still writes.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from apps.bulk.tables import finished
from utils.atomic_file import replace_text
from utils.errors import UserError

NAME = "plan.json"


@dataclass(frozen=True)
class Plan:
    """Chunks of absolute paths, by number, and the options that all of them are computed with."""

    chunks: list[list[str]]
    options: dict


def placed(model: dict) -> tuple[dict, dict[str, str]]:
    """Arguments of `ConditionalYOLO` that name the same files in any working directory, and what these files hold.

    Args:
        model: weights, detector and sr as they were given, those that were.

    Returns:
        The same with absolute paths, and the SHA-256 of every file: one that is trained again keeps its path.
    """
    found, digests = dict(model), {}
    for key in {"weights", "detector", "sr"} & set(model):
        names = [model[key]] if os.path.isfile(model[key]) else str(model[key]).split(",")
        paths = [os.path.abspath(name) if os.path.isfile(name) else name for name in names]
        found[key] = ",".join(paths)
        digests |= {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths if os.path.isfile(path)}
    return found, digests


def make_plan(out: Path, paths: list[Path], options: dict, size: int) -> Plan:
    """The plan of the results in `out`: the one that is there, with files that are new in chunks of their own.

    Args:
        out: folder of the results.
        paths: files wanted now.
        options: everything that results depend on, as plain values.
        size: files of a new chunk.

    Raises:
        UserError: the results there were made with other options, or are no results.
    """
    chunks: list[list[str]] = []
    if (out / NAME).exists():
        old = _read(out / NAME)
        wrong = [key for key in {*old.options, *options} if old.options.get(key) != options.get(key)]
        if wrong:
            said = ", ".join(f"{key} {old.options.get(key)!r} instead of {options.get(key)!r}" for key in sorted(wrong))
            raise UserError(f"{out}: its results were made with {said}; name another --out, or the same options")
        chunks = old.chunks
    elif finished(out):
        raise UserError(f"{out}: holds tables of a run, and no {NAME} that says of which files; name another --out")
    known = {name for chunk in chunks for name in chunk}
    new = [name for name in dict.fromkeys(map(os.fspath, paths)) if name not in known]
    if new:
        chunks = [*chunks, *(new[first : first + size] for first in range(0, len(new), size))]
        out.mkdir(parents=True, exist_ok=True)
        replace_text(out / NAME, json.dumps({"options": options, "chunks": chunks}))  # ASCII, whatever bytes names hold
    return Plan(chunks, options)


def read_plan(out: Path) -> Plan:
    """The plan of the results in `out`. Raises OSError or UserError where there is none."""
    return _read(out / NAME)


def _read(file: Path) -> Plan:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return Plan(content["chunks"], content["options"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: is no plan of a bulk run; name another --out") from error
