"""MACs of rows of the comparison table, counted once per network and size."""

from __future__ import annotations

from collections.abc import Callable

from evaluation.rows import Row
from utils.flops_counter import count_macs_at


class MacCounter:
    """Counts MACs, each network and size once."""

    def __init__(self):
        self.known: dict[tuple, int] = {}

    def front(self, row: Row, height: int, width: int, patches_per_image: list[int]) -> float | None:
        """MACs that the row's front end executes for an LR image, the mean over the split; None without a front end.

        Args:
            row: the row.
            height, width: LR pixels.
            patches_per_image: on how many patches of every image SR_Quality runs, where the row has masks.
        """
        method, masker = row.method, row.policy.needs_masker
        if method.front is None:
            return None
        costs = [
            self._once(
                (method.front, masker, height, width, count),
                lambda n=count: method.front_macs(height, width, n, masker),
            )
            for count in (patches_per_image if row.conditional else [0])
        ]
        return sum(costs) / len(costs)

    def detector(self, row: Row, height: int, width: int) -> int:
        """MACs that the row's detector executes for an image of height x width."""
        method, size = row.method, row.method.input_size(height, width)
        macs = self._once((method.detector, size), lambda: count_macs_at(method.detector, *size))
        return method.detector_inputs(height, width) * macs

    def _once(self, key: tuple, count: Callable[[], int]) -> int:
        if key not in self.known:
            self.known[key] = count()
        return self.known[key]
