"""Lowest and highest value of the keys of configs/schema.py, by dotted name or by its end; None means no bound."""

from __future__ import annotations

LIMITS: dict[str, tuple[float | None, float | None]] = {
    "run.seed": (0, None),
    "threads": (0, None),
    "run.workers": (0, None),
    "run.checkpoint_every": (1, None),
    "run.log_every": (1, None),
    "augment.mosaic": (0, 1),
    "augment.flip_lr": (0, 1),
    "augment.flip_ud": (0, 1),
    "augment.scale": (0, 0.9),
    "augment.translate": (0, 1),
    "augment.close_mosaic": (0, None),
    "scale": (2, 4),
    "patch": (1, None),
    "masker.patch": (4, 64),
    "samples_per_epoch": (1, None),
    "max_pixels": (1, None),
    "epochs": (1, None),
    "batch": (1, None),
    "micro_batch": (0, None),
    "lr": (0, 1),
    "lr_low": (0, 1),
    "lr_sr": (0, 1),
    "lr_masker": (0, 1),
    "lr_final": (0, 1),
    "warmup": (0, None),
    "warmup_epochs": (0, None),
    "weight_decay": (0, None),
    "clip_norm": (0, None),
    "ema": (0, 0.99999),
    "patience": (0, None),
    "val_every": (1, None),
    "val_images": (0, None),
    "channels": (1, 1024),
    "halo": (0, None),
    "losses.det": (0, None),
    "losses.sparse": (0, None),
    "losses.smooth": (0, None),
    "losses.rec": (0, None),
    "losses.target": (0.01, 0.99),
    "losses.ramp": (0, 1),
    "losses.latency_ms": (0.001, None),
    "memory_mb": (16, None),
    "gumbel.start": (0.01, 100),
    "gumbel.end": (0.01, 100),
    "conf": (0, 1),
    "iou": (0, 1),
    "max_det": (1, None),
    "limit": (0, None),
    "timing_runs": (0, None),
    "overlays": (0, None),
}


def bounds(name: str) -> tuple[float | None, float | None]:
    """Bounds of a key by its dotted name: the longest entry of LIMITS that the name ends in."""
    parts = name.split(".")
    endings = (".".join(parts[start:]) for start in range(len(parts)))
    return next((LIMITS[ending] for ending in endings if ending in LIMITS), (None, None))
