"""Which of several ways to compute the same is fastest on this machine, measured at start-up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

REPEATS = 5


def fastest_ms(runs: Mapping[str, Callable[[], object]], repeats: int = REPEATS) -> dict[str, float]:
    """Milliseconds of the fastest of a few interleaved runs each; the first, which prepares kernels and memory, does
    not count."""
    best = dict.fromkeys(runs, float("inf"))
    with torch.inference_mode():
        for repeat in range(repeats + 1):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                if repeat:
                    best[name] = min(best[name], 1e3 * (time.perf_counter() - start))
    return best
