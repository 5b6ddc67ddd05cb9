"""The curves of the report as SVG: mAP against milliseconds, precision against recall, mAP against the label share."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable

import matplotlib
from matplotlib.figure import Figure

from evaluation.comparison.front import pareto_front, split_points, timed_points
from evaluation.row_key import RowKey, by_key

FRONTS = ("best simpler way within", "best conditional within")  # the time
STYLE = {"svg.hashsalt": "comparison", "svg.fonttype": "none", "font.size": 9}  # the same text for the same figures


def svg(figure: Figure) -> str:
    """The figure as an <svg> element."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return re.sub(r"^.*?(?=<svg)", "", buffer.getvalue(), flags=re.S)


def curves_of(keys: Iterable[RowKey]) -> dict[RowKey, list[RowKey]]:
    """Rows by the line that joins them: the budgets of a conditional system, ascending; any other row stands alone."""
    curves: dict[RowKey, list[RowKey]] = {}
    for key in keys:
        curves.setdefault(key.under("budget") if key.policy == "budget" else key, []).append(key)
    return {line: sorted(keys, key=lambda key: key.budget or 0) for line, keys in curves.items()}


def draw_pareto_front(rows: list[dict], title: str) -> Figure | None:
    """mAP50-95 against total milliseconds, and the best of simpler ways and of chosen patches within each time; None
    without timed rows."""
    shown = {key: row for key, row in by_key(rows).items() if not key.is_control}
    timed = {key: row for key, row in shown.items() if row["total_ms"] and row["map50_95"]}
    if not timed:
        return None
    figure, axes = empty_axes(title, "total ms per image (batch 1)", "mAP50-95")
    for number, (line, keys) in enumerate(curves_of(timed).items()):
        curve = [timed[key] for key in keys]
        x, y = ([row[quantity]["mean"] for row in curve] for quantity in ("total_ms", "map50_95"))
        error = [row["map50_95"]["std"] or 0 for row in curve]
        shape = "o-" if len(curve) > 1 else "sD^v<>P*X"[number % 9]
        axes.errorbar(x, y, error, fmt=shape, ms=5, lw=1, capsize=2, color=colour(number), label=line.short)
    for points, style, label in zip(split_points(timed_points(rows)), ("--", ":"), FRONTS, strict=True):
        front = pareto_front(list(points.values()))
        axes.step(
            [ms for ms, _ in front],
            [quality for _, quality in front],
            style,
            where="post",
            color="0.5",
            lw=1,
            zorder=0,
            label=label,
        )
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=7, frameon=False)
    return figure


def draw_precision_recall(curves: dict[RowKey, list[float]], title: str) -> Figure | None:
    """Precision against recall at IoU 0.5, the mean over classes and seeds; {row: precision at 101 recalls}."""
    if not curves:
        return None
    figure, axes = empty_axes(title, "recall", "precision (IoU 0.5)")
    for number, (key, precision) in enumerate(curves.items()):
        recall = [index / (len(precision) - 1) for index in range(len(precision))]
        axes.plot(recall, precision, lw=1.2, color=colour(number), label=key.short)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=7, frameon=False)
    return figure


def draw_sweep(tables: dict[str, list[dict]], family: str, title: str) -> Figure | None:
    """mAP50-95 against the share of labelled images, {share: rows}; None for a single share or no row."""
    shares = sorted(tables, key=float)
    keys = [key for key in map(RowKey.of, tables[shares[-1]]) if key.family == family and not key.is_control]
    if len(shares) < 2 or not keys:
        return None
    figure, axes = empty_axes(title, "share of the training images with labels", "mAP50-95")
    quality = {share: {RowKey.of(row): row["map50_95"] for row in tables[share]} for share in shares}
    for number, key in enumerate(keys):
        points = [(float(share), quality[share].get(key)) for share in shares]
        points = [(share, value) for share, value in points if value]
        x, y = [share for share, _ in points], [value["mean"] for _, value in points]
        error = [value["std"] or 0 for _, value in points]
        axes.errorbar(x, y, error, fmt="o-", ms=4, lw=1, capsize=2, color=colour(number), label=key.short)
    axes.set_xscale("log")
    axes.set_xticks([float(share) for share in shares], [f"{float(share):.0%}" for share in shares], minor=False)
    axes.minorticks_off()
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=7, frameon=False)
    return figure


def empty_axes(title: str, x: str, y: str):
    """An empty figure and its axes."""
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    return figure, axes


def colour(number: int) -> tuple:
    return matplotlib.colormaps["tab20"](number % 20)
