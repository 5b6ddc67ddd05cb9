"""The system whose time is measured: that of a checkpoint, or the untrained one that a stage-3 YAML describes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from configs.stage3_schema import Stage3Config
from data.detection import load_data_spec
from loading.systems import build_system, load_system, with_halo
from models.system import ConditionalSRDetector
from utils.config import load_config


def system_to_measure(
    weights: str | None, config: str | None, halo: int | Literal["exact"] | None = None
) -> ConditionalSRDetector:
    """The system of a stage-3 checkpoint, or the one that a stage-3 YAML describes, its weights left out.

    Args:
        weights: checkpoint, or None.
        config: YAML, where `weights` is None.
        halo: other than that of the system, see `with_halo`.

    Raises:
        ValueError, OSError, CheckpointError: naming what is wrong with the file.
    """
    system = load_system(weights) if weights is not None else _untrained(config)
    return with_halo(weights or config, system, halo)


def _untrained(config: str) -> ConditionalSRDetector:
    stage3 = load_config(Stage3Config, config)
    if not Path(stage3.data.yaml).is_file():
        raise FileNotFoundError(f"{config}: data.yaml: {stage3.data.yaml!r} does not exist; give the data set's YAML")
    untrained = {key: replace(getattr(stage3, key), weights=None) for key in ("sr_fast", "sr_quality", "detector")}
    return build_system(replace(stage3, **untrained), load_data_spec(stage3.data.yaml).names).eval()
