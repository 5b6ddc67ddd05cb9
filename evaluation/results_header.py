"""Everything of an evaluation's results.json besides its rows: what was measured, on what, by which command."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import torch

from configs.evaluate_schema import EvaluateConfig
from data.degradation import LR_PROTOCOLS
from deployment.cuda_graphs import warmup_rounds
from evaluation.measure_rows import SHOWN_CONF, TIMED_IMAGES, WARMUP
from utils.config import config_to_dict
from utils.logger import cpu_name, environment


def results_header(
    config: EvaluateConfig, argv: list[str], images: int, canvas: tuple[int, int], device: torch.device
) -> dict:
    """JSON types only.

    Args:
        config: resolved.
        argv: options that evaluate.py was called with.
        images: how many were evaluated.
        canvas: (H, W) of the HR canvas in pixels.
        device: where it ran.
    """
    machine = environment()
    return {
        "dataset": data_set_name(Path(config.data.yaml)),
        "split": config.split,
        "scale": config.data.scale,
        "lr_protocol": LR_PROTOCOLS[config.data.lr],
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "dtype": config.run.precision,
        "threads": torch.get_num_threads(),
        "versions": machine["versions"],
        "images": images,
        "canvas": list(canvas),
        "seed": config.run.seed,
        "date": machine["date"],
        "command": shlex.join(["python", "evaluate.py", *argv]),
        "git": machine["git"],
        "timing": {
            "batch": 1,
            "images": min(TIMED_IMAGES, images),
            "rounds": config.timing_runs,
            "warmup": warmup_rounds(min(TIMED_IMAGES, images), device, WARMUP),
            "conf": SHOWN_CONF,
            "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "includes": "LR tensor in memory to boxes after non-maximum suppression, rows interleaved",
        },
        "config": config_to_dict(config),
    }


def data_set_name(yaml: Path) -> str:
    """The YAML's own name, or that of the nearest folder above it which says more than `data`."""
    yaml = yaml.resolve()
    names = [yaml.stem, *(folder.name for folder in yaml.parents)]
    return next((name for name in names if name.lower() not in ("data", "dataset", "datasets", "")), yaml.stem)
