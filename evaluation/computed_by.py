"""Which kernels and backend computed every row, as a table: what fell back to eager execution is said there."""

from __future__ import annotations

import re
from collections.abc import Sequence

from evaluation.row_key import RowKey

MEASURED = re.compile(r" \([\d.e+-]+ against [\d.e+-]+ ms\)")  # the start-up measurement behind a choice


def choice(how: str) -> str:
    """What was chosen, without the milliseconds that decided it, which differ from run to run."""
    return MEASURED.sub("", how)


def computed_by(rows: Sequence[dict]) -> list[list[str]] | None:
    """Head and lines for a Markdown table; None where no row says it, as in results of older versions.

    Args:
        rows: with the fields of a RowKey and `runs`: what `how_it_runs` said, or a list of what it said for each seed.
    """
    by_choice: dict[str, list[str]] = {}
    for row in rows:
        said = row.get("runs") or []
        found = dict.fromkeys(choice(how) for how in ([said] if isinstance(said, str) else said))
        if found:
            text = "; of another seed: ".join(re.sub(r"\beager\b", "**eager**", how) for how in found)
            by_choice.setdefault(text, []).append(RowKey.of(row).base.name)
    if not by_choice:
        return None
    lines = [[", ".join(dict.fromkeys(names)), text.replace("|", "\\|")] for text, names in by_choice.items()]
    return [["rows", "computed by"], *lines]
