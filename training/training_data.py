"""What a training run trains on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch.utils.data import Dataset


@dataclass(frozen=True)
class TrainingData:
    """What to train on.

    Args:
        dataset: keyed by (epoch, index).
        collate: samples -> batch.
        workers: data-loading processes.
        mix: turns the stream of batches on the device into those to train on; needs `lead` batches more at its start.
    """

    dataset: Dataset
    collate: Callable
    workers: int = 0
    mix: Callable[[Iterator], Iterator] | None = None

    @property
    def lead(self) -> int:
        return 0 if self.mix is None else self.mix.lead
