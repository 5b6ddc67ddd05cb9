"""Which of several ways to deploy: the best, or the cheapest of those that no interval tells apart from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from evaluation.map_bootstrap import interval


@dataclass(frozen=True)
class Advice:
    """What to deploy.

    Args:
        deploy: name of the row.
        best: name of the row with the highest figure.
        behind: of every row, the 95 % interval of how much it is behind the best, by paired draws.
    """

    deploy: str
    best: str
    behind: dict[str, tuple[float, float]]

    @property
    def tied(self) -> list[str]:
        """Rows that the interval does not tell apart from the best, it included."""
        return [name for name, (low, _) in self.behind.items() if low <= 0]


def advise(figures: Mapping[str, float], samples: Mapping[str, np.ndarray], costs: Mapping[str, float]) -> Advice:
    """The cheapest row whose figure is not certainly below the best.

    Args:
        figures: by row, higher is better.
        samples: by row, the figure in every draw; draws are the same for all rows.
        costs: by row.
    """
    best = max(figures, key=lambda name: (figures[name], -costs[name]))
    behind = {name: interval(samples[best] - samples[name]) for name in figures}
    tied = [name for name, (low, _) in behind.items() if low <= 0]
    return Advice(min(tied, key=lambda name: (costs[name], -figures[name])), best, behind)
