"""What computed the rows: grouped by choice, eager execution in bold, seeds that chose differently told apart."""

from __future__ import annotations

from evaluation.computed_by import choice, computed_by
from evaluation.row_key import RowKey

NATIVE = (
    "sr_fast: fused, fp32; sr_quality: fused, fp32, native kernel taken on patches (0.31 against 1.2e+01 ms); "
    "detector: fused"
)
SLOW = "sr_fast: eager, float32 (not made for bf16); detector: fused"
SYSTEM = RowKey("conditional", "frozen")


def row(key: RowKey, runs) -> dict:
    return key.record() | {"runs": runs}


def test_the_milliseconds_behind_a_choice_are_no_part_of_it():
    other = NATIVE.replace("0.31", "0.29").replace("1.2e+01", "9")
    assert choice(NATIVE) == choice(other) and "native kernel taken on patches; detector" in choice(NATIVE)
    assert choice(other.replace("taken", "left")) != choice(NATIVE)


def test_rows_of_one_choice_share_a_line():
    rows = [row(SYSTEM.under("budget", 0.1), NATIVE), row(SYSTEM.under("all_fast"), NATIVE.replace("0.31", "0.32"))]
    rows += [row(RowKey("hr", "frozen"), "detector: fused")]
    head, *lines = computed_by(rows)
    assert head == ["rows", "computed by"]
    assert [names for names, _ in lines] == ["frozen/conditional", "frozen/hr"]


def test_a_fallback_is_said():
    ((_, text),) = computed_by([row(SYSTEM, SLOW)])[1:]
    assert text.startswith("sr_fast: **eager**, float32 (not made for bf16)")


def test_seeds_that_chose_differently():
    both = [NATIVE, NATIVE.replace("taken", "left"), NATIVE.replace("0.31", "0.5")]
    ((_, text),) = computed_by([row(SYSTEM, both)])[1:]
    assert text.count("; of another seed: ") == 1 and "taken" in text and "left" in text


def test_results_of_older_versions_say_nothing():
    assert computed_by([RowKey("hr").record()]) is None and computed_by([row(SYSTEM, [])]) is None
