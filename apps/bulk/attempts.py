"""Which file a worker was at when it died: a file that kills its worker again and again is given up, not the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from apps.bulk.finder import Find, check, results_of
from apps.bulk.tables import FAILED, FileResult
from utils.atomic_file import replace_text

MOST = 3  # deaths at one file; one or two may be those of the machine, or a run that was stopped


def careful_results(find: Find, paths: list[Path], note: Path) -> list[FileResult]:
    """Results of a chunk, see `results_of`.

    A chunk is started with an empty note beside the results. One whose note is there already was not finished: its
    files are read one by one, each named in the note before.

    Args:
        note: file for what has to outlive the worker.
    """
    again, deaths = note.exists(), _read(note)
    note.parent.mkdir(parents=True, exist_ok=True)
    if not again:
        note.touch()
        results = results_of(find, paths)
    else:
        results = [_alone(find, path, deaths, lambda: replace_text(note, json.dumps(deaths))) for path in paths]
    note.unlink(missing_ok=True)
    return check(results, paths)


def _alone(find: Find, path: Path, deaths: dict[str, int], save: Callable[[], object]) -> FileResult:
    name = str(path)
    if deaths.get(name, 0) >= MOST:
        return FileResult(name, FAILED, f"the worker died {MOST} times while it read this file")
    deaths[name] = deaths.get(name, 0) + 1
    save()
    (result,) = results_of(find, [path])
    deaths[name] -= 1
    return result


def _read(note: Path) -> dict[str, int]:
    """Deaths by file; a worker that lived took its own back, in memory, so the last one named counts."""
    try:
        return json.loads(note.read_text(encoding="utf-8") or "{}")
    except (OSError, ValueError):
        return {}
