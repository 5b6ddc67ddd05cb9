"""Intervals of hand-made rows with known answers: the same images for every row, and seeds that really are drawn."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluation.comparison.aggregate import Repetition
from evaluation.comparison.claims import NO, UNDECIDED, YES, Part
from evaluation.comparison.evidence import Evidence, over_seeds, share_of_gap
from evaluation.detection_eval import SplitResult
from evaluation.matches_file import MATCHES, write_matches
from evaluation.row_key import RowKey
from tests.evaluation.test_map_bootstrap import drawn_set
from utils.errors import UserError

IMAGES, NAMES = 12, ("object",)
A, B = RowKey("sr_fast", "retrained"), RowKey("bicubic", "retrained")
STOCK = RowKey("sr_fast", "frozen")
BOXES = np.array([[10.0, 10, 30, 30], [50, 50, 80, 80]])


def split(found: list[int]) -> SplitResult:
    """Two objects an image, of which so many are found in each, exactly; a third box of a lower score is wrong."""
    truth = [(BOXES, np.zeros(2, int), (100, 100))] * len(found)
    wrong = np.array([[0.0, 80, 9, 99, 0.3, 0]])
    right = np.column_stack([BOXES, [0.9, 0.8], [0, 0]])
    return SplitResult([np.concatenate([right[:number], wrong]) for number in found], truth)


def repetition(
    folder: Path, seed: int, splits: dict[RowKey, SplitResult], share: float = 1.0, names: tuple[str, ...] = NAMES
) -> Repetition:
    """An evaluation as evaluate.py leaves it, with its matches."""
    folder.mkdir(parents=True)
    write_matches(folder / MATCHES, names, {key.name: result for key, result in splits.items()})
    rows = {
        key: {"name": key.name, "map50_95": result.metrics(names)["map50_95"], "total_ms": 10.0, "sr_ms": 5.0}
        for key, result in splits.items()
    }
    return Repetition(seed, share, rows, {}, folder, dict.fromkeys(rows, folder))


def verdict(estimate, limit: float = 0.0) -> str:
    return Part.of("", estimate, limit).verdict


HALF, ALL = [1] * IMAGES, [2] * IMAGES
MIXED = [index % 3 for index in range(IMAGES)]
BETTER = [min(2, number + 1) for number in MIXED]


def test_identical_rows_differ_by_nothing(tmp_path: Path):
    lead = Evidence([repetition(tmp_path / "s", 0, {A: split(MIXED), B: split(MIXED)})]).lead(A, B)
    assert (lead.value, lead.interval, lead.seeds) == (0, (0, 0), [0])
    assert verdict(lead) == UNDECIDED, "a tie is no win"
    assert verdict(lead, -0.005) == YES, "but equal is within a margin"


def test_a_row_that_finds_more_on_every_image_is_ahead(tmp_path: Path):
    lead = Evidence([repetition(tmp_path / "s", 0, {A: split(ALL), B: split(HALF)})]).lead(A, B)
    # Whatever is drawn: all objects against half of them, so that 51 of the 101 recalls are reached
    assert lead.value == pytest.approx(1 - 51 / 101) and lead.interval == pytest.approx([1 - 51 / 101] * 2)
    assert verdict(lead) == YES
    back = Evidence([repetition(tmp_path / "t", 0, {A: split(ALL), B: split(HALF)})]).lead(B, A)
    assert verdict(back) == NO and back.interval == pytest.approx([51 / 101 - 1] * 2)


def test_draws_are_of_the_same_images_for_all_rows(tmp_path: Path):
    """One image alone makes the difference, so that a draw without it has none: with draws of its own for each row,
    the many images that both find or both miss would make differences, of either sign."""
    more = [*MIXED[:-1], 2]
    assert MIXED[-1] == 2
    less = [*MIXED[:-1], 1]
    evidence = Evidence([repetition(tmp_path / "s", 0, {A: split(more), B: split(less)})])
    own, other = (evidence.samples(1.0, 0, key) for key in (A, B))
    assert own.std() > 0.05, "images differ much, so figures do"
    assert ((own - other) >= 0).all() and ((own - other) == 0).mean() == pytest.approx(
        (1 - 1 / IMAGES) ** IMAGES, abs=0.05
    )
    assert evidence.lead(A, B).interval[0] == 0


def test_draws_are_the_same_for_all_seeds(tmp_path: Path):
    """Two seeds that found the same have the interval of one."""
    pair = {A: split(BETTER), B: split(MIXED)}
    one = Evidence([repetition(tmp_path / "0", 0, pair)]).lead(A, B)
    both = Evidence([repetition(tmp_path / f"{seed + 1}", seed, pair) for seed in (0, 1)]).lead(A, B)
    assert one.interval == pytest.approx(both.interval) and both.seeds == [0, 1]
    assert one.interval[0] < one.interval[1]


def test_seeds_that_disagree_decide_nothing(tmp_path: Path):
    """Over images alone both would be certain; drawing seeds tells that they are not."""
    ahead, behind = {A: split(ALL), B: split(HALF)}, {A: split([0] * IMAGES), B: split(HALF)}
    singles = [Evidence([repetition(tmp_path / f"{n}", 0, pair)]).lead(A, B) for n, pair in enumerate((ahead, behind))]
    assert [verdict(lead) for lead in singles] == [YES, NO]
    lead = Evidence([repetition(tmp_path / f"b{n}", n, pair) for n, pair in enumerate((ahead, behind))]).lead(A, B)
    assert verdict(lead) == UNDECIDED
    assert lead.interval == pytest.approx((singles[1].value, singles[0].value), abs=1e-9)


def test_one_seed_of_three_that_is_behind_decides_nothing():
    """Of three seeds a draw takes one alone in 1 of 27: more often than the 2.5 % of one side."""
    samples = np.array([[0.01], [0.02], [-0.01]]) * np.ones((3, 2000))
    low, high = over_seeds(samples)
    assert low == pytest.approx(-0.01) and high == pytest.approx(0.02)
    assert over_seeds(np.abs(samples))[0] == pytest.approx(0.01)


def test_draws_without_a_figure_may_hold_any():
    few, many = np.full((1, 2000), 0.5), np.full((1, 2000), 0.5)
    few[0, :40], many[0, :60] = np.nan, np.nan  # 2 and 3 %
    assert over_seeds(few) == (0.5, 0.5)
    assert over_seeds(many) == (-math.inf, math.inf)
    many[0, :60] = 0.5
    assert over_seeds(many) == (0.5, 0.5)


def test_share_of_a_gap():
    row, high, low = np.array([0.3, 0.3, 0.3]), np.array([0.4, 0.204, 0.206]), np.array([0.2, 0.2, 0.2])
    assert share_of_gap(row, high, low).tolist() == pytest.approx([0.5, math.nan, 100 / 6], nan_ok=True)


def test_recovered_is_taken_within_a_seed_and_a_draw(tmp_path: Path):
    high, low, row = RowKey("hr", "retrained"), RowKey("bicubic", "retrained"), RowKey("sr_fast", "retrained")
    splits = {high: split(ALL), low: split([0] * IMAGES), row: split(HALF)}
    no_gap = {high: split(HALF), low: split(HALF), row: split(ALL)}
    evidence = Evidence([repetition(tmp_path / f"{n}", n, one) for n, one in enumerate((splits, no_gap))])
    found = evidence.recovered(row)
    assert found.seeds == [0], "the other has no gap"
    assert found.value == pytest.approx(51 / 101) and found.interval == pytest.approx([51 / 101] * 2)


def test_labels_against_fewer_labels(tmp_path: Path):
    high, low, row = RowKey("hr", "retrained"), RowKey("bicubic", "retrained"), RowKey("sr_fast", "retrained")
    ends = {high: split(ALL), low: split([0] * IMAGES)}
    shares = {1.0: ends | {row: split(HALF)}, 0.2: ends | {row: split(ALL)}}
    evidence = Evidence([repetition(tmp_path / f"{share}", 0, rows, share) for share, rows in shares.items()])
    more = evidence.recovers_more(row, 0.2, row, 1.0)
    assert more.value == pytest.approx(1 - 51 / 101) and more.interval == pytest.approx([1 - 51 / 101] * 2)


def test_constant_rows_bring_their_matches_along_and_own_measurements_stay(tmp_path: Path):
    full = repetition(tmp_path / "full", 0, {STOCK: split(ALL), A: split(ALL)}, 1.0)
    few = repetition(tmp_path / "few", 0, {A: split(HALF)}, 0.2)
    evidence = Evidence([full, few])
    assert evidence.samples(0.2, 0, STOCK).tolist() == evidence.samples(1.0, 0, STOCK).tolist()
    assert evidence.samples(0.2, 0, A).mean() < 0.6 < evidence.samples(1.0, 0, A).mean()
    own = repetition(tmp_path / "own", 0, {A: split(HALF), STOCK: split(HALF)}, 0.2)
    assert Evidence([full, own]).samples(0.2, 0, STOCK).mean() < 0.6, "its own measurement counts"


def test_without_matches_there_is_no_interval(tmp_path: Path):
    both = [repetition(tmp_path / f"{seed}", seed, {A: split(ALL), B: split(HALF)}) for seed in (0, 1)]
    (tmp_path / "1" / MATCHES).unlink()
    lead = Evidence(both).lead(A, B)
    assert lead.interval is None and lead.value == pytest.approx(1 - 51 / 101) and lead.seeds == [0, 1]


def test_seeds_that_lack_a_row_do_not_count(tmp_path: Path):
    first = repetition(tmp_path / "0", 0, {A: split(HALF), B: split(HALF)})
    second = repetition(tmp_path / "1", 1, {A: split(ALL)})
    assert Evidence([first, second]).lead(A, B).seeds == [0]
    assert Evidence([second]).lead(A, B) is None


def test_matches_of_another_result_or_other_images_are_refused(tmp_path: Path):
    wrong = repetition(tmp_path / "0", 0, {A: split(ALL), B: split(HALF)})
    wrong.rows[A]["map50_95"] -= 0.01
    with pytest.raises(UserError, match=r"gives retrained/sr_fast a mAP of 1.000000, results.json 0.99"):
        Evidence([wrong]).lead(A, B)
    other = repetition(tmp_path / "1", 1, {A: split([2] * 11), B: split([1] * 11)})
    first = repetition(tmp_path / "2", 0, {A: split(ALL), B: split(HALF)})
    with pytest.raises(UserError, match="of other images or labels than the other measurements"):
        Evidence([first, other]).lead(A, B)


def test_an_ordinary_set(tmp_path: Path):
    """Boxes with noise, several classes: the interval holds the figure and is the same every time."""
    truth, found = drawn_set(3, 40)
    fewer = [rows[::2] for rows in found]
    splits = {A: SplitResult(found, truth), B: SplitResult(fewer, truth)}
    measured = repetition(tmp_path / "s", 0, splits, names=("a", "b", "c"))
    lead = Evidence([measured]).lead(A, B)
    assert lead.interval[0] < lead.value < lead.interval[1] and verdict(lead) == YES
    assert lead == Evidence([replace(measured)]).lead(A, B)
