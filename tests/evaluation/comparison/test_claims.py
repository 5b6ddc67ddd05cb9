"""Every claim can hold, fail and be undecided, by the figures alone."""

from __future__ import annotations

import pytest

from evaluation.comparison.claims import check_claims, claim_table

SYSTEM = "retrained/conditional_distilled"
RIVALS_OF_A_DEPLOYED_DETECTOR = (
    *(("bicubic", 0.2, 9), ("bicubic_2x", 0.4, 40), ("sliced", 0.3, 11), ("sr_fast", 0.25, 11)),
    *(("sr_fast_tuned_unlabelled", 0.32, 11), ("sr_fast_tuned", 0.34, 11)),
)


def row(name: str, quality: float, ms: float = 10.0, sr_ms: float = 5.0, recovered: float | None = None) -> dict:
    def figure(value):
        return None if value is None else {"mean": value, "std": None, "n": 1}

    numbers = {"map50_95": quality, "total_ms": ms, "sr_ms": sr_ms, "gap_recovered": recovered}
    return {"name": name} | {key: figure(value) for key, value in numbers.items()}


def retrained(**changes: dict) -> list[dict]:
    """A table in which every claim of the retrained family holds; `changes` replace or (None) remove rows."""
    rows = [row(f"{SYSTEM}_all_fast", 0.30), row(f"{SYSTEM}_all_quality", 0.354, 20, 15, 0.6)]
    for share, quality in ((0.1, 0.33), (0.25, 0.35), (0.5, 0.355)):
        rows.append(row(f"{SYSTEM}_budget_{share:g}", quality, 12, 7, 0.5))
        rows += [row(f"{SYSTEM}_{kind}_{share:g}", quality - 0.01) for kind in ("random", "edge", "oracle")]
    rows += [row("retrained/sr_quality_distilled", 0.354, 20, 15), row("retrained/bicubic_distilled", 0.32, 9)]
    rows += [row("retrained/bicubic_2x", 0.40, 40), row("retrained/sliced", 0.31, 11)]
    table = {r["name"]: r for r in rows} | {name.replace("__", "/"): r for name, r in changes.items()}
    return [r for r in table.values() if r is not None]


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
    ("index", "changes"),
    [
        (0, {f"{SYSTEM}_all_quality": row("", 0.35)}),
        (1, {f"{SYSTEM}_edge_0.1": row("", 0.33)}),
        (2, {f"{SYSTEM}_budget_0.25": row("", 0.35, 12, 7, 0.34)}),
        (3, {"retrained/sr_quality_distilled": row("", 0.354, 20, 13)}),
        (3, {"retrained/sr_quality_distilled": row("", 0.356, 20, 15)}),
        (4, {"retrained/bicubic_2x": row("", 0.40, 12)}),
    ],
)
def test_each_can_fail_alone(index: int, changes: dict):
    changes = {name: value | {"name": name} for name, value in changes.items()}
    expected = [True] * 5
    expected[index] = False
    assert verdicts(retrained(**changes)) == expected


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
    ends = [row("retrained/hr", 0.4), row("retrained/bicubic", 0.3)]
    shares = {
        share: [row(f"{SYSTEM}_budget_0.25", 0.3, recovered=value), *ends]
        for share, value in zip(("0.05", "0.2", "1"), (*reversed(recovered), 0.5))
    }
    claim = check_claims(retrained(), shares=shares)[-1]
    assert claim.holds is holds and found in claim.found
    missing = check_claims(retrained(), shares=shares | {"0.05": ends})[-1]
    assert missing.holds is None and missing.found.endswith("5% of the labels: - -")
    assert len(check_claims(retrained(), shares={"1": shares["1"]})) == len(check_claims(retrained()))


def test_rivals_are_met_over_equal_seeds():
    """With more seeds the system is better by chance; its rivals have only the first."""
    lucky = {f"{SYSTEM}_budget_0.25": row(f"{SYSTEM}_budget_0.25", 0.36, 12, 7, 0.9)}
    first = {f"{SYSTEM}_budget_0.25": row(f"{SYSTEM}_budget_0.25", 0.31, 12, 7, 0.1)}
    claims = check_claims(retrained(**lucky), retrained(**first))
    assert [claim.holds for claim in claims[2:]] == [True, False, False]
    assert claims[2].found.startswith("90%") and claims[4].found.startswith("-0.010")


