"""What decides a claim is pinned: who changes a limit changes this list too, and says why in limits.py."""

from __future__ import annotations

from evaluation.comparison import claims, limits
from evaluation.row_key import RowKey

PINNED = {
    "FEW": 0.3,
    "STEP": 0.003,
    "NEAR": 0.005,
    "HALF": 0.5,
    "FROZEN_GAP": 0.85,
    "UNLABELLED_GAP": 0.60,
    "RETRAINED_GAP": 0.35,
    "FEWER": 0.02,
    "LEAST_GAP": 0.005,
    "PERCENTILES": (2.5, 97.5),
    "RESAMPLES": 2000,
    "DRAWS_SEED": 0,
    "SEEDS_ASKED": 3,
}


def test_every_limit_is_as_it_was_set():
    assert {name: value for name, value in vars(limits).items() if name.isupper()} == PINNED


def test_limits_stand_there_only():
    """A claim compares with no number of its own: what claims.py knows is imported under the same name."""
    own = {name for name, value in vars(claims).items() if name.isupper() and isinstance(value, int | float | tuple)}
    assert {name: getattr(claims, name) for name in own & PINNED.keys()} == {
        name: PINNED[name] for name in own & PINNED.keys()
    }
    rivals = {"RETRAINED_RIVALS", "LABEL_FREE_RIVALS", "QUALITY_RIVALS"}
    assert own - PINNED.keys() == rivals | {"BLIND", "WORST_FIRST"}
    assert {
        RowKey("conditional", "frozen"): PINNED["FROZEN_GAP"],
        RowKey("conditional", "frozen", "unlabelled"): PINNED["UNLABELLED_GAP"],
    } == claims.GAPS


def test_the_rivals_that_claims_name():
    """Fewer of them would make a claim easier to hold."""
    names = {key.name for rivals in claims.FROZEN_RIVALS.values() for key in rivals}
    assert names >= {
        *("frozen/bicubic", "frozen/bicubic_1.5x", "frozen/bicubic_2x", "frozen/sliced", "frozen/sahi"),
        *("frozen/sr_fast", "frozen/sr_fast_tuned", "frozen/sr_fast_tuned_unlabelled"),
    }
    assert {key.name for key in claims.RETRAINED_RIVALS} >= {
        *("retrained/bicubic", "retrained/bicubic_distilled", "retrained/sliced", "retrained/sliced_on_slices"),
        *("retrained/bicubic_1.25x", "retrained/bicubic_1.5x", "retrained/bicubic_2x"),
        *("retrained/sr_fast", "retrained/sr_fast_distilled"),
        *("retrained/sr_fast_1.25x_warmed_up", "retrained/sr_fast_1.5x_warmed_up"),
    }
    assert {key.name for key in claims.QUALITY_RIVALS} >= {"retrained/sr_quality", "retrained/sr_quality_distilled"}
    assert claims.BLIND == ("random", "edge")
