"""Keys about super-resolution alone: training images, how LR comes about, losses, the comparison of networks.

A part of configs/schema.py in a file of its own, and as free of torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from configs.bounds import NonNegativeFloat, NonNegativeInt, PositiveInt, Range, UnitInterval


@dataclass(frozen=True)
class DegradationStageConfig:
    """One round of blur, resizing, noise and JPEG; ranges are [lowest, highest], drawn uniformly.

    Args:
        blur: probability of blurring.
        kernel: sides of the blur kernels in pixels, rounded up to odd numbers.
        kinds: weights of Gaussian, generalised and plateau kernels: isotropic, anisotropic of each.
        sinc: probability that a blur is a sinc filter, which rings, instead of one of `kinds`.
        sigma: standard deviations of the kernels along their axes, in pixels.
        generalised: shape exponents of generalised Gaussian kernels.
        plateau: shape exponents of plateau-shaped kernels.
        resize: weights of enlarging, shrinking and keeping the size.
        resize_factor: range of that factor, relative to HR in the first round and to LR in the second.
        gaussian: probability that noise is Gaussian, otherwise Poisson.
        noise: standard deviations of Gaussian noise in 8-bit levels.
        poisson: factors of Poisson noise.
        grey: probability that noise is the same in all channels.
        jpeg: JPEG qualities.
    """

    blur: UnitInterval = 1.0
    kernel: list[Annotated[int, Range(1, 51)]] = field(default_factory=lambda: [7, 21])
    kinds: list[NonNegativeFloat] = field(default_factory=lambda: [0.45, 0.25, 0.12, 0.03, 0.12, 0.03])
    sinc: UnitInterval = 0.1
    sigma: list[Annotated[float, Range(0.05, 20)]] = field(default_factory=lambda: [0.2, 3.0])
    generalised: list[Annotated[float, Range(0.1, 10)]] = field(default_factory=lambda: [0.5, 4.0])
    plateau: list[Annotated[float, Range(0.1, 10)]] = field(default_factory=lambda: [1.0, 2.0])
    resize: list[NonNegativeFloat] = field(default_factory=lambda: [0.2, 0.7, 0.1])
    resize_factor: list[Annotated[float, Range(0.05, 4)]] = field(default_factory=lambda: [0.15, 1.5])
    gaussian: UnitInterval = 0.5
    noise: list[Annotated[float, Range(0, 255)]] = field(default_factory=lambda: [1.0, 30.0])
    poisson: list[Annotated[float, Range(0, 20)]] = field(default_factory=lambda: [0.05, 3.0])
    grey: UnitInterval = 0.4
    jpeg: list[Annotated[float, Range(1, 100)]] = field(default_factory=lambda: [30.0, 95.0])


@dataclass(frozen=True)
class DegradationConfig:
    """How LR training patches come from HR ones, where `lr_train` names none.

    Args:
        kind: bicubic, or realesrgan (two rounds of blur, resizing, noise and JPEG, arXiv:2107.10833, on the device).
        first: first round of realesrgan.
        second: second round of realesrgan.
        second_order: probability that a batch has the second round at all.
        final_sinc: probability of a sinc filter at the end of realesrgan.
        sharpen: unsharp masking of HR first; what is learnt is the sharpened image.
        shrink: factor by which realesrgan shrinks HR; bicubic interpolation then makes the LR size of it. 0: it shrinks
            to the LR size itself. For restoration without enlarging (scale 1) 4 is usual.
        pool: pairs held back, so that a batch mixes differently resized ones (queue_size of Real-ESRGAN); 0: off.
    """

    kind: Literal["bicubic", "realesrgan"] = "bicubic"
    first: DegradationStageConfig = field(default_factory=DegradationStageConfig)
    second: DegradationStageConfig = field(
        default_factory=lambda: DegradationStageConfig(
            blur=0.8,
            sigma=[0.2, 1.5],
            resize=[0.3, 0.4, 0.3],
            resize_factor=[0.3, 1.2],
            noise=[1.0, 25.0],
            poisson=[0.05, 2.5],
        )
    )
    second_order: UnitInterval = 1.0
    final_sinc: UnitInterval = 0.8
    sharpen: bool = False
    shrink: Annotated[float, Range(0, 30)] = 0.0
    pool: Annotated[int, Range(0, 10_000)] = 180


@dataclass(frozen=True)
class SRDataConfig:
    """HR photographs for SR training and benchmark folders for validation.

    Args:
        train: folders of HR images, searched recursively (or prepared sub-images, see data/prepare_sr_data.py).
        lr_train: folders of LR images of the same names, one per train folder; empty makes LR by `degradation`.
        val: folders of HR images, or folders with HR/ and LR_bicubic/X{scale}/ inside (Set5 style).
        lr_val: folders of LR images of the same names, one per val folder; empty takes those inside, or makes them.
        val_scales: factors to validate arbitrary-scale networks at; empty takes `scale`.
        patch: side of the LR training patch in pixels.
        hr_patch: side of the HR training patch in pixels, for arbitrary-scale networks: LR has hr_patch / factor,
            rounded down. 0: LR has `patch`, HR follows.
        scales: [lowest, highest] factor, drawn per micro-batch, for arbitrary-scale networks; empty takes `scale`.
        samples_per_epoch: training patches per epoch.
        symmetries: a patch is shown in one of the eight symmetries of the square, or only mirrored left-right or not.
        degradation: how LR patches come about.
        cache: decoded images stay nowhere, in memory, or as memory-mapped files on the disk.
        cache_folder: folder of `cache: disk`, may be shared by runs; null takes cache/ in the run folder.
        on_bad_image: training images that cannot be read are counted and skipped, or stop the run; in the validation
            folders one always does, before training begins.
        max_pixels: images with more pixels than this are refused before decoding.
    """

    train: list[str] = field(default_factory=list)
    lr_train: list[str] = field(default_factory=list)
    val: list[str] = field(default_factory=list)
    lr_val: list[str] = field(default_factory=list)
    val_scales: list[Annotated[float, Range(1, 30)]] = field(default_factory=list)
    patch: PositiveInt = 48
    hr_patch: NonNegativeInt = 0
    scales: list[Annotated[float, Range(1, 30)]] = field(default_factory=list)
    samples_per_epoch: PositiveInt = 16_000
    symmetries: Literal["all", "mirror"] = "all"
    degradation: DegradationConfig = field(default_factory=DegradationConfig)
    cache: Literal["none", "memory", "disk"] = "memory"
    cache_folder: str | None = None
    on_bad_image: Literal["skip", "error"] = "skip"
    max_pixels: PositiveInt = 100_000_000


@dataclass(frozen=True)
class SRLossConfig:
    """What stage 2 minimises.

    Args:
        pixel: mean absolute difference, or Charbonnier sqrt(d^2 + epsilon^2).
        epsilon: epsilon of Charbonnier, for images in [0, 1].
        perceptual: weight of the LPIPS distance that is added, 0 leaves it out.
        queries: HR pixels per patch at which lm_* networks are trained (l1), 0 renders whole patches.
        perceptual_weights: weight files of LPIPS: backbone (AlexNet or VGG16) and linear layers, or both in one.
    """

    pixel: Literal["l1", "charbonnier"] = "l1"
    epsilon: Annotated[float, Range(1e-8, 1)] = 1e-3
    perceptual: NonNegativeFloat = 0.0
    queries: NonNegativeInt = 2304
    perceptual_weights: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class EvaluateSRConfig:
    """Compare SR networks on benchmark folders: image quality, cost, milliseconds.

    Args:
        weights: checkpoint, or several as [a.pth, b.pth]; `bicubic` stands for interpolation.
        hr: folder of HR images, or several; HR/ and LR_bicubic/X{scale}/ may lie inside (Set5 style).
        lr: folder of LR images of the same names, one per HR folder; null makes LR by bicubic where none lie inside.
            Without `hr`: LR images alone, which give pictures and times, but no figures of quality.
        scale: factor, or several; fractional ones for arbitrary-scale networks.
        out: new folder for results.json, table.md, table.csv and comparison/.
        border: HR pixels left out on each side when comparing; null takes the scale, rounded up.
        self_ensemble: average over the eight symmetries of the image (takes eight times as long).
        tile: side in LR pixels of the tiles that an image is computed in, 0 computes it whole.
        tile_halo: LR pixels of neighbours around a tile; null: receptive field (exact), 32 where unknown.
        cmsr: tables (python -m tools.cmsr_tables), or several: their lm_* networks beyond x4 also in a row of CMSR.
        lpips: weight files of LPIPS: backbone (AlexNet or VGG16) and linear layers, or both in one; empty: none.
        fid: weight file of torch-fidelity's InceptionV3 for the FID of SR against HR images; null: none.
        seed: seed of the noise of stochastic networks.
        timing_runs: timed calls per network, batch 1, networks interleaved; 0 skips timing and memory.
        pictures: comparison pictures per folder and scale.
        limit: only the first images of each folder, 0 takes all.
        cache: decoded images stay nowhere, in memory, or as memory-mapped files on the disk.
        cache_folder: folder of `cache: disk`, may be shared by comparisons; null takes cache/ in `out`.
        device: auto picks CUDA when there is one.
        precision: autocast type of the networks.
        threads: CPU threads of PyTorch, 0 keeps PyTorch's own choice.
        max_pixels: images with more pixels than this are refused before decoding.
    """

    weights: str | list[str] = ""
    hr: str | list[str] = ""
    lr: str | list[str] | None = None
    scale: Annotated[float, Range(1, 30)] | list[Annotated[float, Range(1, 30)]] = 4.0
    out: str = "runs/evaluate_sr"
    border: NonNegativeInt | None = None
    self_ensemble: bool = False
    tile: NonNegativeInt = 0
    tile_halo: NonNegativeInt | None = None
    cmsr: str | list[str] | None = None
    lpips: list[str] = field(default_factory=list)
    fid: str | None = None
    seed: NonNegativeInt = 0
    timing_runs: NonNegativeInt = 10
    pictures: NonNegativeInt = 2
    limit: NonNegativeInt = 0
    cache: Literal["none", "memory", "disk"] = "none"
    cache_folder: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    threads: NonNegativeInt = 0
    max_pixels: PositiveInt = 100_000_000
