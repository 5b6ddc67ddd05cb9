"""results.json as evaluate.py writes it, with figures that tests can predict."""

from __future__ import annotations

import numpy as np

from evaluation.row_key import RowKey

NAMES = ("dark", "bright")
BASE = {"hr": 0.5, "lr": 0.05, "bicubic": 0.3, "sr_fast": 0.31, "sr_quality": 0.36}


def quality_of(key: RowKey, seed: int) -> float:
    """mAP50-95 of a row: its policies are better the more they keep; every seed adds 0.01."""
    start = BASE.get(key.system, 0.4) + 0.02 * (key.upscale - 1)
    share, policy = key.budget or 0.0, 0.02 if key.policy == "budget" else 0.0
    return start + 0.05 * share + policy + 0.1 * (key == RowKey("hr", "retrained")) + 0.01 * seed


def row_of(key: RowKey, seed: int = 0, timed: bool = True, **changes) -> dict:
    """One row; `changes` replace its figures."""
    quality = quality_of(key, seed)
    conditional = key.policy is not None
    recalls = np.linspace(0, 1, 101)
    curve = np.clip(1.2 * quality + 0.4 - recalls, 0, 1).round(4).tolist()
    row = {"name": key.name} | key.record() | {"map50_95": quality, "map50": quality + 0.2, "ap_small": quality - 0.1}
    row |= {"ap_medium": quality, "ap_large": None, "kept_share": 0.25 if conditional else None}
    row |= {"sr_gmacs": 1.0, "total_gmacs": 4.0, "params": 2_500_000, "sr_ms": 10.0 if timed else None}
    row |= {"total_ms": 20.0 + len(key.name) if timed else None, "total_ms_p95": 60.0 if timed else None}
    row |= {"peak_mem_mb": 25.0, "kept_inside": 0.6 if conditional else None}
    row |= {"kept_outside": 0.2 if conditional else None, "psnr": 30.0 + seed}
    row |= {"ap_per_class": {"dark": quality, "bright": quality - 0.05}}
    return row | {"pr_curve": curve, "pr_curve_per_class": {name: curve for name in NAMES}} | changes


def results_of(keys: list[RowKey], seed: int = 0, timed: bool = True) -> dict:
    return {
        "dataset": "drawn",
        "split": "val",
        "scale": 4,
        "lr_protocol": "LR = HR shrunk",
        "device": "a processor",
        "dtype": "fp32",
        "threads": 1,
        "versions": {"torch": "2.15.0"},
        "images": 4,
        "date": "2026-11-21T00:00:00+00:00",
        "git": {"commit": "0123456789abcdef", "dirty": False},
        "timing": {"batch": 1, "images": 4, "rounds": 2 if timed else 0},
        "rows": [row_of(key, seed, timed) for key in keys],
    }
