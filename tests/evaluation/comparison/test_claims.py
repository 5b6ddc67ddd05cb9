"""Every claim can hold, fail and be undecided, by the figures alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evaluation.comparison.claims import check_claims, claim_table
from evaluation.row_key import RowKey, by_key

SYSTEM = RowKey("conditional", "retrained", "distilled")
QUARTER, QUALITY = SYSTEM.under("budget", 0.25), RowKey("sr_quality", "retrained", "distilled")
HR, BICUBIC = RowKey("hr", "retrained"), RowKey("bicubic", "retrained")
DISTILLED, LARGER, SLICED = (
    replace(BICUBIC, recipe="distilled"),
    replace(BICUBIC, upscale=2),
    RowKey("sliced", "retrained"),
)
CONDITIONAL = RowKey("conditional", "frozen")
UNLABELLED = replace(CONDITIONAL, recipe="unlabelled")
RIVALS_OF_A_DEPLOYED_DETECTOR = (
    (RowKey("bicubic", "frozen"), 0.2, 9),
    (RowKey("bicubic", "frozen", upscale=2), 0.4, 40),
    (RowKey("sliced", "frozen"), 0.3, 11),
    (RowKey("sr_fast", "frozen"), 0.25, 11),
    (RowKey("sr_fast", "frozen", "tuned_unlabelled"), 0.32, 11),
    (RowKey("sr_fast", "frozen", "tuned"), 0.34, 11),
)


def row(key: RowKey, quality: float, ms: float = 10.0, sr_ms: float = 5.0, recovered: float | None = None) -> dict:
    def figure(value):
        return None if value is None else {"mean": value, "std": None, "n": 1}

    numbers = {"map50_95": quality, "total_ms": ms, "sr_ms": sr_ms, "gap_recovered": recovered}
    return key.record() | {name: figure(value) for name, value in numbers.items()}


def retrained(*changes: dict) -> list[dict]:
    """A table in which every claim of the retrained family holds; `changes` replace or add rows."""
    rows = [row(SYSTEM.under("all_fast"), 0.30), row(SYSTEM.under("all_quality"), 0.354, 20, 15, 0.6)]
    for share, quality in ((0.1, 0.33), (0.25, 0.35), (0.5, 0.355)):
        rows.append(row(SYSTEM.under("budget", share), quality, 12, 7, 0.5))
        rows += [row(SYSTEM.under(kind, share), quality - 0.01) for kind in ("random", "edge", "oracle")]
    rows += [row(QUALITY, 0.354, 20, 15), row(DISTILLED, 0.32, 9), row(LARGER, 0.40, 40), row(SLICED, 0.31, 11)]
    return list(by_key([*rows, *changes]).values())


def verdicts(rows: list[dict]) -> list[bool | None]:
    return [claim.holds for claim in check_claims(rows)]


def test_all_hold():
    claims = check_claims(retrained())
    assert [claim.holds for claim in claims] == [True] * 5
    assert "0.25: +0.010 random, +0.010 edge" in claims[1].found
    assert claims[2].found == "50% (conditional_distilled_budget_0.25)"
    assert claims[3].found == "-0.004 to sr_quality_distilled, 0.47 of its SR time"
    assert claims[4].found.startswith("+0.030: conditional_distilled_budget_0.25 0.350 at 12.0 ms, bicubic_distilled")


@pytest.mark.parametrize(
    ("index", "change"),
    [
        (0, row(SYSTEM.under("all_quality"), 0.35)),
        (1, row(SYSTEM.under("edge", 0.1), 0.33)),
        (2, row(QUARTER, 0.35, 12, 7, 0.34)),
        (3, row(QUALITY, 0.354, 20, 13)),
        (3, row(QUALITY, 0.356, 20, 15)),
        (4, row(LARGER, 0.40, 12)),
    ],
)
def test_each_can_fail_alone(index: int, change: dict):
    expected = [True] * 5
    expected[index] = False
    assert verdicts(retrained(change)) == expected


@pytest.mark.parametrize(
    ("recovered", "holds", "found"),
    [
        ((0.6, 0.7), True, "100% of the labels: 50% of 0.100, 20% of the labels: 60% of 0.100, 5% of the labels: 70%"),
        ((0.6, 0.55), False, "5% of the labels: 55%"),
        ((0.4, 0.7), False, "20% of the labels: 40%"),
        ((0.6, 0.61), False, "5% of the labels: 61%"),
        ((0.6, None), None, "5% of the labels: - of 0.100"),
    ],
)
def test_fewer_labels(recovered: tuple, holds: bool | None, found: str):
    ends = [row(HR, 0.4), row(BICUBIC, 0.3)]
    shares = {
        share: [row(QUARTER, 0.3, recovered=value), *ends]
        for share, value in zip(("0.05", "0.2", "1"), (*reversed(recovered), 0.5))
    }
    claim = check_claims(retrained(), shares=shares)[-1]
    assert claim.holds is holds and found in claim.found
    missing = check_claims(retrained(), shares=shares | {"0.05": ends})[-1]
    assert missing.holds is None and missing.found.endswith("5% of the labels: - -")
    assert len(check_claims(retrained(), shares={"1": shares["1"]})) == len(check_claims(retrained()))


def test_rivals_are_met_over_equal_seeds():
    """With more seeds the system is better by chance; its rivals have only the first."""
    claims = check_claims(retrained(row(QUARTER, 0.36, 12, 7, 0.9)), retrained(row(QUARTER, 0.31, 12, 7, 0.1)))
    assert [claim.holds for claim in claims[2:]] == [True, False, False]
    assert claims[2].found.startswith("90%") and claims[4].found.startswith("-0.010")


def test_no_gap_is_not_the_same_as_no_measurement():
    lead = {"over_bicubic": {"mean": 0.01, "std": None, "n": 1}}
    claim = check_claims([row(QUARTER, 0.3) | lead])[2]
    assert claim.holds is None and claim.found == "HR images are hardly better than bicubic ones"


def test_no_rival_is_as_fast():
    slow = [row(key, 0.4, 40) for key in (DISTILLED, SLICED)]
    alone = [r for r in retrained(*slow) if RowKey.of(r) != SYSTEM.under("all_fast")]
    claim = check_claims(alone)[4]
    assert claim.holds and claim.found == "none of them takes as little as 12.0 ms"


def test_the_own_sr_everywhere_is_a_rival_too():
    own = row(SYSTEM.under("all_quality"), 0.37, 20, 15)
    assert verdicts(retrained(own)) == [True, True, True, False, True]


def test_undecided_without_the_rows_that_they_need():
    alone = [row(SYSTEM.under("budget", 0.5), 0.3)]
    assert verdicts(alone) == [None] * 5
    untimed = [r | {"total_ms": None, "sr_ms": None} for r in retrained()]
    assert verdicts(untimed) == [True, True, True, None, None]
    assert claim_table(check_claims(alone))[1][-1] == "undecided"
    assert check_claims([row(BICUBIC, 0.3)]) == []


@pytest.mark.parametrize(
    ("system", "recovered", "holds"),
    [
        (CONDITIONAL, 0.85, True),
        (CONDITIONAL, 0.84, False),
        (UNLABELLED, 0.61, True),
        (UNLABELLED, 0.59, False),
        (UNLABELLED, None, None),
    ],
)
def test_the_frozen_family_has_limits_of_its_own(system: RowKey, recovered: float | None, holds: bool | None):
    claims = check_claims([row(system.under("budget", 0.25), 0.3, recovered=recovered)])
    assert [claim.holds for claim in claims] == [None, None, holds, None]


def test_rivals_before_a_detector_that_stays_saw_no_more_labels():
    rows = [row(key, value, ms) for key, value, ms in RIVALS_OF_A_DEPLOYED_DETECTOR]
    by_labels, without = (
        check_claims([*rows, row(system.under("budget", 0.25), 0.33, 12)])[3] for system in (CONDITIONAL, UNLABELLED)
    )
    assert by_labels.holds is False and "sr_fast_tuned 0.340 at 11.0 ms" in by_labels.found
    assert without.holds and "sr_fast_tuned_unlabelled 0.320 at 11.0 ms" in without.found
    assert "retrained" not in without.text


def test_its_own_sr_fast_everywhere_is_a_rival():
    bicubic, fast = row(RowKey("bicubic", "frozen"), 0.3, 9), row(CONDITIONAL.under("all_fast"), 0.34, 10)
    claim = check_claims([bicubic, fast, row(CONDITIONAL.under("budget", 0.25), 0.33, 12)])[3]
    assert claim.holds is False and "conditional_all_fast 0.340 at 10.0 ms" in claim.found


def test_a_larger_input_of_a_detector_that_stays_is_a_rival():
    for ms, holds in ((11, False), (13, True)):
        plain, larger = (
            row(RowKey("bicubic", "frozen"), 0.3, 9),
            row(RowKey("bicubic", "frozen", upscale=2), 0.4, ms),
        )
        claims = check_claims([plain, larger, row(CONDITIONAL.under("budget", 0.25), 0.33, 12)])
        assert claims[3].holds is holds


def test_a_light_network_everywhere_is_a_rival():
    claim = check_claims(retrained(row(RowKey("sr_fast", "retrained", "distilled"), 0.36, 11)))[4]
    assert claim.holds is False and "sr_fast_distilled 0.360 at 11.0 ms" in claim.found
