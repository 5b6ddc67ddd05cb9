"""A training in phases, each of which may need numbers of the earlier ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from training.trainer import Trainer


def fit_phases(phases: Sequence[Callable[[dict[str, Any]], Trainer]]) -> dict[str, Any]:
    """Train phase after phase; each goes on where it was interrupted, and knows the numbers of those before it.

    Args:
        phases: numbers of the earlier phases -> trainer with a folder of its own, made when its turn comes.

    Returns:
        The numbers of all phases.
    """
    numbers: dict[str, Any] = {}
    for make in phases:
        trainer = make(numbers)
        trainer.log.resume_from(trainer.restore())
        numbers = numbers | trainer.fit()
    return numbers
