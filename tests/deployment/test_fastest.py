"""Timing at start-up: runs take turns, and the first of each does not count."""

from __future__ import annotations

import time

from deployment.fastest import fastest_ms


def test_runs_take_turns_and_the_fastest_after_the_first_counts(monkeypatch):
    now, calls = [0.0], []
    seconds = {"a": iter([0.001, 9, 3, 4]), "b": iter([5, 2, 6, 7])}  # the first one of each is its warm-up

    def run(name: str) -> None:
        calls.append(name)
        now[0] += next(seconds[name])

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    assert fastest_ms({"a": lambda: run("a"), "b": lambda: run("b")}, repeats=3) == {"a": 3e3, "b": 2e3}
    assert calls == ["a", "b"] * 4
