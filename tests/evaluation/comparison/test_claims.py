"""Every claim can hold, fail and be undecided, by the figures, their intervals and the rivals that were measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from evaluation.comparison import claims as module
from evaluation.comparison.aggregate import Repetition
from evaluation.comparison.claims import (
    NO,
    NO_INTERVAL,
    UNDECIDED,
    YES,
    Claim,
    Part,
    check_claims,
    claim_note,
    claim_table,
)
from evaluation.comparison.evidence import Evidence
from evaluation.row_key import RowKey

SYSTEM = RowKey("conditional", "retrained", "distilled")
QUARTER, QUALITY = SYSTEM.under("budget", 0.25), RowKey("sr_quality", "retrained", "distilled")
HR, BICUBIC = RowKey("hr", "retrained"), RowKey("bicubic", "retrained")
DISTILLED, LARGER = replace(BICUBIC, recipe="distilled"), replace(BICUBIC, upscale=2)
SLICED, FAST = RowKey("sliced", "retrained"), RowKey("sr_fast", "retrained", "distilled")
CONDITIONAL = RowKey("conditional", "frozen")
UNLABELLED = replace(CONDITIONAL, recipe="unlabelled")
RISES, BLIND, RECOVERS, EQUALS, BEST = range(5)  # the claims of a retrained system
EXACT, NOISY = 1e-5, 0.02  # deviation of the drawn mAP of every row


def row(key: RowKey, quality: float | None, ms: float | None = 10.0, sr_ms: float | None = 5.0) -> dict[RowKey, dict]:
    return {key: {"name": key.name, "map50_95": quality, "total_ms": ms, "sr_ms": sr_ms}}


class Drawn(Evidence):
    """Evidence whose draws are its figures with noise, that of every row its own."""

    def __init__(self, shares: Mapping[float, Sequence[dict]], noise: float | None):
        self.noise = noise
        measured = [(share, seed, rows) for share, seeds in shares.items() for seed, rows in enumerate(seeds)]
        super().__init__([Repetition(seed, share, rows, {}, Path()) for share, seed, rows in measured], 400)

    def samples(self, share: float, seed: int, key: RowKey) -> np.ndarray | None:
        if self.noise is None:
            return None
        number = sum(map(ord, key.name))
        deviations = np.random.default_rng([number, seed]).normal(0, self.noise, self.resamples)
        return self.by_share[share][seed].rows[key]["map50_95"] + deviations


def claims_of(*seeds: dict[RowKey, dict], noise: float | None = EXACT) -> list[Claim]:
    return check_claims(Drawn({1.0: seeds}, noise))


def verdicts(*seeds: dict[RowKey, dict], noise: float | None = EXACT) -> list[str]:
    return [claim.verdict for claim in claims_of(*seeds, noise=noise)]


def retrained(*changes: dict[RowKey, dict], without: Sequence[RowKey] = ()) -> dict[RowKey, dict]:
    """Rows with which every claim of the retrained family holds; `changes` replace or add some."""
    rows = row(HR, 0.45) | row(BICUBIC, 0.25, 8) | row(SYSTEM.under("all_fast"), 0.30)
    rows |= row(SYSTEM.under("all_quality"), 0.354, 20, 15)
    for share, quality in ((0.1, 0.33), (0.25, 0.35), (0.5, 0.355)):
        rows |= row(SYSTEM.under("budget", share), quality, 12, 7)
        for kind in ("random", "edge", "oracle"):
            rows |= row(SYSTEM.under(kind, share), quality - 0.01)
    rows |= row(QUALITY, 0.354, 20, 15) | row(replace(QUALITY, recipe=None), 0.35, 20, 15)
    rows |= row(DISTILLED, 0.32, 9) | row(LARGER, 0.40, 40) | row(SLICED, 0.31, 11)
    rows |= row(FAST, 0.31, 11) | row(replace(FAST, recipe=None), 0.30, 11)
    rows |= row(replace(BICUBIC, upscale=1.25), 0.36, 14) | row(replace(BICUBIC, upscale=1.5), 0.38, 20)
    rows |= row(replace(SLICED, recipe="on_slices"), 0.37, 30)
    for change in changes:
        rows |= change
    return {key: figures for key, figures in rows.items() if key not in without}


def frozen(system: RowKey, quality: float, *changes: dict[RowKey, dict]) -> dict[RowKey, dict]:
    """Rows before a detector that stays; the system's quarter of the patches has this mAP."""
    stays = {"family": "frozen"}
    rows = (
        row(replace(HR, **stays), 0.5) | row(replace(BICUBIC, **stays), 0.2, 9) | row(replace(LARGER, **stays), 0.4, 40)
    )
    rows |= row(replace(SLICED, **stays), 0.3, 11) | row(RowKey("sr_fast", "frozen"), 0.25, 11)
    rows |= row(RowKey("sahi", "frozen"), 0.3, 60) | row(replace(BICUBIC, **stays, upscale=1.5), 0.3, 20)
    rows |= row(RowKey("sr_fast", "frozen", "tuned_unlabelled"), 0.32, 11)
    rows |= row(RowKey("sr_fast", "frozen", "tuned"), 0.34, 11) | row(system.under("all_fast"), 0.28, 10)
    rows |= row(system.under("budget", 0.25), quality, 12)
    for change in changes:
        rows |= change
    return rows


