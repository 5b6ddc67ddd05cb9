"""Every key of the comparison and of the recipe study, typed, as configs/schema.py does it for the other scripts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from configs.bounds import NonNegativeFloat, NonNegativeInt, PositiveInt, Range, UnitInterval
from configs.evaluate_schema import SlicedConfig

Scalar = bool | int | float | str | list[int] | list[float] | None
Overrides = dict[str, dict[str, Scalar]]


@dataclass(frozen=True)
class MeasureConfig:
    """How every row is measured, see evaluate.py.

    Args:
        split: which split to evaluate.
        precision: type of the networks when measured.
        budgets: kept shares of the rows *_budget_*, *_random_*, *_edge_* and *_oracle_*, of the patches with image.
        halo: LR pixels of neighbours around patches, whatever the trainings name, see evaluate.py; null keeps that of
            the trainings.
        backend: what computes on CPUs, see evaluate.py; with torch and openvino figures repeat exactly.
        batch: images per call when measuring quality.
        timing_runs: timed calls per row, for the first seed with the largest label share only; 0 skips timing.
        overlays: images of the mask gallery.
        limit: evaluate only the first images, 0 takes all.
        failures: missed objects shown in the report.
    """

    split: Literal["train", "val", "test"] = "test"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    budgets: list[UnitInterval] = field(default_factory=lambda: [0.1, 0.25, 0.5])
    halo: NonNegativeInt | Literal["exact"] | None = None
    backend: Literal["native", "torch", "openvino", "auto"] = "native"
    batch: PositiveInt = 8
    timing_runs: NonNegativeInt = 20
    overlays: NonNegativeInt = 6
    limit: NonNegativeInt = 0
    failures: NonNegativeInt = 12


@dataclass(frozen=True)
class CompareConfig:
    """The whole comparison: trains what is missing, measures every row for every seed and label share, reports.

    Args:
        title: of the report; empty takes data set and scale.
        about: data, sizes and training in words, printed above the tables.
        out: folder of the report and of comparison.json, which says where everything lies.
        cache: folder of trainings and measurements, named by their content; several comparisons may share it.
        stage1: YAML of stage 1, the base of the detectors.
        stage3: YAML of stage 3, the base of all rows.
        data: data-set YAML; null keeps that of the base YAMLs.
        scale: super-resolution factor; null keeps that of `stage3`.
        sr_fast: weights of SR_Fast that stage 3 starts from, and of the row frozen/sr_fast.
        sr_quality: weights of SR_Quality that stage 3 starts from, and of the row frozen/sr_quality.
        seeds: one repetition of everything for each; a seed also draws which images keep their labels.
        label_shares: shares of the training images that have labels; the largest one makes the main tables.
        rows: rows to train and measure, with their family (frozen/conditional); empty takes all.
        repeat_rows: rows that the seeds after the first repeat, with those that they are compared with; empty repeats
            all. Other rows then have figures of one seed.
        sweep_seeds: seeds of the smaller label shares; null takes all `seeds`.
        sweep_rows: rows of the smaller label shares, with those that they are compared with; empty takes all.
        epochs: of stage 3, for every row that learns from labels; null keeps those of `stage3`.
        unlabelled_epochs: of the rows *_unlabelled, which learn from HR images alone; null takes `epochs`.
        masker_epochs: the rows conditional_unlabelled take SR_Quality from sr_quality_tuned_unlabelled and leave it as
            it is, so that only masker and SR_Fast learn, for so many epochs whatever `overrides` say; null: all three
            learn together.
        distill: weight losses.distill of the rows that match what the detector sees in HR images: *_distilled, and all
            trained ones of the frozen family.
        distill_outputs: weight losses.distill_outputs of the same rows.
        warm_up: those of them that have SR networks and labels start from a front end of their kind that was trained
            without labels (frozen/conditional_unlabelled, frozen/sr_quality_tuned_unlabelled, ...), through their own
            detector.
        shared_detector: the detector that all labels have trained is that of the first seed for all seeds; the
            spread is then that of stage 3.
        stage1_labels: what the detectors that the retrained family starts from have seen at smaller label shares: their
            share of the labels, or all of them (a detector is at hand, labels are few where it shall work).
        sweep_epochs: smaller label shares get more epochs in stage 3, as many as make up for the missing images, but at
            most so many times as many.
        sweep_unlabelled: families whose rows that match HR features keep, at smaller label shares, the images without
            labels for the terms that need none. An epoch of theirs then has all images, so `sweep_epochs` is for the
            other rows only; at the largest share over the smallest it lets all rows see as many images.
        jobs: trainings at a time; timed measurements always run alone.
        threads: CPU threads of each, 0 keeps PyTorch's own choice.
        device: auto picks CUDA when there is one.
        measure: how every row is measured.
        sliced: slices of the row retrained/sliced, whose `weights` the comparison sets.
        overrides: further keys of the base YAMLs (dotted names), for stage1, stage3, frozen, retrained or one row; what
            all rows of a family must share cannot be set for one row.
    """

    title: str = ""
    about: str = ""
    out: str = "runs/compare"
    cache: str = "runs/compare_cache"
    stage1: str = "configs/stage1_yolo_pretrain.yaml"
    stage3: str = "configs/stage3_joint_finetune.yaml"
    data: str | None = None
    scale: Annotated[int, Range(2, 4)] | None = None
    sr_fast: str = "weights/edsr_2x16_x4.safetensors"
    sr_quality: str = "weights/edsr_8x32_x4.safetensors"
    seeds: list[NonNegativeInt] = field(default_factory=lambda: [0, 1, 2])
    label_shares: list[Annotated[float, Range(0, 1, open_low=True)]] = field(default_factory=lambda: [1.0, 0.2, 0.05])
    rows: list[str] = field(default_factory=list)
    repeat_rows: list[str] = field(default_factory=list)
    sweep_seeds: list[NonNegativeInt] | None = None
    sweep_rows: list[str] = field(default_factory=list)
    epochs: PositiveInt | None = None
    unlabelled_epochs: PositiveInt | None = None
    masker_epochs: PositiveInt | None = None
    distill: NonNegativeFloat = 1.0
    distill_outputs: NonNegativeFloat = 0.5
    warm_up: bool = True
    shared_detector: bool = False
    stage1_labels: Literal["share", "all"] = "share"
    sweep_epochs: Annotated[float, Range(1)] = 1.0
    sweep_unlabelled: list[Literal["frozen", "retrained"]] = field(default_factory=list)
    jobs: PositiveInt = 1
    threads: NonNegativeInt = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    measure: MeasureConfig = field(default_factory=MeasureConfig)
    sliced: SlicedConfig = field(default_factory=SlicedConfig)
    overrides: Overrides = field(default_factory=dict)


@dataclass(frozen=True)
class AblationConfig:
    """A recipe study: variants of one row of a comparison, one number each, measured on the validation split.

    Args:
        comparison: YAML of the comparison that the row belongs to; its cache, jobs, threads and device are used.
        row: the row that is varied.
        out: folder of ablations.md and ablations.json.
        data: data-set YAML; null keeps that of the comparison.
        seeds: one repetition of every variant for each.
        label_share: share of the training images that have labels.
        metric: what stage 3 reports at its end, on the validation split.
        common: keys of stage 3 (dotted names) in which the study differs from the comparison, the unchanged row too;
            for instance fewer epochs.
        variants: name -> keys of stage 3 in which it differs from the row.
    """

    comparison: str = ""
    row: str = "retrained/conditional"
    out: str = "runs/ablations"
    data: str | None = None
    seeds: list[NonNegativeInt] = field(default_factory=lambda: [0])
    label_share: Annotated[float, Range(0, 1, open_low=True)] = 1.0
    metric: Literal["val/map50_95", "val/map50", "val/psnr", "val/kept_inside"] = "val/map50_95"
    common: dict[str, Scalar] = field(default_factory=dict)
    variants: Overrides = field(default_factory=dict)
