"""Timing: who is called how often and in which order; memory: a big allocation is seen. No time is asserted."""

from __future__ import annotations

import gc
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from utils import timing
from utils.timing import Timing, in_turn, measure_interleaved, spread, time_once


def test_rounds_are_interleaved():
    log = []
    names = ["a", "b", "c"]
    calls = {name: (lambda name=name: log.append(name)) for name in names}
    rounds = []
    timings = measure_interleaved(calls, rounds=5, warmup=2, on_round=lambda: rounds.append(len(log)))
    assert list(timings) == names
    assert Counter(log) == {name: 7 for name in names}
    for start in range(0, len(log), 3):
        assert sorted(log[start : start + 3]) == names, "every round calls everyone once"
    assert len({tuple(log[start : start + 3]) for start in range(0, len(log), 3)}) > 1, "the order changes"
    assert rounds == [3, 6, 9, 12, 15, 18, 21]
    for found in timings.values():
        assert isinstance(found, Timing) and found.runs == 5
        assert 0 <= found.median_ms <= found.p95_ms


def test_own_random_numbers_and_garbage_collection_stay_as_they_are():
    random.seed(3)
    expected = random.Random(3).random()
    measure_interleaved({"a": lambda: None}, rounds=2)
    assert random.random() == expected
    assert gc.isenabled()

    def fail():
        raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        measure_interleaved({"a": fail}, rounds=1)
    assert gc.isenabled()


def test_no_candidates():
    assert measure_interleaved({}, rounds=1) == {}


@pytest.mark.parametrize("rounds, warmup", [(0, 2), (1, -1)])
def test_wrong_counts_are_refused(rounds: int, warmup: int):
    with pytest.raises(ValueError, match=f"rounds={rounds}, warmup={warmup}"):
        measure_interleaved({"a": lambda: None}, rounds=rounds, warmup=warmup)


def test_one_call():
    assert time_once(lambda: torch.ones(3).sum(), torch.device("cpu")) > 0


HUNGRY = """
import torch
from utils.timing import peak_memory_mb
hungry = lambda: torch.ones(MEGABYTES * 250_000).sum().item()
hungry()
print(peak_memory_mb(hungry), peak_memory_mb(lambda: None))
"""


def test_memory_of_a_call():
    """In a process of its own: other tests may have told this one to keep freed memory."""
    megabytes, folder = 64, Path(__file__).parents[2]
    code = [sys.executable, "-c", HUNGRY.replace("MEGABYTES", str(megabytes))]
    done = subprocess.run(code, cwd=folder, capture_output=True, text=True, check=True)
    if "None" in done.stdout:
        pytest.skip("this system does not let a process reset its peak memory")
    peak, nothing = map(float, done.stdout.split())
    assert 0.8 * megabytes < peak < 4 * megabytes
    assert nothing < 0.5 * megabytes


def test_median_and_95th_percentile_of_given_samples(monkeypatch):
    """1 to 20 ms in any order after a slow first round: the middle, and 95 % of the way from the first to the last."""
    monkeypatch.setattr(timing, "time_once", lambda call, device: call())
    samples = [7.0, 1, 20, 3, 2, 19, 5, 13, 4, 6, 8, 18, 9, 10, 12, 11, 14, 17, 16, 15]
    calls = {"a": iter([900.0, *samples]), "b": iter([800.0, *[2.0] * 19, 100.0])}
    found = measure_interleaved({name: (lambda it=it: next(it)) for name, it in calls.items()}, rounds=20, warmup=1)
    assert found["a"] == Timing(10.5, pytest.approx(19.05), 20, tuple(samples))
    assert (found["b"].median_ms, found["b"].p95_ms) == (2.0, pytest.approx(6.9))


def test_every_item_has_its_turn():
    seen = []
    call = in_turn(seen.append, ["a", "b", "c"])
    for _ in range(7):
        call()
    assert "".join(seen) == "abcabca"


@pytest.mark.parametrize(
    ("length", "count", "expected"),
    [(10, 4, [0, 3, 6, 9]), (100, 3, [0, 50, 99]), (3, 5, [0, 1, 2]), (5, 1, [0]), (1, 4, [0]), (5, 4, [0, 1, 3, 4])],
)
def test_spread_reaches_from_the_first_to_the_last(length: int, count: int, expected: list[int]):
    assert spread(length, count) == expected
