"""Figures over seeds: reference values, gaps within families, rows that hold for every label share."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.comparison.aggregate import (
    FIGURES,
    Repetition,
    aggregate,
    figure,
    gap_recovered,
    in_family,
    mean_curve,
    read_repetition,
    summarise,
    with_constant_rows,
)
from evaluation.row_key import RowKey, by_key
from tests.evaluation.comparison.synthetic import quality_of, results_of, row_of

FROZEN, RETRAINED = (RowKey("conditional", family, policy="budget", budget=0.25) for family in ("frozen", "retrained"))
UNLABELLED = RowKey("conditional", "frozen", "unlabelled", policy="budget", budget=0.25)
HR, BICUBIC = RowKey("hr", "retrained"), RowKey("bicubic", "retrained")
LABELLED = [FROZEN, BICUBIC, RETRAINED, HR]
STOCK = [RowKey("hr"), RowKey("lr"), RowKey("bicubic"), RowKey("bicubic", upscale=2), RowKey("sr_fast")]
STATIC = [*STOCK, RowKey("sr_quality"), UNLABELLED]


def repetition(seed: int, share: float, keys: list[RowKey], **changes) -> Repetition:
    results = results_of(keys, seed, timed=seed == 0 and share == 1.0) | changes
    rows = {in_family(RowKey.of(row)): row for row in results["rows"]}
    return Repetition(seed, share, rows, results, Path(f"seed{seed}"))


def all_repetitions() -> list[Repetition]:
    return [
        repetition(seed, share, LABELLED + (STATIC if share == 1.0 else []))
        for seed in (0, 1, 2)
        for share in (1.0, 0.2)
    ]


@given(st.lists(st.one_of(st.none(), st.floats(-1e3, 1e3), st.just(math.nan)), max_size=6))
def test_figure_is_mean_and_sample_deviation_of_what_is_defined(values: list):
    known = [value for value in values if value is not None and not math.isnan(value)]
    found = figure(values)
    if not known:
        assert found is None
        return
    assert found["n"] == len(known) and found["mean"] == pytest.approx(fmean(known))
    assert found["std"] == (pytest.approx(stdev(known)) if len(known) > 1 else None)


def test_reference_figure():
    assert figure([0.30, 0.32, 0.34]) == {"mean": pytest.approx(0.32), "std": pytest.approx(0.02), "n": 3}


def rows_with(**quality: float) -> dict:
    keys = {RowKey(*reversed(name.split("__"))): value for name, value in quality.items()}
    return {key: row_of(key, map50_95=value) for key, value in keys.items()}


def test_gap_is_recovered_within_the_family():
    rows = rows_with(
        frozen__hr=0.5, frozen__bicubic=0.3, frozen__conditional=0.4, retrained__hr=0.6, retrained__bicubic=0.5
    )
    rows |= rows_with(retrained__conditional=0.525)
    assert gap_recovered(rows, RowKey("conditional", "frozen")) == pytest.approx(0.5)
    assert gap_recovered(rows, RowKey("conditional", "retrained")) == pytest.approx(0.25)
    assert gap_recovered(rows, HR) == 1 and gap_recovered(rows, RowKey("bicubic", "frozen")) == 0


@pytest.mark.parametrize(("high", "found"), [(0.29, None), (0.3, None), (0.304, None), (0.306, 100 / 6)])
def test_no_gap_no_share_of_it(high: float, found: float | None):
    rows = rows_with(frozen__hr=high, frozen__bicubic=0.3, frozen__conditional=0.4)
    assert gap_recovered(rows, RowKey("conditional", "frozen")) == (found and pytest.approx(found))


def test_no_share_without_both_references():
    rows = rows_with(frozen__hr=0.5, frozen__bicubic=0.3, frozen__conditional=0.4)
    del rows[RowKey("hr", "frozen")]
    assert gap_recovered(rows, RowKey("conditional", "frozen")) is None


def test_ratios_are_taken_within_a_seed():
    """The mean of ratios, not the ratio of means."""
    pairs = [rows_with(frozen__hr=0.5, frozen__bicubic=low, frozen__lr=0.45) for low in (0.3, 0.4)]
    repetitions = [Repetition(seed, 1.0, rows, {}, Path()) for seed, rows in enumerate(pairs)]
    row = next(row for row in aggregate(repetitions, 1.0) if row["name"] == "frozen/lr")
    assert row["gap_recovered"]["mean"] == pytest.approx((0.75 + 0.5) / 2)
    assert row["over_bicubic"] == {"mean": pytest.approx(0.1), "std": pytest.approx(stdev([0.15, 0.05])), "n": 2}


def test_rows_of_the_table():
    table = aggregate(with_constant_rows(all_repetitions()), 1.0)
    keys = [RowKey.of(row) for row in table]
    assert keys[:6] == [in_family(key) for key in STATIC[:6]] and set(keys[6:]) == {*STATIC[6:], *LABELLED}
    for row, key in zip(table, keys, strict=True):
        assert set(FIGURES) <= row.keys() and row["name"] == key.name and row["label_share"] == 1.0
        values = [quality_of(key, seed) for seed in (0, 1, 2)]
        assert row["map50_95"] == {"mean": pytest.approx(fmean(values)), "std": pytest.approx(0.01), "n": 3}
        assert row["total_ms"]["n"] == 1 and row["total_ms"]["std"] is None, "only the first seed is timed"
        assert row["ap_large"] is None
        assert row["ap_per_class"]["bright"]["mean"] == pytest.approx(fmean(values) - 0.05)


def test_rows_without_labels_hold_for_every_share():
    filled = with_constant_rows(all_repetitions())
    few = by_key(aggregate(filled, 0.2))
    assert {RowKey("hr", "frozen"), RowKey("bicubic", "frozen"), UNLABELLED, *LABELLED} <= few.keys()
    frozen = few[FROZEN]
    assert frozen["gap_recovered"]["n"] == 3, "its references come from the measurement with all labels"


def test_what_a_repetition_measured_itself_counts_more_than_a_constant_row():
    full, few = repetition(0, 1.0, LABELLED + STATIC), repetition(0, 0.2, [*LABELLED, RowKey("bicubic")])
    stock = RowKey("bicubic", "frozen")
    few.rows[stock]["map50_95"] = 0.123
    few.folders[stock], full.folders[stock] = Path("few"), Path("full")
    full.folders[UNLABELLED] = Path("full")
    filled = next(r for r in with_constant_rows([full, few]) if r.label_share == 0.2)
    assert filled.rows[stock]["map50_95"] == 0.123 and filled.folders[stock] == Path("few")
    assert filled.rows[UNLABELLED] == full.rows[UNLABELLED] and filled.folders[UNLABELLED] == Path("full")


def test_constant_rows_are_those_of_the_same_seed():
    repetitions = [
        repetition(seed, share, LABELLED + STATIC[: 9 * (share == 1)]) for seed in (0, 1) for share in (1, 0.2)
    ]
    repetitions.append(repetition(2, 0.2, LABELLED))
    few = {r.seed: r.rows for r in with_constant_rows(repetitions) if r.label_share == 0.2}
    stock = RowKey("hr", "frozen")
    assert [few[seed][stock]["map50_95"] for seed in (0, 1)] == [0.5, 0.51] and stock not in few[2]


def test_labelled_rows_are_never_carried_over():
    repetitions = [repetition(0, 1.0, LABELLED + STATIC), repetition(0, 0.2, LABELLED[:1])]
    few = by_key(aggregate(with_constant_rows(repetitions), 0.2))
    assert BICUBIC not in few and FROZEN in few


def test_summary():
    summary = summarise(all_repetitions())
    assert (summary["label_share"], summary["seeds"], list(summary["sweep"])) == (1.0, [0, 1, 2], ["0.2"])
    assert summary["gap"]["1"]["frozen"]["mean"] == pytest.approx(0.2)
    assert summary["gap"]["0.2"]["retrained"]["n"] == 3
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    text = json.dumps(summary)
    assert "pr_curve" not in text and str(Path.cwd()) not in text


def test_an_unfinished_comparison_counts_what_is_there():
    repetitions = all_repetitions()[:-1]  # the last seed has no small label share yet
    summary = summarise(repetitions)
    row = next(row for row in summary["sweep"]["0.2"] if row["name"] == "retrained/hr")
    assert row["map50_95"]["n"] == 2
    with pytest.raises(ValueError, match="no measurement is finished yet"):
        summarise([])


def test_repetitions_of_different_protocols_are_refused():
    repetitions = [repetition(0, 1.0, LABELLED), repetition(1, 1.0, LABELLED, scale=2)]
    with pytest.raises(ValueError, match="seed1: another scale than in the other measurements"):
        summarise(repetitions)


def test_mean_curve():
    repetitions = all_repetitions()
    curve = mean_curve(repetitions, 1.0, HR)
    curves = [r.rows[HR]["pr_curve"] for r in repetitions if r.label_share == 1.0]
    assert len(curve) == 101 and curve[50] == pytest.approx(fmean(c[50] for c in curves))
    assert mean_curve(repetitions, 1.0, RowKey("absent")) is None


def test_reading(tmp_path: Path):
    (tmp_path / "results.json").write_text(json.dumps(results_of([RowKey("bicubic"), HR], 3)))
    found = read_repetition(tmp_path, 3, 0.2)
    assert list(found.rows) == [RowKey("bicubic", "frozen"), HR] and (found.seed, found.label_share) == (3, 0.2)
    assert [row["name"] for row in found.rows.values()] == ["bicubic", "retrained/hr"], "as in the folder's files"
    assert found.folders == dict.fromkeys(found.rows, tmp_path)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(ValueError, match=r"results.json: no result of evaluate.py"):
        read_repetition(tmp_path, 0, 1.0)
    with pytest.raises(FileNotFoundError, match="run the comparison again"):
        read_repetition(tmp_path / "nowhere", 0, 1.0)


def test_results_of_older_versions_are_read(tmp_path: Path):
    """Their rows have a name and no record."""
    results = results_of([*STATIC, *LABELLED])
    new = (tmp_path / "new" / "results.json", results)
    bare = [{k: v for k, v in row.items() if k not in RowKey("").record()} for row in results["rows"]]
    old = (tmp_path / "old" / "results.json", results | {"rows": bare})
    for file, content in (new, old):
        file.parent.mkdir()
        file.write_text(json.dumps(content))
    read = [read_repetition(tmp_path / name, 0, 1.0).rows for name in ("new", "old")]
    assert list(read[0]) == list(read[1]) == [in_family(key) for key in (*STATIC, *LABELLED)]
