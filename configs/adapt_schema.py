"""Every key of adapt.py, typed; see configs/schema.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from configs.bounds import NonNegativeInt, PositiveFloat, PositiveInt, Range, UnitInterval
from configs.schema import NetworkConfig, RunConfig


@dataclass(frozen=True)
class AdaptConfig:
    """What super-resolution brings a deployed detector on your pictures, and a front end trained for it without labels.

    Args:
        run: where and how to run; `out` receives deploy.pth, report.md and report.json.
        detector: deployed detector: Ultralytics .pt, state dict, or stage-1 checkpoint; it stays as it is.
        detector_model: model YAML of a state dict as `detector`; null recognises it.
        images: folder of HR pictures, without labels.
        data: data-set YAML for mAP on real labels beside: its val split is held out; without `images` its train split
            trains, whose labels are not looked at.
        imgsz: side of the detector's input in pixels, or [height, width], to which the HR pictures are brought; LR
            pictures have imgsz / scale.
        scale: super-resolution factor.
        holdout: share of the pictures that are not trained on but measured.
        sure: score from which a box in an HR picture is one that must be found in the LR picture.
        steps: optimiser steps of the training, rounded up to whole epochs; 0 only measures.
        batch: pictures per step.
        lr: learning rate of the SR networks; 4e-4 is faster on small detectors, and diverged on YOLO11n.
        lr_masker: learning rate of the masker.
        target: kept share of the masker's own decision.
        flip_lr: probability of mirroring a training picture left-right; 0 where that changes the class (text, arrows).
        sr_fast: light network, measured as it is and the start of the training.
        sr_quality: strong network, likewise.
        resamples: draws of the held-out pictures for the intervals.
        timing_runs: timed calls per row (batch 1, rows interleaved), 0 skips timing.
        on_bad_image: damaged pictures are counted and skipped, or stop the run.
        max_pixels: pictures with more pixels than this are refused before decoding.
    """

    run: RunConfig = field(default_factory=lambda: RunConfig(out="runs/adapt"))
    detector: str = ""
    detector_model: str | None = None
    images: str = ""
    data: str | None = None
    imgsz: PositiveInt | list[PositiveInt] = 640
    scale: Annotated[int, Range(2, 4)] = 4
    holdout: Annotated[float, Range(0, 0.9, open_low=True)] = 0.25
    sure: Annotated[float, Range(0.01, 0.99)] = 0.25
    steps: NonNegativeInt = 600
    batch: PositiveInt = 4
    lr: PositiveFloat = 1e-4
    lr_masker: PositiveFloat = 1e-3
    target: Annotated[float, Range(0.01, 0.99)] = 0.25
    flip_lr: UnitInterval = 0.5
    sr_fast: NetworkConfig = field(
        default_factory=lambda: NetworkConfig("edsr", {"n_blocks": 2, "n_feats": 16, "tail": "single"}, "shipped")
    )
    sr_quality: NetworkConfig = field(
        default_factory=lambda: NetworkConfig("edsr", {"n_blocks": 8, "n_feats": 32, "tail": "single"}, "shipped")
    )
    resamples: Annotated[int, Range(20, 10_000)] = 300
    timing_runs: NonNegativeInt = 10
    on_bad_image: Literal["skip", "error"] = "skip"
    max_pixels: PositiveInt = 100_000_000
