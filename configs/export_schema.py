"""Every key of export.py, typed; see configs/schema.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from configs.bounds import NonNegativeInt, PositiveInt, Range


@dataclass(frozen=True)
class ExportConfig:
    """Write trained modules as files that run without this project.

    Args:
        weights: stage-3 checkpoint (the whole call as one graph), SR network (file, name of a shipped one such as
            edsr_8x32, or of a network), or detector (Ultralytics .pt, state dict, stage-1 checkpoint).
        detector: instead of `weights`: a deployed detector, behind `sr`, without any training.
        sr: before `detector`: shipped, FAST,QUALITY, or one network; see inference.py.
        detector_model: model YAML of a state dict as `detector`; null recognises it.
        scale: factor of SR networks by name, or before `detector`; null takes 4.
        include: formats: onnx, openvino, torchscript, executorch, engine.
        policy: which patches get SR_Quality, fixed in the file: budget=R, all_fast or all_quality; null: budget=0.25,
            or all_fast where no masker was trained.
        halo: LR pixels of neighbours around SR_Quality's patches, exact: the receptive field; null takes that of the
            checkpoint.
        imgsz: height and width of the input, or one number for both; null: 640 of a detector's input.
        batch: images per call.
        dynamic: leave batch, height and width open.
        half: weights in 16 bit, see docs/export.md.
        int8: an SR network or a detector in 8-bit integers, as onnx or openvino, calibrated on `data`.
        data: folder of images like those that will be seen (LR for an SR network), for int8; some dozens do.
        check: compare every file with PyTorch, at ten shapes where sizes are open.
        out: folder of the files; null: beside `weights`, or runs/export for names.
        name: stem of the files; null: that of the weights.
    """

    weights: str = ""
    detector: str | None = None
    sr: str = "shipped"
    detector_model: str | None = None
    scale: Annotated[int, Range(2, 4)] | None = None
    include: list[str] = field(default_factory=lambda: ["onnx"])
    policy: str | None = None
    halo: NonNegativeInt | Literal["exact"] | None = None
    imgsz: list[PositiveInt] | PositiveInt | None = None
    batch: PositiveInt = 1
    dynamic: bool = True
    half: bool = False
    int8: bool = False
    data: str | None = None
    check: bool = True
    out: str | None = None
    name: str | None = None
