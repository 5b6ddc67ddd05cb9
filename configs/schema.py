"""Every key of every YAML, typed: name, default, unit, meaning. `--help` prints these lines.

The scripts import this file before anything heavy, so it must stay free of torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from configs.bounds import NonNegativeFloat, NonNegativeInt, PositiveInt, Range, UnitInterval
from configs.generative_schema import DifIISRConfig, LDCSRConfig, OneStepConfig
from configs.sr_schema import SRDataConfig, SRLossConfig


@dataclass(frozen=True)
class RunConfig:
    """Where and how a run executes.

    Args:
        out: run folder; refused if it holds another run's results, unless `resume` is set.
        seed: seed of initial weights, sample order, augmentation and Gumbel noise.
        device: auto picks CUDA when there is one.
        precision: autocast type of the forward pass (fp16 uses a gradient scaler and needs CUDA).
        threads: CPU threads of PyTorch, 0 keeps PyTorch's own choice.
        workers: data-loading processes, 0 loads in the main process; never changes results.
        resume: continue from the newest good checkpoint in `out`; a finished run is left as it is, unless more epochs
            are asked for.
        checkpoint_every: optimiser steps between checkpoints, besides the one after every epoch.
        log_every: optimiser steps between TensorBoard and metrics.jsonl lines.
        deterministic: on CUDA take algorithms that repeat exactly, which are slower; where PyTorch has none, it warns.
            CPUs, and stage 1, repeat exactly anyway.
    """

    out: str = "runs/run"
    seed: NonNegativeInt = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    threads: NonNegativeInt = 0
    workers: NonNegativeInt = 2
    resume: bool = False
    checkpoint_every: PositiveInt = 200
    log_every: PositiveInt = 20
    deterministic: bool = False


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of a training image; each is a pure function of (seed, epoch, sample index).

    Args:
        mosaic: probability of joining four images into one.
        close_mosaic: epochs at the end that run without mosaic.
        scale: zoom drawn from [1 - scale, 1 + scale].
        translate: shift drawn from [-translate, translate], as a share of the canvas.
        flip_lr: probability of mirroring left-right.
        flip_ud: probability of mirroring up-down.
        hsv_h: largest hue change, as a share of the colour circle.
        hsv_s: largest relative change of saturation.
        hsv_v: largest relative change of brightness.
    """

    mosaic: UnitInterval = 0.0
    close_mosaic: NonNegativeInt = 0
    scale: Annotated[float, Range(0, 0.9)] = 0.0
    translate: UnitInterval = 0.0
    flip_lr: UnitInterval = 0.5
    flip_ud: UnitInterval = 0.0
    hsv_h: UnitInterval = 0.0
    hsv_s: UnitInterval = 0.0
    hsv_v: UnitInterval = 0.0


@dataclass(frozen=True)
class DetectionDataConfig:
    """A YOLO-format data set and how its low-resolution images come about.

    Args:
        yaml: Ultralytics data-set YAML (path, train, val, test, names), used unmodified.
        imgsz: HR canvas in pixels, one side or [height, width], each a multiple of `scale` and of the detector's stride
            (32 for most); LR canvas = imgsz / scale.
        scale: super-resolution factor.
        lr: bicubic (made from HR on the fly), folder (read from lr_folder) or native (the images are LR, no HR exists).
        lr_folder: folder that mirrors the image folders with LR copies, for `lr: folder`.
        on_bad_image: images whose header or end is damaged are counted and skipped, or stop the run.
        on_bad_label: faulty label lines stop the run, or their image is counted and skipped.
        max_pixels: images with more pixels than this are refused before decoding.
        label_share: share of the training images (at least one) whose labels are used; validation uses all of its own.
            An image with an empty label file, or without one, counts as labelled and without objects.
        label_seed: seed of the choice of these images; smaller shares are subsets of larger ones.
        unlabelled: what becomes of the other training images in stage 3. true: they stay, without labels, for the loss
            terms that need none; false: they are left out, as in stage 1.
    """

    yaml: str = ""
    imgsz: PositiveInt | list[PositiveInt] = 640
    scale: Annotated[int, Range(2, 4)] = 4
    lr: Literal["bicubic", "folder", "native"] = "bicubic"
    lr_folder: str | None = None
    on_bad_image: Literal["skip", "error"] = "skip"
    on_bad_label: Literal["error", "skip"] = "error"
    max_pixels: PositiveInt = 100_000_000
    label_share: Annotated[float, Range(0, 1, open_low=True)] = 1.0
    label_seed: NonNegativeInt = 0
    unlabelled: bool = False


@dataclass(frozen=True)
class NetworkConfig:
    """One SR network.

    Args:
        name: bicubic, espcn, fsrcnn, edsr, srresnet, carn, carn_m, imdn, rfdn, span, rcan, rdn, swinir_light or swinir;
            lm_liif, lm_lte, lm_ciaosr or lm_hybrid for any scale; difiisr_dwt (diffusion).
        args: keyword arguments of the network, besides scale.
        weights: checkpoint of stage 2, or of a stage 3 with this network alone (name and args must agree), published
            weights (they say what they are), or `shipped`: those of the project for this network and scale (folder
            weights/).
        init: without `weights`: checkpoint of this network for another scale. What agrees in name and shape is the
            start, as EDSR's authors train x3 and x4 from x2; the rest starts fresh.
    """

    name: str = "espcn"
    args: dict[str, bool | int | float | str] = field(default_factory=dict)
    weights: str | None = None
    init: str | None = None


