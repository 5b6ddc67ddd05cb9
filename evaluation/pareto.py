"""The picture of an evaluation: mAP against milliseconds, every system's kept shares joined by lines."""

from __future__ import annotations

import math

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from evaluation.row_key import SHARES, RowKey, by_key

CURVES = {  # policy of a curve -> line style, legend
    "budget": ("-", "budget of the masker"),
    "random": (":", "random patches"),
    "edge": ("--", "patches with edges"),
    "oracle": ("-.", "patches with objects (oracle)"),
}
OWN = RowKey("conditional")  # evaluate.py's own system, whose curves have a colour each
OWN_COLOURS = {"budget": "tab:blue", "random": "tab:gray", "edge": "tab:green", "oracle": "tab:purple"}
COLOURS = ("tab:orange", "tab:cyan", "tab:olive", "tab:pink", "tab:brown")  # of further systems, in turn
OTHER = "tab:red"  # rows without a masker
Point = tuple[float, float]
# Where a label may stand: its distance in points, then the direction; the nearest first.
NEAR = 7
DIRECTIONS = ((1, 0), (1, 1), (1, -1), (0, 1), (0, -1), (-1, 1), (-1, -1), (-1, 0))
PLACES = [(distance, right, up) for distance in (NEAR, 16, 26, 38) for right, up in DIRECTIONS]


def draw_pareto(results: dict) -> Figure:
    """mAP50-95 against total milliseconds, the budgets of a policy joined by a line; needs both figures of a row."""
    figure = Figure(figsize=(11, 6), layout="constrained")
    axes = figure.subplots()
    points = {
        key: (row["total_ms"], row["map50_95"])
        for key, row in by_key(results["rows"]).items()
        if all(value is not None and math.isfinite(value) for value in (row["total_ms"], row["map50_95"]))
    }
    colours = row_colours(list(points))
    for curve in budget_curves(list(points)):
        style, legend = CURVES[curve[0].policy]
        x, y = zip(*(points[key] for key in curve), strict=True)
        label = f"{curve[0].base.name}, {legend}"
        axes.plot(x, y, style, color=colours[curve[0]], marker="o", zorder=2, label=label)
    for key, (x, y) in points.items():
        if key.policy not in SHARES:
            axes.plot(x, y, "D", color=colours[key], markersize=6, zorder=3)
    axes.set_xlabel(f"total ms per image (median, batch 1, {results['device']}, {results['dtype']})")
    axes.set_ylabel("mAP50-95")
    axes.set_title(f"{results['dataset']} {results['split']}, x{results['scale']}")
    axes.grid(alpha=0.3)
    axes.margins(0.12)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, frameon=False)  # beside, not on points
    if not points:
        axes.text(0.5, 0.5, "no row has both a time and an mAP", ha="center", transform=axes.transAxes)
    label_points(figure, axes, points, colours)
    return figure


def budget_curves(keys: list[RowKey]) -> list[list[RowKey]]:
    """Rows that a line joins: a system under one policy, by ascending kept share."""
    found: dict[RowKey, list[RowKey]] = {}
    for key in keys:
        if key.policy in SHARES:
            found.setdefault(key.under(key.policy), []).append(key)
    return [sorted(curve, key=lambda key: key.budget) for curve in found.values()]


def point_label(key: RowKey) -> str:
    """A curve's points carry the kept share alone, the legend says the rest."""
    return f"{key.budget:g}" if key.policy in SHARES else key.name.replace("_", " ")


def row_colours(keys: list[RowKey]) -> dict[RowKey, str]:
    """One colour per further system with curves, four for the own system's, red for all others."""
    systems = dict.fromkeys(key.base for key in keys if key.policy in SHARES)
    others = [system for system in systems if system != OWN]
    by_system = {system: COLOURS[index % len(COLOURS)] for index, system in enumerate(others)} | {OWN: "navy"}
    colours = {key: by_system.get(key.base, OTHER) if key.policy else OTHER for key in keys}
    own = [key for key in keys if key.base == OWN and key.policy in SHARES]
    return colours | {key: OWN_COLOURS[key.policy] for key in own}


def label_points(figure: Figure, axes, points: dict[RowKey, Point], colours: dict[RowKey, str]) -> None:
    """Write each row's name beside its point, where it covers the fewest other labels and points."""
    figure.draw_without_rendering()  # fixes the axes, so that data have places in pixels
    renderer = FigureCanvasAgg(figure).get_renderer()
    places = {key: axes.transData.transform(point) for key, point in points.items()}
    frame, taken = axes.get_window_extent(renderer), []
    for key in sorted(points, key=lambda key: places[key][1]):
        best = None
        for distance, right, up in PLACES:
            label = annotate(axes, point_label(key), points[key], (distance * right, distance * up), colours[key])
            label.update_positions(renderer)
            # Of an annotation with a line its own extent would include the line.
            box = Text.get_window_extent(label, renderer)
            covered = sum(box.overlaps(other) for other in taken) * 2
            covered += sum(box.contains(*place) for place in places.values())
            covered += 3 * (not frame.contains(box.x0, box.y0) or not frame.contains(box.x1, box.y1))
            if best is None or covered < best[0]:
                if best is not None:
                    best[1].remove()
                best = (covered, label, box)
            else:
                label.remove()
            if covered == 0:
                break
        taken.append(best[2])


def annotate(axes, text: str, point: Point, offset: tuple[int, int], colour: str):
    """One label at an offset from its point, with a line to it where it is not near."""
    right, up = (value and value // abs(value) for value in offset)
    return axes.annotate(
        text,
        point,
        offset,
        textcoords="offset points",
        ha={1: "left", 0: "center", -1: "right"}[right],
        va={1: "bottom", 0: "center", -1: "top"}[up],
        fontsize=8,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
        color=colour,
        arrowprops={"arrowstyle": "-", "color": "0.7", "lw": 0.6} if max(map(abs, offset)) > NEAR else None,
    )
