"""Whether a stage has written its result already."""

from __future__ import annotations

from pathlib import Path

from utils.checkpoint import load_network


def is_finished(output: Path, epochs: int) -> bool:
    """Whether the result is there, of at least so many epochs; a run that is resumed with more of them goes on.

    Raises:
        CheckpointError: the file is damaged.
    """
    return output.exists() and load_network(output)["meta"].get("epochs", epochs) >= epochs
