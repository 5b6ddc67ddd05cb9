"""At every millisecond, who finds most: chosen patches, or the best simpler way that takes no longer?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.comparison.catalogue import REFERENCES
from evaluation.detection_report import cell_text, markdown
from evaluation.row_key import RowKey, by_key

FRONT_TITLE = "At every millisecond, who finds most?"
Point = tuple[float, float]
CHOOSES = ("learned", "threshold", "budget", "latency_ms")  # policies of a masker that chooses; all others are simpler


@dataclass(frozen=True)
class Step:
    """From this time on, until the next step.

    Args:
        ms: total milliseconds an image.
        simpler: the best row without a choice of patches that takes no longer; None where there is none.
        conditional: likewise, of those with one.
    """

    ms: float
    simpler: RowKey | None
    conditional: RowKey | None


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The points (milliseconds, mAP) that no other beats in both, by milliseconds; of equal points one."""
    front: list[Point] = []
    for cost, quality in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if not front or quality > front[-1][1]:
            front.append((cost, quality))
    return front


def timed_points(rows: list[dict]) -> dict[RowKey, Point]:
    """Milliseconds and mAP50-95, means over seeds, of the rows that have both; neither controls nor HR rows, which are
    no way from an LR image to boxes."""
    bounds = {hr for hr, _ in REFERENCES.values()}
    return {
        key: (row["total_ms"]["mean"], row["map50_95"]["mean"])
        for key, row in by_key(rows).items()
        if row["total_ms"] and row["map50_95"] and not key.is_control and key not in bounds
    }


def split_points(points: dict[RowKey, Point]) -> tuple[dict[RowKey, Point], dict[RowKey, Point]]:
    """Rows without a choice of patches, and rows with one."""
    chosen = {key: point for key, point in points.items() if key.policy in CHOOSES}
    return {key: point for key, point in points.items() if key not in chosen}, chosen


def front_steps(rows: list[dict]) -> list[Step]:
    """Where the best row of either kind changes, by milliseconds."""
    kinds, steps = split_points(timed_points(rows)), []
    for ms in sorted({cost for points in kinds for cost, _ in pareto_front(list(points.values()))}):
        best = [best_within(points, ms) for points in kinds]
        steps.append(Step(ms, *best))
    return steps


def best_within(points: dict[RowKey, Point], ms: float) -> RowKey | None:
    """The row with the highest mAP that takes no longer; of equal ones the fastest, then the first."""
    within = [key for key, (cost, _) in points.items() if cost <= ms]
    return max(within, key=lambda key: (points[key][1], -points[key][0]), default=None)


def front_table(rows: list[dict]) -> str | None:
    """The steps of one family's rows, with the lead of the conditional one; None where nothing is timed."""
    points, steps = timed_points(rows), front_steps(rows)
    if not steps:
        return None
    lines = []
    for step in steps:
        found = {key: points[key][1] for key in (step.simpler, step.conditional) if key is not None}
        lead = found[step.conditional] - found[step.simpler] if len(found) == 2 else None
        cells = [text for key in (step.simpler, step.conditional) for text in cells_of(key, found)]
        lines.append([cell_text("total_ms", step.ms), *cells, "-" if lead is None else f"{lead:+.3f}"])
    return markdown([["from ms", "best simpler way", "mAP", "best conditional", "mAP", "lead"], *lines], left=2)


def cells_of(key: RowKey | None, quality: dict[RowKey, float]) -> list[str]:
    return ["-", "-"] if key is None else [key.short, cell_text("map50_95", quality[key])]
