"""How large the reliability tests run, and where their figures go.

RELIABILITY is a share of the full size (1 takes hours; unset: small, as within `make test`); with RELIABILITY_OUT, a
file, every test adds a line of JSON to it, of which `python -m tools.reliability_page` makes the page.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def count() -> Callable[[int, int], int]:
    """count(small, full) -> number of cases in this run; skips the test where that is 0."""

    def number(small: int, full: int) -> int:
        share = os.environ.get("RELIABILITY")
        cases = small if share is None else max(small, 1, round(full * float(share)))
        if cases == 0:
            pytest.skip("runs by `make reliability` only")
        return cases

    return number


@pytest.fixture
def record() -> Callable[..., None]:
    """record(group, what, good, tried, note): a row of the page; asserts afterwards that all were good."""

    def add(group: str, what: str, good: int, tried: int, note: str = "", must_hold: bool = True) -> None:
        if "RELIABILITY_OUT" in os.environ:
            row = {"group": group, "what": what, "good": good, "tried": tried, "note": note}
            with Path(os.environ["RELIABILITY_OUT"]).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        assert not must_hold or good == tried, f"{what}: {good} of {tried}; {note}"

    return add