def test_all_hold():
    claims = claims_of(retrained())
    assert [claim.verdict for claim in claims] == [YES] * 5
    assert "0.25: +0.010 [+0.010, +0.010] random, +0.010 [+0.010, +0.010] edge" in claims[BLIND].found
    assert claims[RECOVERS].found == "50% [50%, 50%] (conditional_distilled_budget_0.25)"
    assert claims[EQUALS].found.startswith("-0.004 [-0.004, -0.004] to ")
    assert claims[EQUALS].found.endswith(", 0.47 of its SR time")
    assert claims[BEST].found.startswith("+0.030 [+0.030, +0.030]: conditional_distilled_budget_0.25 at 12.0 ms over ")
    assert claims[BEST].found.endswith("over bicubic_distilled at 9.0 ms")


@pytest.mark.parametrize(
    ("index", "change"),
    [
        (RISES, row(SYSTEM.under("all_quality"), 0.3518, 20, 15)),
        (BLIND, row(SYSTEM.under("edge", 0.1), 0.331)),
        (RECOVERS, row(HR, 0.55)),
        (EQUALS, row(QUALITY, 0.354, 20, 13)),
        (EQUALS, row(QUALITY, 0.356, 20, 15)),
        (BEST, row(LARGER, 0.40, 12)),
        (BEST, row(FAST, 0.36, 11)),
    ],
)
def test_each_can_fail_alone(index: int, change: dict):
    expected = [YES] * 5
    expected[index] = NO
    assert verdicts(retrained(change)) == expected


@pytest.mark.parametrize(
    ("index", "change"),
    [
        (BLIND, row(SYSTEM.under("edge", 0.1), 0.33)),
        (RECOVERS, row(HR, 0.25 + 0.1 / 0.35)),
        (EQUALS, row(QUALITY, 0.355, 20, 15)),
        (BEST, row(SLICED, 0.35, 11)),
    ],
)
def test_a_tie_is_no_win(index: int, change: dict):
    expected = [YES] * 5
    expected[index] = UNDECIDED
    assert verdicts(retrained(change)) == expected


def test_what_is_within_the_noise_is_undecided():
    assert verdicts(retrained(), noise=NOISY) == [UNDECIDED] * 5


def test_without_intervals_nothing_is_decided_but_what_is_no_matter_of_chance():
    assert verdicts(retrained(), noise=None) == [NO_INTERVAL] * 5
    assert verdicts(retrained(row(QUALITY, 0.354, 20, 13)), noise=None)[EQUALS] == NO, "more than half of its time"
    assert "[" not in claims_of(retrained(), noise=None)[BLIND].found


ASKED = [rival for rival in module.RETRAINED_RIVALS if rival.system != "sr_fast"] + [FAST, SYSTEM.under("all_fast")]


@pytest.mark.parametrize("rival", ASKED, ids=lambda key: key.short)
def test_a_rival_that_was_not_measured_leaves_no_yes(rival: RowKey):
    claim = claims_of(retrained(without=[rival]))[BEST]
    assert claim.verdict == UNDECIDED and claim.found.endswith(f"not measured: {rival.short}")
    if rival == BICUBIC:  # also an end of the gap
        assert claims_of(retrained(without=[rival]))[RECOVERS].found == "not measured: bicubic"


@pytest.mark.parametrize("rival", ASKED, ids=lambda key: key.short)
def test_a_rival_that_was_not_timed_leaves_no_yes(rival: RowKey):
    claim = claims_of(retrained(row(rival, 0.3, None)))[BEST]
    assert claim.verdict == UNDECIDED and claim.found.endswith(f"not measured: the time of {rival.short}")


