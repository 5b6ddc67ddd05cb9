"""What adapt.py found out, in words: a table, what there is to win, and what to deploy."""

from __future__ import annotations

import json
from pathlib import Path
from shlex import quote

from evaluation.detection_report import json_value, markdown
from utils.atomic_file import replace_text

REPORT, PAGE = "report.json", "report.md"
FEW = 30  # pictures; a bootstrap of fewer is optimistic
HEADINGS = ("row", "agreement", "95 %", "behind the best", "mAP", "95 %", "kept", "GMAC", "ms")


def table(rows: list[dict]) -> str:
    """Markdown table of rows of `measure_agreement`; columns without any figure are left out."""
    cells = [[row["name"], *figure(row, "agreement"), span(row["behind"]), *figure(row, "map50_95"),
              number(row["kept_share"], 2), number(row["total_gmacs"], 2), number(row["total_ms"], 1)]
             for row in rows]  # fmt: skip
    columns = [[heading, *column] for heading, *column in zip(HEADINGS, *cells, strict=True)]
    shown = [column for column in columns if any(cell != "-" for cell in column[1:])]
    return markdown([list(line) for line in zip(*shown, strict=True)])


def figure(row: dict, key: str) -> tuple[str, str]:
    return number(row.get(key), 3), span(row.get(f"{key}_interval"))


def number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def span(interval: list[float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def to_win(rows: list[dict], pictures: int) -> str:
    """What resolution costs, and what is won back without training."""
    figures = {row["name"]: row["agreement"] for row in rows if row["recipe"] is None}
    lost = 1 - figures["bicubic"]
    others = {name: value for name, value in figures.items() if name not in ("hr", "bicubic")}
    won = ", ".join(f"{name} {value - figures['bicubic']:+.3f}" for name, value in others.items())
    return (
        f"What there is to win: on {pictures} held-out pictures the boxes in bicubic pictures agree with those in HR "
        f"pictures to {figures['bicubic']:.3f}, so {lost:.3f} is lost with the resolution. Without training: {won}."
    )


def deployed(result: dict) -> str:
    """What to deploy and why, in two sentences."""
    name, best, key = result["deploy"], result["best"], result["judged_by"]
    rows = {row["name"]: row for row in result["rows"]}
    if name == best:
        others = [other for other in result["tied"] if other != name]
        reason = "the best" + (f"; {', '.join(others)} cannot be told apart from it and cost no less" if others else "")
    else:
        low, high = rows[name]["behind"]
        reason = (
            f"the cheapest of those that cannot be told apart from the best, {best} ({number(rows[best][key], 3)}; "
            f"{low:.3f} to {high:.3f} ahead)"
        )
    trained = rows[name]["recipe"] == "trained"
    learned = "" if trained or not result["steps"] else " The training has brought nothing certain on these pictures."
    return f"Deploy {name} ({key} {number(rows[name][key], 3)}): {reason}.{learned}"


def write_report(folder: Path, result: dict) -> str:
    """Write report.md and report.json; returns the page.

    Args:
        folder: run folder.
        result: JSON types; rows, pictures, deploy, best, tied, judged_by, steps, and what else is to be kept.
    """
    won = to_win(result["rows"], result["pictures"])
    parts = [heading(result), table(result["rows"]), won, deployed(result), usage(folder, result)]
    if result["pictures"] < FEW:
        parts.insert(3, f"Fewer than {FEW} pictures are held out: intervals of so few are too narrow; give more.")
    page = "\n\n".join(parts)
    replace_text(folder / PAGE, page + "\n")
    # Last, because its presence says that the run is complete.
    replace_text(folder / REPORT, json.dumps(json_value(result), indent=1, allow_nan=False) + "\n")
    return page


def heading(result: dict) -> str:
    """What was measured."""
    return (
        f"{result['detector']}, x{result['scale']}, detector input {result['canvas'][1]}x{result['canvas'][0]}: "
        f"{result['pictures']} held-out pictures with {result['objects']} boxes above a score of {result['sure']:g}, "
        f"{result['training_pictures']} to train on ({result['steps']} steps, {result['minutes']:.1f} minutes in all)."
    )


def usage(folder: Path, result: dict) -> str:
    """How to run what is deployed."""
    (row,) = (row for row in result["rows"] if row["name"] == result["deploy"])
    policy = "" if row["policy"] is None else f" --policy {row['policy']}={row['budget']:g}"
    return f"    python inference.py --weights {quote(str(folder / result['file']))} --source my/lowres{policy}"
