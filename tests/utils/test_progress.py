"""Progress off a terminal: lines with the time left, and none where nothing is to be shown."""

from __future__ import annotations

import re
import sys

import pytest

from utils.progress import ProgressBar


def run(bar: ProgressBar, steps: int) -> None:
    for step in range(steps):
        bar.update(f"loss {step}")
    bar.close()


def test_lines_off_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    run(ProgressBar(5, "train 1/2", initial=2, every=0.0), 3)
    lines = capsys.readouterr().out.splitlines()
    assert [re.sub(r"\d+:\d\d:\d\d", "TIME", line) for line in lines] == [
        "train 1/2: 3/5, TIME left, loss 0",
        "train 1/2: 4/5, TIME left, loss 1",
    ]
    run(ProgressBar(5, "train", every=1e9), 5)
    assert not capsys.readouterr().out, "a short loop needs no line"


def test_the_time_left_is_that_of_the_remaining_steps(monkeypatch):
    clock = iter([100.0, 100.0 + 60.0])
    monkeypatch.setattr("utils.progress.time.monotonic", lambda: next(clock))
    bar = ProgressBar(10, "train", initial=2, show=False)
    bar.done = 4  # two steps in a minute, six to go
    assert bar.left() == "0:03:00"


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_where_nothing_is_to_be_shown(capsys, monkeypatch, terminal: bool):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    run(ProgressBar(3, "train", show=False, every=0.0), 3)
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run(ProgressBar(3, "train", every=0.0), 3)
    out, err = capsys.readouterr()
    assert not out and "train: 100%" in err and "3/3" in err
