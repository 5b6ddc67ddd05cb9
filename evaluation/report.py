"""The result of an evaluation as results.json, table.md, table.csv and a Pareto picture (mAP against milliseconds)."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

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
EXTRA_COLUMNS = ("kept_inside", "kept_outside", "psnr")
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
# Rows SYSTEM_KIND_SHARE are one system at several kept shares, joined by a line: kind -> line style, legend.
KINDS = {
    "budget": ("-", "budget of the masker"),
    "random": (":", "random patches"),
    "edge": ("--", "patches with edges"),
    "oracle": ("-.", "patches with objects (oracle)"),
}
OWN_COLOURS = {"budget": "tab:blue", "random": "tab:gray", "edge": "tab:green", "oracle": "tab:purple"}
COLOURS = ("tab:orange", "tab:cyan", "tab:olive", "tab:pink", "tab:brown")  # of further systems, in turn
CURVE_ROW = re.compile(rf"(?P<system>.+)_(?P<kind>{'|'.join(KINDS)})_(?P<share>\d+(\.\d+)?(e-\d+)?)")
CONTROL = re.compile(r"(?P<system>.+)_(learned|all_fast|all_quality|latency_[\d.e+-]+)")


def write_report(folder: Path, results: dict) -> str:
    """Write all four files into the run folder; returns the table as Markdown.

    Args:
        folder: run folder.
        results: {"dataset", "split", "scale", "lr_protocol", "device", "dtype", "threads", "versions", "rows": [...]}
            and further keys; each row has COLUMNS and may have EXTRA_COLUMNS, None where undefined.
    """
    table = table_markdown(results["rows"])
    replace_file(folder / PICTURE, lambda file: draw_pareto(results).savefig(file, format="png", dpi=130))
    replace_text(folder / CSV, table_csv(results["rows"]))
    replace_text(folder / TABLE, f"{heading(results)}\n\n{table}\n")
    # Last, because its presence says that the evaluation is complete.
    replace_text(folder / RESULTS, json.dumps(plain(results), indent=1, allow_nan=False) + "\n")
    return table


def plain(value):
    """JSON types only; NaN and infinities become None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def data_set_name(yaml: Path) -> str:
    """The YAML's own name, or that of the nearest folder above it which says more than `data`."""
    yaml = yaml.resolve()
    names = [yaml.stem, *(folder.name for folder in yaml.parents)]
    return next((name for name in names if name.lower() not in ("data", "dataset", "datasets", "")), yaml.stem)


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
    writer.writerows(plain(rows))
    return text.getvalue()


# ---------------------------------------------------------------------- picture


def draw_pareto(results: dict) -> Figure:
    """mAP50-95 against total milliseconds, the budgets of a policy joined by a line; needs both figures of a row."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    points = [row for row in plain(results["rows"]) if row["total_ms"] is not None and row["map50_95"] is not None]
    colours = row_colours([row["name"] for row in points])
    for (system, kind), curve in curves(points).items():
        times, qualities = [row["total_ms"] for row in curve], [row["map50_95"] for row in curve]
        style, legend = KINDS[kind]
        colour, legend = colours[curve[0]["name"]], f"{system}, {legend}"
        axes.plot(times, qualities, style, color=colour, marker="o", zorder=2, label=legend)
    for row in points:
        if not CURVE_ROW.fullmatch(row["name"]):
            axes.plot(row["total_ms"], row["map50_95"], "D", color=colours[row["name"]], markersize=6, zorder=3)
    axes.set_xlabel(f"total ms per image (median, batch 1, {results['device']}, {results['dtype']})")
    axes.set_ylabel("mAP50-95")
    axes.set_title(f"{results['dataset']} {results['split']}, x{results['scale']}")
    axes.grid(alpha=0.3)
    axes.margins(0.12)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", fontsize=8, framealpha=0.6)
    if not points:
        axes.text(0.5, 0.5, "no row has both a time and an mAP", ha="center", transform=axes.transAxes)
    label_points(figure, axes, [(row["total_ms"], row["map50_95"], row["name"]) for row in points])
    return figure


def curves(points: list[dict]) -> dict[tuple[str, str], list[dict]]:
    """(system, kind) -> its rows by ascending kept share."""
    found = {}
    for row in points:
        if match := CURVE_ROW.fullmatch(row["name"]):
            found.setdefault((match["system"], match["kind"]), []).append((float(match["share"]), row))
    return {key: [row for _, row in sorted(rows, key=lambda pair: pair[0])] for key, rows in found.items()}


def label_text(name: str) -> str:
    """A curve's points carry the kept share alone, the legend says the rest."""
    match = CURVE_ROW.fullmatch(name)
    return match["share"] if match else name.replace("_", " ")


def row_colours(names: list[str]) -> dict[str, str]:
    """Row -> colour: one per further system with a masker, four for the rows conditional_*, red for all others."""
    shared = {match["system"]: None for name in names if (match := CURVE_ROW.fullmatch(name))}
    others = [system for system in shared if system != "conditional"]
    by_system = {system: COLOURS[index % len(COLOURS)] for index, system in enumerate(others)} | {"conditional": "navy"}
    colours = {}
    for name in names:
        match = CURVE_ROW.fullmatch(name)
        if match and match["system"] == "conditional":
            colours[name] = OWN_COLOURS[match["kind"]]
        else:
            match = match or CONTROL.fullmatch(name)
            colours[name] = by_system.get(match["system"], "tab:red") if match else "tab:red"
    return colours


def label_points(figure: Figure, axes, points: list[tuple[float, float, str]]) -> None:
    """Write each row's name beside its point (x, y, name), where it covers the fewest other labels and points."""
    figure.draw_without_rendering()  # fixes the axes, so that data have places in pixels
    renderer = FigureCanvasAgg(figure).get_renderer()
    places = [axes.transData.transform((x, y)) for x, y, _ in points]
    colours = row_colours([name for _, _, name in points])
    frame, taken = axes.get_window_extent(renderer), []
    for (x, y, name), _ in sorted(zip(points, places, strict=True), key=lambda pair: pair[1][1]):
        best = None
        for distance in (7, 16, 26, 38):
            for right, up in ((1, 0), (1, 1), (1, -1), (0, 1), (0, -1), (-1, 1), (-1, -1), (-1, 0)):
                label = axes.annotate(
                    label_text(name),
                    (x, y),
                    (distance * right, distance * up),
                    textcoords="offset points",
                    ha={1: "left", 0: "center", -1: "right"}[right],
                    va={1: "bottom", 0: "center", -1: "top"}[up],
                    fontsize=8,
                    bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
                    color=colours[name],
                    arrowprops={"arrowstyle": "-", "color": "0.7", "lw": 0.6} if distance > 7 else None,
                )
                label.update_positions(renderer)
                # Of an annotation with a line its own extent would include the line.
                box = Text.get_window_extent(label, renderer)
                covered = sum(box.overlaps(other) for other in taken) * 2
                covered += sum(box.contains(*place) for place in places)
                covered += 3 * (not frame.contains(box.x0, box.y0) or not frame.contains(box.x1, box.y1))
                if best is None or covered < best[0]:
                    if best is not None:
                        best[1].remove()
                    best = (covered, label, box)
                else:
                    label.remove()
                if covered == 0:
                    break
            if best[0] == 0:
                break
        taken.append(best[2])
