"""The result of a stage: whether it is written already, and its figures for the eye."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from utils.checkpoint import load_network


def finished_epochs(output: Path) -> int:
    """Epochs that a written result has; 0 where there is none, without end where it does not say.

    Raises:
        CheckpointError: the file is damaged.
    """
    return load_network(output)["meta"].get("epochs", sys.maxsize) if output.exists() else 0


def is_finished(output: Path, epochs: int) -> bool:
    """Whether the result is there, of at least so many epochs; a run that is resumed with more of them goes on.

    Raises:
        CheckpointError: the file is damaged.
    """
    return finished_epochs(output) >= epochs


def in_words(metrics: Mapping[str, float | None]) -> str:
    """One line for the eye, "map50_95 0.312  psnr 28.1"; what could not be measured (None) is left out."""
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items() if value is not None)