@pytest.mark.parametrize("rival", [QUALITY, SYSTEM.under("all_quality")], ids=lambda key: key.short)
def test_so_it_is_with_sr_quality_everywhere(rival: RowKey):
    missing = claims_of(retrained(without=[rival]))[EQUALS]
    assert missing.verdict == UNDECIDED and f"not measured: {rival.short}" in missing.found
    untimed = claims_of(retrained(row(rival, 0.354, 20, None)))[EQUALS]
    assert untimed.verdict == UNDECIDED and f"not measured: the time of {rival.short}" in untimed.found


@pytest.mark.parametrize("rival", [replace(FAST, recipe=None), replace(QUALITY, recipe=None)])
def test_a_front_end_trained_otherwise_counts_where_it_was_measured(rival: RowKey):
    assert verdicts(retrained(without=[rival])) == [YES] * 5
    ahead = verdicts(retrained(row(rival, 0.36, 11, 15)))
    assert ahead == [YES] * 3 + ([YES, NO] if rival.system == "sr_fast" else [NO, YES])


@pytest.mark.parametrize("system", [CONDITIONAL, UNLABELLED], ids=lambda key: key.short)
def test_every_rival_of_a_deployed_detector_is_asked_for(system: RowKey):
    for rival in module.FROZEN_RIVALS[system]:
        rows = {key: figures for key, figures in frozen(system, 0.36).items() if key != rival}
        claim = claims_of(rows)[3]
        assert claim.verdict == UNDECIDED and claim.found.endswith(f"not measured: {rival.short}")
    assert claims_of(frozen(system, 0.36))[3].verdict == YES


def test_a_measured_rival_that_is_ahead_decides_without_the_others():
    claim = claims_of(retrained(row(SLICED, 0.36, 11), without=[FAST]))[BEST]
    assert claim.verdict == NO and "over sliced at 11.0 ms; not measured: sr_fast_distilled" in claim.found


@pytest.mark.parametrize("kind", module.BLIND)
def test_a_mask_that_was_not_measured(kind: str):
    claim = claims_of(retrained(without=[SYSTEM.under(kind, 0.5)]))[BLIND]
    assert claim.verdict == UNDECIDED and claim.found.endswith(f"not measured: {kind} at 0.5")


def test_two_seeds_that_disagree_are_undecided():
    ahead, behind = retrained(), retrained(row(SLICED, 0.36, 11))
    assert verdicts(ahead)[BEST] == YES and verdicts(behind)[BEST] == NO
    claim = claims_of(ahead, behind)[BEST]
    assert claim.verdict == UNDECIDED and claim.seeds == 2
    low, high = next(part for part in claim.parts if part.name.startswith("sliced")).interval
    assert low == pytest.approx(-0.01, abs=1e-3) and high == pytest.approx(0.04, abs=1e-3)


def test_rivals_are_met_over_equal_seeds():
    """With more seeds the system is better by chance; this rival has only the first."""
    second = retrained(row(QUARTER, 0.50, 12, 7), without=[SLICED])
    claim = claims_of(retrained(row(SLICED, 0.36, 11)), second)[BEST]
    assert claim.verdict == NO and claim.seeds == 1 and claim.found.startswith("-0.010")


@pytest.mark.parametrize(
    ("recovered", "verdict", "found"),
    [
        (
            (0.6, 0.7),
            YES,
            "100% of the labels: 50%, 20% of the labels: 60%, 5% of the labels: 70%, 20% over 100%: +10%",
        ),
        ((0.6, 0.55), NO, "5% of the labels: 55%"),
        ((0.4, 0.7), NO, "20% of the labels: 40%"),
        ((0.6, 0.61), NO, "5% over 20%: +1% [+1%, +1%]"),
        ((0.6, None), UNDECIDED, "not measured: 5% of the labels"),
    ],
)
def test_fewer_labels(recovered: tuple, verdict: str, found: str):
    shares = {1.0: [retrained()]}
    for share, value in zip((0.2, 0.05), recovered):
        quarter = {} if value is None else row(QUARTER, 0.25 + 0.2 * value)
        shares[share] = [row(HR, 0.45) | row(BICUBIC, 0.25) | quarter]
    claim = check_claims(Drawn(shares, EXACT))[-1]
    assert claim.verdict == verdict and found in claim.found
    assert len(check_claims(Drawn({1.0: shares[1.0]}, EXACT))) == 5


