"""The curves of the report as SVG: mAP against milliseconds, precision against recall, mAP against the label share."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

from evaluation.comparison.rows import REFERENCES, is_control, short

Point = tuple[float, float]
STYLE = {"svg.hashsalt": "comparison", "svg.fonttype": "none", "font.size": 9}  # the same text for the same figures


def svg(figure: Figure) -> str:
    """The figure as an <svg> element."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return re.sub(r"^.*?(?=<svg)", "", buffer.getvalue(), flags=re.S)


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The points (milliseconds, mAP) that no other beats in both, by milliseconds; of equal points one."""
    front: list[Point] = []
    for cost, quality in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if not front or quality > front[-1][1]:
            front.append((cost, quality))
    return front


def curves_of(rows: list[dict]) -> dict[str, list[dict]]:
    """Rows by the line that joins them: the budgets of a conditional system; any other row stands alone."""
    curves: dict[str, list[dict]] = {}
    for row in rows:
        system, policy, _ = row["name"].partition("_budget_")
        curves.setdefault(f"{system}_budget" if policy else row["name"], []).append(row)
    return curves


def draw_pareto(rows: list[dict], title: str) -> Figure | None:
    """mAP50-95 against total milliseconds, and the front of the rows that see LR images; None without timed rows."""
    timed = [row for row in rows if row["total_ms"] and row["map50_95"] and not is_control(row["name"])]
    if not timed:
        return None
    figure, axes = plot(title, "total ms per image (batch 1)", "mAP50-95")
    for number, (name, curve) in enumerate(curves_of(timed).items()):
        if len(curve) > 1:
            curve.sort(key=lambda row: float(row["name"].rpartition("_")[2]))
        x, y = ([row[key]["mean"] for row in curve] for key in ("total_ms", "map50_95"))
        error = [row["map50_95"]["std"] or 0 for row in curve]
        shape = "o-" if len(curve) > 1 else "sD^v<>P*X"[number % 9]
        axes.errorbar(x, y, error, fmt=shape, ms=5, lw=1, capsize=2, color=colour(number), label=short(name))
    bounds = {hr for hr, _ in REFERENCES.values()}
    rivals = [(row["total_ms"]["mean"], row["map50_95"]["mean"]) for row in timed if row["name"] not in bounds]
    x, y = [[point[axis] for point in pareto_front(rivals)] for axis in (0, 1)]
    axes.plot(x, y, "--", color="0.6", lw=1, zorder=0, label="Pareto front")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=7, frameon=False)
    return figure


def draw_precision_recall(curves: dict[str, list[float]], title: str) -> Figure | None:
    """Precision against recall at IoU 0.5, the mean over classes and seeds; {row: precision at 101 recalls}."""
    if not curves:
        return None
    figure, axes = plot(title, "recall", "precision (IoU 0.5)")
    for number, (name, precision) in enumerate(curves.items()):
        recall = [index / (len(precision) - 1) for index in range(len(precision))]
        axes.plot(recall, precision, lw=1.2, color=colour(number), label=short(name))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=7, frameon=False)
    return figure


def draw_sweep(tables: dict[str, list[dict]], family: str, title: str) -> Figure | None:
    """mAP50-95 against the share of labelled images, {share: rows}; None for a single share or no row."""
    shares = sorted(tables, key=float)
    names = [row["name"] for row in tables[shares[-1]] if row["family"] == family and not is_control(row["name"])]
    if len(shares) < 2 or not names:
        return None
    figure, axes = plot(title, "share of the training images with labels", "mAP50-95")
    quality = {share: {row["name"]: row["map50_95"] for row in tables[share]} for share in shares}
    for number, name in enumerate(names):
        points = [(float(share), quality[share].get(name)) for share in shares]
        points = [(share, value) for share, value in points if value]
        x, y = [share for share, _ in points], [value["mean"] for _, value in points]
        error = [value["std"] or 0 for _, value in points]
        axes.errorbar(x, y, error, fmt="o-", ms=4, lw=1, capsize=2, color=colour(number), label=short(name))
    axes.set_xscale("log")
    axes.set_xticks([float(share) for share in shares], [f"{float(share):.0%}" for share in shares], minor=False)
    axes.minorticks_off()
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=7, frameon=False)
    return figure


def plot(title: str, x: str, y: str):
    """An empty figure and its axes."""
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    return figure, axes


def colour(number: int) -> tuple:
    return matplotlib.colormaps["tab20"](number % 20)
