"""Every key of the comparison table, evaluate.py, typed; see configs/schema.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from configs.bounds import NonNegativeInt, PositiveFloat, PositiveInt, Range, UnitInterval
from configs.schema import DetectionDataConfig, RunConfig


@dataclass(frozen=True)
class SlicedConfig:
    """Sliced inference (SAHI, arXiv 2202.06934): overlapping slices of the LR canvas, each enlarged to the HR canvas.

    Args:
        weights: checkpoint whose detector is used: of stage 1, or of stage 3 in mode detector_only.
        rows: slices from top to bottom.
        columns: slices from left to right.
        overlap: share of a slice's side that it has in common with its neighbour, at least.
        full: also show the whole image to the detector.
        match: overlap of two boxes of a class in the merged result: ios (intersection over the smaller box, the default
            of the sahi package) or iou.
        match_threshold: overlap above which the weaker box is dropped; 0.5 is the default of the sahi package.
        library: sahi cuts, calls and merges by that package's get_sliced_prediction (GREEDYNMM, its default) instead of
            all slices in one call; needs requirements-integrations.txt.
    """

    weights: str = ""
    rows: Annotated[int, Range(1, 16)] = 2
    columns: Annotated[int, Range(1, 16)] = 2
    overlap: Annotated[float, Range(0, 0.9)] = 0.2
    full: bool = True
    match: Literal["ios", "iou"] = "ios"
    match_threshold: UnitInterval = 0.5
    library: Literal["sahi"] | None = None


@dataclass(frozen=True)
class RecordConfig:
    """What a row is, in the fields of results.json, from which its name in the table is made.

    Args:
        system: what makes the detector's input: bicubic, sr_fast, conditional, ...; empty takes the row's own name.
        family: frozen (the detector stays as deployed) or retrained; null says nothing.
        recipe: how its networks learned: tuned, unlabelled, distilled, ...
        upscale: size of the detector's input beyond `data.scale` times the LR image.
    """

    system: str = ""
    family: Literal["frozen", "retrained"] | None = None
    recipe: str | None = None
    upscale: PositiveFloat = 1.0


@dataclass(frozen=True)
class EvaluateConfig:
    """The comparison table: detection quality against measured milliseconds.

    Args:
        run: where and how to run; `out` receives results.json, table.md, table.csv and pictures.
        data: data set.
        split: which split to evaluate.
        system: stage-3 checkpoint (conditional_sr_yolo_jointly_tuned.pth) of the rows conditional_*; may be left out
            where `detector`, `systems`, `detectors` or `sliced` name any.
        detector: detector of the rows hr, lr, bicubic, bicubic_2x (bicubic images of twice the size), sr_fast and
            sr_quality, whose names no other row may have: stage-1 checkpoint, Ultralytics .pt, or state dict.
        detector_model: model YAML of a state dict as `detector`; null recognises it.
        baselines: which of these rows to measure, of bicubic_1.5x too.
        sr_fast: weights of the row sr_fast: of stage 2, or `shipped` for the project's own of the same network; null
            takes the network of `system`, and without one the shipped one that stage 3 starts from.
        sr_quality: likewise, of the row sr_quality.
        systems: name -> stage-3 checkpoint. With a masker it gives the rows that `system` gives, NAME_* instead of
            conditional_*; else one row NAME.
        detectors: name -> file of a detector that sees HR images: as `detector`, or of stage 3 with `sr: hr`.
        sliced: name -> sliced inference; keys weights, rows, columns, overlap, full, match, match_threshold
            and library.
        retrained: name -> checkpoint of further stage-3 runs, one row each (for instance bicubic_retrained).
        records: name in systems, detectors, sliced or retrained -> what the row is, for programs that read
            results.json; keys system, family, recipe and upscale. Without, the name is that of the system.
        halo: LR pixels of neighbours around the patches of all systems with a masker, exact: the receptive field; null
            takes that of each checkpoint.
        budgets: kept shares of the rows conditional_budget_*, conditional_random_*, conditional_edge_* and
            conditional_oracle_* (patches with the largest share of ground-truth boxes first). Kept shares, here and in
            the results, are of the patches that hold image; what lies in the padding alone does not count.
        profile: latency profile of `system` on this device, for `latencies`; also for those of `systems` that it fits.
        latencies: milliseconds of the rows conditional_latency_*, detector included.
        batch: images per call when measuring quality.
        conf: lowest score of a detection that counts.
        iou: overlap above which non-maximum suppression drops a box.
        max_det: most detections per image.
        limit: evaluate only the first images, 0 takes all.
        timing_runs: timed calls per row (batch 1, rows interleaved), 0 skips timing.
        overlays: images drawn with mask and boxes, for every system with a masker.
        save_detections: write detections.json: ground truth and, of every row, all boxes that its mAP counts (the 100
            best of an image and class), as COCO.
        backend: what computes on CPUs: PyTorch with native kernels where these are faster here, torch alone, openvino,
            or auto, the fastest here; with torch and openvino figures repeat exactly.
    """

    run: RunConfig = field(default_factory=lambda: RunConfig(out="runs/evaluate"))
    data: DetectionDataConfig = field(default_factory=DetectionDataConfig)
    split: Literal["train", "val", "test"] = "val"
    system: str = ""
    detector: str = ""
    detector_model: str | None = None
    baselines: list[Literal["hr", "lr", "bicubic", "bicubic_1.5x", "bicubic_2x", "sr_fast", "sr_quality"]] = field(
        default_factory=lambda: ["hr", "lr", "bicubic", "bicubic_2x", "sr_fast", "sr_quality"]
    )
    sr_fast: str | None = None
    sr_quality: str | None = None
    systems: dict[str, str] = field(default_factory=dict)
    detectors: dict[str, str] = field(default_factory=dict)
    sliced: dict[str, SlicedConfig] = field(default_factory=dict)
    retrained: dict[str, str] = field(default_factory=dict)
    records: dict[str, RecordConfig] = field(default_factory=dict)
    halo: NonNegativeInt | Literal["exact"] | None = None
    budgets: list[UnitInterval] = field(default_factory=lambda: [0.1, 0.25, 0.5])
    profile: str | None = None
    latencies: list[PositiveFloat] = field(default_factory=list)
    batch: PositiveInt = 8
    conf: UnitInterval = 0.001
    iou: UnitInterval = 0.7
    max_det: PositiveInt = 300
    limit: NonNegativeInt = 0
    timing_runs: NonNegativeInt = 20
    overlays: NonNegativeInt = 8
    save_detections: bool = False
    backend: Literal["native", "torch", "openvino", "auto"] = "native"