def test_no_gap_is_not_the_same_as_no_measurement():
    claim = claims_of(retrained(row(HR, 0.254)))[RECOVERS]
    assert claim.verdict == UNDECIDED and claim.found == "HR images are hardly better than bicubic ones"


def test_where_no_rival_is_as_fast_nothing_was_beaten():
    slow = [row(key, 0.3, 40) for key in (*module.RETRAINED_RIVALS, SYSTEM.under("all_fast"))]
    claim = claims_of(retrained(*slow))[BEST]
    assert claim.verdict == UNDECIDED and claim.found == "none of them takes as little as 12.0 ms"


def test_the_own_sr_everywhere_is_a_rival_too():
    own = row(SYSTEM.under("all_quality"), 0.37, 20, 15)
    assert verdicts(retrained(own)) == [YES, YES, YES, NO, YES]


def test_undecided_without_the_rows_that_they_need():
    assert verdicts(row(SYSTEM.under("budget", 0.5), 0.3)) == [UNDECIDED] * 5
    untimed = {key: figures | {"total_ms": None, "sr_ms": None} for key, figures in retrained().items()}
    assert verdicts(untimed) == [YES, YES, YES, UNDECIDED, UNDECIDED]
    assert claims_of(row(BICUBIC, 0.3)) == []


@pytest.mark.parametrize(
    ("system", "recovered", "verdict"),
    [(CONDITIONAL, 0.86, YES), (CONDITIONAL, 0.84, NO), (UNLABELLED, 0.61, YES), (UNLABELLED, 0.59, NO)],
)
def test_the_frozen_family_has_limits_of_its_own(system: RowKey, recovered: float, verdict: str):
    claim = claims_of(frozen(system, 0.2 + 0.3 * recovered))[2]
    assert claim.verdict == verdict and f"{recovered:.0%}" in claim.found


def test_rivals_before_a_detector_that_stays_saw_no_more_labels():
    by_labels, without = (claims_of(frozen(system, 0.33))[3] for system in (CONDITIONAL, UNLABELLED))
    assert by_labels.verdict == NO and by_labels.found.endswith("over sr_fast_tuned at 11.0 ms")
    assert without.verdict == YES and without.found.endswith("over sr_fast_tuned_unlabelled at 11.0 ms")
    assert "retrained" not in without.text


def test_its_own_sr_fast_everywhere_is_a_rival():
    claim = claims_of(frozen(CONDITIONAL, 0.35, row(CONDITIONAL.under("all_fast"), 0.36, 10)))[3]
    assert claim.verdict == NO and claim.found.endswith("over conditional_all_fast at 10.0 ms")


@pytest.mark.parametrize(("ms", "verdict"), [(11, NO), (12, NO), (13, YES)])
def test_only_what_takes_no_longer_is_a_rival(ms: float, verdict: str):
    claim = claims_of(frozen(CONDITIONAL, 0.35, row(RowKey("bicubic", "frozen", upscale=2), 0.4, ms)))[3]
    assert claim.verdict == verdict


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [((0.1, 0.2), YES), ((-0.2, -0.1), NO), ((-0.1, 0.1), UNDECIDED), ((0.0, 0.0), UNDECIDED), (None, NO_INTERVAL)],
)
def test_a_part_needs_its_whole_interval_on_one_side(interval, verdict: str):
    assert Part("", 0.0, 0.0, interval, [0]).verdict == verdict
    moved = None if interval is None else (interval[0] + 0.85, interval[1] + 0.85)
    assert Part("", 0.85, 0.85, moved, [0]).verdict == verdict


def test_ends_that_draws_leave_open_are_shown_as_such():
    part = Part("", 0.5, 0.35, (-np.inf, 0.9), [0])
    assert part.text(".0%") == "50% [-, 90%]" and part.verdict == UNDECIDED


def test_the_table_names_figure_interval_seeds_and_verdict():
    claims = claims_of(retrained(row(LARGER, 0.40, 12)), retrained(row(LARGER, 0.40, 12)))
    head, *lines = claim_table(claims)
    assert head == ["claim", "system", "found [95 % interval]", "seeds", "verdict"]
    assert [line[3:] for line in lines] == [["2", "yes"]] * 4 + [["2", "**no**"]]
    assert "5 of 5 claims rest on fewer than the 3 that are asked for" in claim_note(claims)
    assert "asked for" not in claim_note(claims_of(*[retrained()] * 3))
    assert json.loads(json.dumps([asdict(claim) for claim in claims]))[0]["parts"][0]["seeds"] == [0, 1]