@dataclass(frozen=True)
class DetectorConfig:
    """The Ultralytics detection model.

    Args:
        model: model YAML (yolo11n.yaml, yolov5nu.yaml, yolo26n.yaml, own file) or an Ultralytics .pt file.
        weights: checkpoint to start from: .pth of stage 1, .pt, or a plain state dict (matching keys only).
    """

    model: str = "yolo11n.yaml"
    weights: str | None = None


@dataclass(frozen=True)
class Stage1Config:
    """Stage 1: train the detector on high-resolution images with Ultralytics' trainer.

    Args:
        run: where and how to run.
        data: data set.
        detector: detection model.
        epochs: passes over the training images.
        batch: images per optimiser step.
        lr: initial learning rate (AdamW).
        warmup_epochs: epochs of learning-rate warm-up.
        patience: epochs without a better validation mAP before stopping, 0 never stops early.
        augment: image augmentation.
    """

    run: RunConfig = field(default_factory=lambda: RunConfig(out="runs/stage1"))
    data: DetectionDataConfig = field(default_factory=DetectionDataConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    epochs: PositiveInt = 100
    batch: PositiveInt = 16
    lr: UnitInterval = 1e-3
    warmup_epochs: NonNegativeFloat = 3.0
    patience: NonNegativeInt = 0
    augment: AugmentConfig = field(
        default_factory=lambda: AugmentConfig(
            mosaic=1.0, close_mosaic=10, scale=0.5, translate=0.1, hsv_h=0.015, hsv_s=0.7, hsv_v=0.4
        )
    )


@dataclass(frozen=True)
class OptimConfig:
    """Optimiser steps.

    Args:
        epochs: passes over the training set.
        batch: images per optimiser step, over all processes.
        micro_batch: images per forward pass; batch must be a multiple of micro_batch x processes. 0: batch / processes.
        lr: learning rate (stage 2), or the high learning rate (stage 3: masker, detector head, last SR layers).
        lr_low: low learning rate (stage 3: detector backbone, other SR layers).
        lr_sr: learning rate of the other SR layers (stage 3); null takes lr_low.
        lr_masker: learning rate of the masker; null takes lr.
        schedule: learning rate falls along a cosine to `lr_final`, or by steps at `milestones`.
        lr_final: learning rate at the end as a share of the start, for `schedule: cosine`.
        milestones: epochs after which the learning rate is multiplied by `gamma`, for `schedule: step`.
        gamma: factor at a milestone.
        warmup: optimiser steps of linear warm-up.
        weight_decay: decoupled weight decay of weight tensors with two or more dimensions.
        clip_norm: largest gradient norm, 0 switches clipping off.
        ema: decay of the exponential moving average of the weights, 0 switches it off.
    """

    epochs: PositiveInt = 10
    batch: PositiveInt = 16
    micro_batch: NonNegativeInt = 0
    lr: UnitInterval = 1e-4
    lr_low: UnitInterval = 1e-6
    lr_sr: UnitInterval | None = None
    lr_masker: UnitInterval | None = None
    schedule: Literal["cosine", "step"] = "cosine"
    lr_final: UnitInterval = 0.05
    milestones: list[PositiveInt] = field(default_factory=list)
    gamma: UnitInterval = 0.5
    warmup: NonNegativeInt = 100
    weight_decay: NonNegativeFloat = 0.0
    clip_norm: NonNegativeFloat = 10.0
    ema: Annotated[float, Range(0, 0.99999)] = 0.0


@dataclass(frozen=True)
class Stage2Config:
    """Stage 2: pre-train SR_Fast, then SR_Quality, on LR-HR pairs (Adam).

    Args:
        run: where and how to run.
        data: SR images.
        scale: super-resolution factor.
        sr_fast: light network.
        sr_quality: strong network.
        optim_fast: optimiser of SR_Fast.
        optim_quality: optimiser of SR_Quality.
        loss: what is minimised.
        ldcsr: how ldcsr is trained.
        difiisr_dwt: how difiisr_dwt is trained.
        one_step: how one_step_diffusion is trained.
        gradient_checkpointing: recompute blocks in the backward pass: less memory, about a third more time.
        val_every: epochs between validations.
        val_images: validation images of which each validation draws LR, SR and HR, as PNG files and into TensorBoard.
    """

    run: RunConfig = field(default_factory=lambda: RunConfig(out="runs/stage2"))
    data: SRDataConfig = field(default_factory=SRDataConfig)
    scale: Annotated[int, Range(1, 30)] = 4
    sr_fast: NetworkConfig = field(
        default_factory=lambda: NetworkConfig("edsr", {"n_blocks": 2, "n_feats": 16, "tail": "single"})
    )
    sr_quality: NetworkConfig = field(
        default_factory=lambda: NetworkConfig("edsr", {"n_blocks": 8, "n_feats": 32, "tail": "single"})
    )
    optim_fast: OptimConfig = field(default_factory=lambda: OptimConfig(epochs=50, lr=1e-3))
    optim_quality: OptimConfig = field(default_factory=lambda: OptimConfig(epochs=100, lr=2e-4))
    loss: SRLossConfig = field(default_factory=SRLossConfig)
    ldcsr: LDCSRConfig = field(default_factory=LDCSRConfig)
    difiisr_dwt: DifIISRConfig = field(default_factory=DifIISRConfig)
    one_step: OneStepConfig = field(default_factory=OneStepConfig)
    gradient_checkpointing: bool = False
    val_every: PositiveInt = 5
    val_images: NonNegativeInt = 2
