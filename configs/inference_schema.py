"""Every key of inference.py, typed; see configs/schema.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from configs.bounds import NonNegativeInt, PositiveInt, Range, UnitInterval


@dataclass(frozen=True)
class InferenceConfig:
    """Detect objects in low-resolution images, folders, globs, videos or streams; or super-resolve them only.

    Args:
        source: image, folder, glob, video, list of these (.txt, one a line), number of a camera, or address of a stream
            (rtsp://, http://); or several.
        weights: stage-3 checkpoint; with `sr_only` that of an SR network, or empty for the strongest shipped one.
        detector: instead of `weights`: a deployed detector, without any training: Ultralytics .pt, state dict, or
            stage-1 checkpoint.
        sr: before `detector`: shipped (SR_Fast, and SR_Quality where the policy says), FAST,QUALITY, or one network: a
            weight file, the name of a shipped one (edsr_8x32) or of a network (bicubic).
        detector_model: model YAML of a state dict as `detector`; null recognises it.
        policy: learned, threshold=T, budget=R, latency_ms=T, all_fast, all_quality, random=R or edge=R; R is a share of
            the image's own patches, without those that only pad it, and so is `kept_share` in the results. null:
            learned, or all_fast where no masker was trained.
        halo: LR pixels of neighbours around SR_Quality's patches, exact: the receptive field; null takes that of the
            checkpoint.
        profile: latency profile of this system on this device (python -m tools.latency), for latency_ms.
        conf: lowest score shown.
        iou: overlap above which non-maximum suppression drops a box.
        max_det: most detections per image.
        classes: index of the only class that is kept, or several; null keeps all.
        agnostic_nms: a box drops weaker ones of other classes too.
        reuse: patches of a video (or of pictures one after the other) that did not change keep their SR.
        reuse_threshold: largest change of a pixel in or around a patch that counts as none, in grey levels of 0..255.
        reuse_refresh: every so many frames all patches are computed anew.
        vid_stride: of videos and streams only every so many frames; saved videos have as many fewer per second.
        device: auto picks CUDA when there is one.
        half: run in 16 bit (fp16 on CUDA, bf16 on CPU).
        batch: images per call.
        threads: CPU threads of PyTorch, 0 keeps PyTorch's own choice.
        save_sr: save the super-resolved images.
        save_mask: save the masks as pictures.
        save_txt: save labels in YOLO format, class cx cy w h, as training takes them.
        save_conf: add the score to these lines.
        save_crop: save what lies in each box, cut out of the super-resolved image, in crops/CLASS.
        save_json: save all detections in predictions.json.
        save_images: save pictures with boxes.
        line_width: of the boxes drawn, in pixels; null: by the size of the picture.
        hide_labels: draw boxes without class names.
        hide_conf: draw boxes without scores.
        sr_only: super-resolve and save, detect nothing.
        scale: factor of `sr_only`, of any kind for arbitrary-scale networks, or before `detector`; null takes that of
            the network, 4 of shipped ones.
        self_ensemble: average over the eight symmetries of the image, for `sr_only`.
        tile: side in LR pixels of the tiles that an image is computed in, for `sr_only`; 0: by `memory_mb`, where
            tiles are exact, else whole.
        tile_halo: LR pixels of neighbours around a tile; null: receptive field (exact), 32 where unknown.
        cmsr: tables (python -m tools.cmsr_tables) by which an lm_* network renders beyond x4, for `sr_only`.
        out: run folder; a number is added if it exists.
        project: folder of the run folder, instead of that of `out`.
        name: name of the run folder, instead of that of `out`.
        max_pixels: images with more pixels than this are refused before decoding.
        memory_mb: about what one image may take; larger ones run in parts, see docs/large_images.md.
        backend: what computes a system on CPUs: PyTorch with native kernels where these are faster here, torch alone,
            openvino, or auto, the fastest here; torch and openvino repeat exactly.
        seed: of the noise that diffusion networks draw; the same seed gives the same image.
    """

    source: str | list[str] = ""
    weights: str = ""
    detector: str | None = None
    sr: str = "shipped"
    detector_model: str | None = None
    policy: str | None = None
    halo: NonNegativeInt | Literal["exact"] | None = None
    profile: str | None = None
    conf: UnitInterval = 0.25
    iou: UnitInterval = 0.7
    max_det: PositiveInt = 300
    classes: NonNegativeInt | list[NonNegativeInt] | None = None
    agnostic_nms: bool = False
    reuse: bool = False
    reuse_threshold: Annotated[float, Range(0, 255)] = 8.0
    reuse_refresh: PositiveInt = 30
    vid_stride: PositiveInt = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    half: bool = False
    batch: PositiveInt = 1
    threads: NonNegativeInt = 0
    save_sr: bool = False
    save_mask: bool = False
    save_txt: bool = False
    save_conf: bool = False
    save_crop: bool = False
    save_json: bool = False
    save_images: bool = True
    line_width: PositiveInt | None = None
    hide_labels: bool = False
    hide_conf: bool = False
    sr_only: bool = False
    scale: Annotated[float, Range(1, 30)] | None = None
    self_ensemble: bool = False
    tile: NonNegativeInt = 0
    tile_halo: NonNegativeInt | None = None
    cmsr: str | None = None
    out: str = "runs/inference"
    project: str | None = None
    name: str | None = None
    max_pixels: PositiveInt = 100_000_000
    memory_mb: Annotated[int, Range(16)] = 1024
    backend: Literal["native", "torch", "openvino", "auto"] = "native"
    seed: NonNegativeInt = 0
