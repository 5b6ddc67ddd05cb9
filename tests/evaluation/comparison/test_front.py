"""The front of mAP against milliseconds: rows by hand, and what a reader asks of it."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from evaluation.comparison.figures import FRONTS, draw_pareto_front
from evaluation.comparison.front import Step, front_steps, front_table, pareto_front, timed_points
from evaluation.row_key import RowKey

OURS = RowKey("conditional", "retrained", "distilled")
QUARTER, HALF = OURS.under("budget", 0.25), OURS.under("budget", 0.5)
BICUBIC, LARGER = (RowKey("bicubic", "retrained", upscale=upscale) for upscale in (1, 1.5))
FAST = OURS.under("all_fast")


def row(key: RowKey, ms: float | None, quality: float) -> dict:
    def figure(value: float | None) -> dict | None:
        return None if value is None else {"mean": value, "std": None, "n": 1}

    return {"name": key.name} | key.record() | {"total_ms": figure(ms), "map50_95": figure(quality)}


ROWS = [
    row(RowKey("hr", "retrained"), 9, 0.9),
    row(BICUBIC, 10, 0.18),
    row(FAST, 12, 0.19),
    row(QUARTER, 15, 0.20),
    row(OURS.under("random", 0.25), 14, 0.5),
    row(LARGER, 18, 0.22),
    row(HALF, 20, 0.21),
    row(RowKey("sr_fast", "retrained"), None, 0.8),
]


@given(st.lists(st.tuples(st.floats(1, 100), st.floats(0, 1)), max_size=20))
def test_front_holds_what_nothing_beats(points: list):
    front = pareto_front(points)
    assert set(front) <= set(points) and front == sorted(front)
    assert all(a[1] < b[1] for a, b in pairwise(front))
    for cost, quality in points:
        assert any(c <= cost and q >= quality for c, q in front)


def test_neither_controls_nor_hr_nor_untimed_rows():
    assert set(timed_points(ROWS)) == {BICUBIC, FAST, QUARTER, LARGER, HALF}


def test_every_step_names_the_best_of_both_kinds():
    assert front_steps(ROWS) == [
        Step(10, BICUBIC, None),
        Step(12, FAST, None),
        Step(15, FAST, QUARTER),
        Step(18, LARGER, QUARTER),
        Step(20, LARGER, HALF),
    ], "SR_Fast everywhere chooses no patches, whoever trained it"


def test_table_says_who_leads_by_how_much():
    lines = front_table(ROWS).splitlines()
    assert len(lines) == 2 + 5
    assert [cell.strip() for cell in lines[4].split("|")[1:-1]] == [
        "15.0", "conditional_distilled_all_fast", "0.190", "conditional_distilled_budget_0.25", "0.200", "+0.010",
    ]  # fmt: skip
    assert lines[5].rstrip(" |").endswith("-0.020") and lines[2].rstrip(" |").endswith("-")
    assert front_table(ROWS[:1]) is None and front_table([]) is None


def test_picture_has_both_fronts():
    lines = {line.get_label(): line for line in draw_pareto_front(ROWS, "t").axes[0].lines}
    assert list(lines[FRONTS[0]].get_xdata()) == [10, 12, 18] and list(lines[FRONTS[1]].get_xdata()) == [15, 20]
    assert draw_pareto_front(ROWS[:1], "t") is not None
