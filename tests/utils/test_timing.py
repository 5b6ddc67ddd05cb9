"""Timing: who is called how often and in which order; memory: a big allocation is seen. No time is asserted."""

from __future__ import annotations

import gc
import random
from collections import Counter

import pytest
import torch

from utils.timing import Timing, measure_interleaved, peak_memory_mb, time_once


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
    for timing in timings.values():
        assert isinstance(timing, Timing) and timing.runs == 5
        assert 0 <= timing.median_ms <= timing.p95_ms


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


def test_memory_of_a_call():
    megabytes = 64
    hungry = lambda: torch.ones(megabytes * 250_000).sum().item()  # noqa: E731
    hungry()
    peak = peak_memory_mb(hungry)
    if peak is None:
        pytest.skip("this system does not let a process reset its peak memory")
    assert 0.8 * megabytes < peak < 4 * megabytes
    assert peak_memory_mb(lambda: None) < 0.5 * megabytes
