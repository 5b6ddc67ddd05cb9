"""The best is deployed, unless a cheaper row cannot be told apart from it."""

from __future__ import annotations

import numpy as np

from evaluation.advice import advise

COSTS = {"cheap": 1, "middle": 2, "dear": 3}


def advice(**offsets: tuple[float, float]):
    """Rows of (mean, spread of its own draws around a common one)."""
    rng = np.random.default_rng(0)
    common = rng.normal(0, 0.1, 500)  # pictures differ far more than rows do: only paired draws tell them apart
    samples = {name: mean + common + rng.normal(0, spread, 500) for name, (mean, spread) in offsets.items()}
    return advise({name: mean for name, (mean, _) in offsets.items()}, samples, COSTS)


def test_the_best_where_it_is_certainly_better():
    found = advice(cheap=(0.5, 0.005), middle=(0.55, 0.005), dear=(0.6, 0.005))
    assert found.deploy == found.best == "dear" and found.tied == ["dear"]
    assert 0.03 < found.behind["middle"][0] < 0.05 < found.behind["middle"][1] < 0.07


def test_a_tie_goes_to_the_cheaper():
    found = advice(cheap=(0.5, 0.005), middle=(0.59, 0.05), dear=(0.6, 0.05))
    assert (found.deploy, found.best, found.tied) == ("middle", "dear", ["middle", "dear"])


def test_the_cheapest_of_all_where_nothing_is_certain():
    assert advice(cheap=(0.5, 0.2), middle=(0.55, 0.2), dear=(0.6, 0.2)).deploy == "cheap"


def test_equal_figures_are_no_reason_to_pay():
    found = advise(dict.fromkeys(COSTS, 0.5), dict.fromkeys(COSTS, np.full(9, 0.5)), COSTS)
    assert found.deploy == found.best == "cheap"
