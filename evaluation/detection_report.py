"""The result of an evaluation as results.json, table.md, table.csv and a picture."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

from evaluation.computed_by import computed_by
from evaluation.pareto import draw_pareto
from evaluation.row_key import RowKey
from utils.atomic_file import replace_file, replace_text

RESULTS, TABLE, CSV, PICTURE = "results.json", "table.md", "table.csv", "pareto.png"
COLUMNS = (
    "name",
    "map50_95",
    "map50",
    "ap_small",
    "ap_medium",
    "ap_large",
    "kept_share",
    "sr_gmacs",
    "total_gmacs",
    "params",
    "sr_ms",
    "total_ms",
    "total_ms_p95",
    "peak_mem_mb",
)
EXTRA_COLUMNS = ("kept_inside", "kept_outside", "psnr", *RowKey("").record(), "runs")
HEADINGS = {
    "name": "row",
    "map50_95": "mAP50-95",
    "map50": "mAP50",
    "ap_small": "AP small",
    "ap_medium": "AP medium",
    "ap_large": "AP large",
    "kept_share": "kept",
    "sr_gmacs": "SR GMAC",
    "total_gmacs": "total GMAC",
    "params": "params",
    "sr_ms": "SR ms",
    "total_ms": "total ms",
    "total_ms_p95": "p95 ms",
    "peak_mem_mb": "peak MB",
}
DIGITS = {"sr_gmacs": 2, "total_gmacs": 2, "sr_ms": 1, "total_ms": 1, "total_ms_p95": 1, "peak_mem_mb": 0}


def write_report(folder: Path, results: dict) -> str:
    """Write all four files into the run folder; returns the table as Markdown.

    Args:
        folder: run folder.
        results: {"dataset", "split", "scale", "lr_protocol", "device", "dtype", "threads", "versions", "rows": [...]}
            and further keys; each row has COLUMNS and the fields of its RowKey and may have the other EXTRA_COLUMNS,
            None where undefined.
    """
    table = table_markdown(results["rows"])
    replace_file(folder / PICTURE, lambda file: draw_pareto(results).savefig(file, format="png", dpi=130))
    replace_text(folder / CSV, table_csv(results["rows"]))
    computed = computed_by(results["rows"])
    below = f"\n{markdown(computed, left=2)}\n" if computed else ""
    replace_text(folder / TABLE, f"{heading(results)}\n\n{table}\n{below}")
    # Last, because its presence says that the evaluation is complete.
    replace_text(folder / RESULTS, json.dumps(json_value(results), indent=1, allow_nan=False) + "\n")
    return table


def json_value(value):
    """JSON types only; NaN and infinities become None."""
    if isinstance(value, dict):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def heading(results: dict) -> str:
    """What was measured, in one sentence."""
    images = f"{results['images']} images, " if "images" in results else ""
    threads = f"{results['threads']} thread{'s' * (results['threads'] != 1)}"
    return (
        f"{results['dataset']}, split {results['split']}: {images}x{results['scale']}, {results['lr_protocol']}; "
        f"{results['device']}, {results['dtype']}, {threads}, times at batch 1."
    )


def table_markdown(rows: list[dict]) -> str:
    """Markdown table, padded so that it reads well in a terminal too."""
    cells = [[cell_text(column, row[column]) for column in COLUMNS] for row in rows]
    return markdown([[HEADINGS[column] for column in COLUMNS], *cells])


def markdown(cells: list[list[str]], left: int = 1) -> str:
    """Markdown table of texts, headings first; the first `left` columns to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]

    def line(texts: list[str]) -> str:
        padded = [t.ljust(w) if i < left else t.rjust(w) for i, (t, w) in enumerate(zip(texts, widths, strict=True))]
        return f"| {' | '.join(padded)} |"

    rules = ["-" * (w + 2) if i < left else "-" * (w + 1) + ":" for i, w in enumerate(widths)]
    return "\n".join([line(cells[0]), f"|{'|'.join(rules)}|", *map(line, cells[1:])])


def cell_text(column: str, value) -> str:
    """One cell: a dash where undefined, parameters in K or M, shares with three digits."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    if isinstance(value, str):
        return value.replace("|", "\\|")
    if column == "params":
        return f"{value / 1e6:.2f}M" if value >= 1e6 else f"{value / 1e3:.1f}K"
    return f"{value:.{DIGITS.get(column, 3)}f}"


def table_csv(rows: list[dict], columns: Sequence[str] = (*COLUMNS, *EXTRA_COLUMNS)) -> str:
    """Comma-separated, full precision, empty where undefined."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(json_value(rows))
    return text.getvalue()
