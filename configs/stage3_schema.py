"""Every key of stage 3, typed; see configs/schema.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from configs.bounds import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Range, UnitInterval
from configs.schema import AugmentConfig, DetectionDataConfig, DetectorConfig, NetworkConfig, OptimConfig, RunConfig


@dataclass(frozen=True)
class MaskerConfig:
    """The network that decides patch by patch.

    Args:
        patch: side of a patch in LR pixels; auto: 32, or less for small LR images.
        channels: width of its convolutions.
        bias: initial logit in favour of SR_Quality.
        halo: LR pixels of real neighbours that SR_Quality sees around a patch; auto: the least that costs at most about
            0.02 dB; null: full receptive field (exact).
        shared_stem: the masker sees the features that SR_Fast makes of the image, instead of the image; the layers that
            make them then learn from both; when executed they are computed twice. For espcn and fsrcnn.
        train: dense (SR_Quality sees whole images) or tiles (it is trained as it is executed, with this halo).
        budget_dropout: [lowest, highest] kept share: every training image gets one drawn from between, and keeps its
            best patches up to it, so that one model serves every budget (the sparsity loss still sets the share of the
            masker's own decision). null: the masker decides patch by patch. Shares are of the patches that hold image.
    """

    patch: Annotated[int, Range(4, 64)] | Literal["auto"] = 16
    channels: Annotated[int, Range(1, 1024)] = 16
    bias: Annotated[float, Range(-20, 20)] = 1.0
    halo: NonNegativeInt | Literal["auto"] | None = "auto"
    shared_stem: bool = False
    train: Literal["dense", "tiles"] = "dense"
    budget_dropout: list[UnitInterval] | None = None


@dataclass(frozen=True)
class LossConfig:
    """Weights of the stage-3 loss.

    Args:
        det: detection loss; 0 looks at no labels at all.
        sparse: sparsity loss.
        sparsity: mean (mean mask), flops ((F/F_full - target)^2, LAUDNet) or latency (the same with milliseconds).
        target: target of the kept share, of the patches that hold image, for `sparsity: flops`.
        latency_ms: target of the milliseconds from LR image to boxes, for `sparsity: latency`.
        profile: JSON file of `python -m tools.latency --config ...`, for `sparsity: latency`.
        ramp: share of the training over which the target moves from 0.5 to `target`; both states of a patch are seen.
        smooth: total variation of the mask probabilities.
        objects: listwise cross-entropy between the masker's scores and the number of objects in each patch: boxes of
            labelled images, and what the teacher finds in the HR image of the others (needs `distill` or
            `distill_outputs`); says which patches, not how many.
        rec: L1 between SR and HR image without the padding of the canvas; needs HR images.
        distill: relative L1 between the detector's neck features and the teacher's on the HR image; needs no labels.
        distill_outputs: distance of the detector's class scores and boxes from the teacher's on the HR image; needs no
            labels.
        teacher: checkpoint of the teacher, of stage 1 or of a stage 3 with `sr: hr`; null: the detector as it was when
            training began.
        hr_share: share of the optimiser steps in which the detector sees and learns from the HR images instead.
        alternate: masker and SR networks learn in every second step, the detector in the others, in the manner of
            SR4IR; each then makes half of the updates. false: all learn in every step.
    """

    det: NonNegativeFloat = 1.0
    sparse: NonNegativeFloat = 10.0
    sparsity: Literal["mean", "flops", "latency"] = "flops"
    target: Annotated[float, Range(0.01, 0.99)] = 0.25
    latency_ms: PositiveFloat | None = None
    profile: str | None = None
    ramp: UnitInterval = 0.4
    smooth: NonNegativeFloat = 0.01
    objects: NonNegativeFloat = 1.0
    rec: NonNegativeFloat = 0.0
    distill: NonNegativeFloat = 0.0
    distill_outputs: NonNegativeFloat = 0.0
    teacher: str | None = None
    hr_share: Annotated[float, Range(0, 0.9)] = 0.0
    alternate: bool = False


@dataclass(frozen=True)
class GumbelConfig:
    """Temperature of the Gumbel-Softmax, exponential per optimiser step.

    Args:
        start: temperature at the first step.
        end: temperature at the last step.
    """

    start: Annotated[float, Range(0.01, 100)] = 5.0
    end: Annotated[float, Range(0.01, 100)] = 0.1


@dataclass(frozen=True)
class WarmUpConfig:
    """What comes first in the same run: the front end learns without labels through the detector as it is, which shall
    see in SR images what it sees in HR images. What is not named here is as in the run itself.

    Args:
        epochs: of the whole front end; 0: no warm-up.
        quality_epochs: of SR_Quality alone and everywhere, before; masker and SR_Fast then learn beside it, and it
            stays as it is. 0: all three learn together.
        batch: images per optimiser step.
        lr: learning rate of the SR networks.
        lr_masker: learning rate of the masker.
        distill: weight as losses.distill.
        distill_outputs: weight as losses.distill_outputs.
    """

    epochs: NonNegativeInt = 0
    quality_epochs: NonNegativeInt = 0
    batch: PositiveInt = 4
    lr: UnitInterval = 4e-4
    lr_masker: UnitInterval = 3e-3
    distill: NonNegativeFloat = 1.0
    distill_outputs: NonNegativeFloat = 0.5


@dataclass(frozen=True)
class SlicesConfig:
    """Slices of the LR image that the detector is trained on, for sliced inference; a single one is the whole image.

    Args:
        rows: slices from top to bottom.
        columns: slices from left to right.
        overlap: share of a slice's side that inference gives it in common with its neighbour; it sets their size.
        full: also the whole image.
    """

    rows: Annotated[int, Range(1, 16)] = 1
    columns: Annotated[int, Range(1, 16)] = 1
    overlap: Annotated[float, Range(0, 0.9)] = 0.2
    full: bool = True


@dataclass(frozen=True)
class Stage3Config:
    """Stage 3: joint fine-tuning of masker, SR networks and detector.

    Args:
        run: where and how to run.
        data: data set.
        mode: joint; frozen_detector (SR and masker learn through it); detector_only (the retrained baseline).
        sr: what feeds the detector: conditional, or one network everywhere; hr trains it on the HR images themselves,
            the upper bound of `mode: detector_only`.
        upscale: size of the detector's input beyond imgsz: with 1.5 SR images (or bicubic ones) are enlarged by bicubic
            interpolation, and filled up with grey to what the detector takes, in training and afterwards.
        slices: what the detector of `mode: detector_only` with `sr: bicubic` sees of each image instead of the whole.
        masker: the network that decides.
        sr_fast: light network, with the weights of stage 2.
        sr_quality: strong network, with the weights of stage 2.
        start: stage-3 checkpoint whose masker and SR networks are the start instead (a warm-up without labels, see
            configs/stage3_warm_up.yaml); the detector is that of `detector.weights` all the same, and masker.bias does
            not apply.
        warm_up: a warm-up as the first phases of this run, instead of `start`.
        freeze: parts of a conditional front end that stay as they are.
        detector: detector, with the weights of stage 1.
        optim: optimiser.
        losses: weights of the loss terms.
        gumbel: temperature schedule.
        augment: image augmentation.
        freeze_bn: keep the detector's BatchNorm statistics as they are.
        val_every: epochs between validations.
        val_images: validation images drawn into TensorBoard.
    """

    run: RunConfig = field(default_factory=lambda: RunConfig(out="runs/stage3"))
    data: DetectionDataConfig = field(default_factory=DetectionDataConfig)
    mode: Literal["joint", "frozen_detector", "detector_only"] = "joint"
    sr: Literal["conditional", "bicubic", "sr_fast", "sr_quality", "hr"] = "conditional"
    upscale: Annotated[float, Range(1, 4)] = 1.0
    slices: SlicesConfig = field(default_factory=SlicesConfig)
    masker: MaskerConfig = field(default_factory=MaskerConfig)
    sr_fast: NetworkConfig = field(
        default_factory=lambda: NetworkConfig("edsr", {"n_blocks": 2, "n_feats": 16, "tail": "single"})
    )
    sr_quality: NetworkConfig = field(
        default_factory=lambda: NetworkConfig("edsr", {"n_blocks": 8, "n_feats": 32, "tail": "single"})
    )
    start: str | None = None
    warm_up: WarmUpConfig = field(default_factory=WarmUpConfig)
    freeze: list[Literal["masker", "sr_fast", "sr_quality"]] = field(default_factory=list)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(epochs=30, lr_masker=1e-3, weight_decay=5e-4, ema=0.999)
    )
    losses: LossConfig = field(default_factory=LossConfig)
    gumbel: GumbelConfig = field(default_factory=GumbelConfig)
    augment: AugmentConfig = field(default_factory=lambda: AugmentConfig(scale=0.25, translate=0.1, hsv_v=0.2))
    freeze_bn: bool = True
    val_every: PositiveInt = 1
    val_images: NonNegativeInt = 4