def test_no_gap_is_not_the_same_as_no_measurement():
    lead = {"over_bicubic": {"mean": 0.01, "std": None, "n": 1}}
    claim = check_claims([row(f"{SYSTEM}_budget_0.25", 0.3) | lead])[2]
    assert claim.holds is None and claim.found == "HR images are hardly better than bicubic ones"


def test_no_rival_is_as_fast():
    slow = {name: row("", 0.4, 40) | {"name": name} for name in ("retrained/bicubic_distilled", "retrained/sliced")}
    alone = [r for r in retrained(**slow) if r["name"] != f"{SYSTEM}_all_fast"]
    claim = check_claims(alone)[4]
    assert claim.holds and claim.found == "none of them takes as little as 12.0 ms"


def test_the_own_sr_everywhere_is_a_rival_too():
    own = {f"{SYSTEM}_all_quality": row(f"{SYSTEM}_all_quality", 0.37, 20, 15)}
    assert verdicts(retrained(**own)) == [True, True, True, False, True]


def test_undecided_without_the_rows_that_they_need():
    alone = [row(f"{SYSTEM}_budget_0.5", 0.3)]
    assert verdicts(alone) == [None] * 5
    untimed = [r | {"total_ms": None, "sr_ms": None} for r in retrained()]
    assert verdicts(untimed) == [True, True, True, None, None]
    assert claim_table(check_claims(alone))[1][-1] == "undecided"
    assert check_claims([row("retrained/bicubic", 0.3)]) == []


@pytest.mark.parametrize(
    ("system", "recovered", "holds"),
    [
        ("frozen/conditional", 0.85, True),
        ("frozen/conditional", 0.84, False),
        ("frozen/conditional_unlabelled", 0.61, True),
        ("frozen/conditional_unlabelled", 0.59, False),
        ("frozen/conditional_unlabelled", None, None),
    ],
)
def test_the_frozen_family_has_limits_of_its_own(system: str, recovered: float | None, holds: bool | None):
    claims = check_claims([row(f"{system}_budget_0.25", 0.3, recovered=recovered)])
    assert [claim.holds for claim in claims] == [None, None, holds, None]


def test_rivals_before_a_detector_that_stays_saw_no_more_labels():
    rows = [row(f"frozen/{name}", value, ms) for name, value, ms in RIVALS_OF_A_DEPLOYED_DETECTOR]
    by_labels, without = (
        check_claims([*rows, row(f"frozen/{system}_budget_0.25", 0.33, 12)])[3]
        for system in ("conditional", "conditional_unlabelled")
    )
    assert by_labels.holds is False and "sr_fast_tuned 0.340 at 11.0 ms" in by_labels.found
    assert without.holds and "sr_fast_tuned_unlabelled 0.320 at 11.0 ms" in without.found
    assert "retrained" not in without.text


def test_its_own_sr_fast_everywhere_is_a_rival():
    system = "frozen/conditional"
    rows = [row("frozen/bicubic", 0.3, 9), row(f"{system}_all_fast", 0.34, 10), row(f"{system}_budget_0.25", 0.33, 12)]
    claim = check_claims(rows)[3]
    assert claim.holds is False and "conditional_all_fast 0.340 at 10.0 ms" in claim.found


def test_a_larger_input_of_a_detector_that_stays_is_a_rival():
    for ms, holds in ((11, False), (13, True)):
        larger = row("frozen/bicubic_2x", 0.4, ms)
        claims = check_claims([row("frozen/bicubic", 0.3, 9), larger, row("frozen/conditional_budget_0.25", 0.33, 12)])
        assert claims[3].holds is holds


def test_a_light_network_everywhere_is_a_rival():
    fast = row("retrained/sr_fast_distilled", 0.36, 11)
    claim = check_claims(retrained(retrained__sr_fast_distilled=fast))[4]
    assert claim.holds is False and "sr_fast_distilled 0.360 at 11.0 ms" in claim.found
