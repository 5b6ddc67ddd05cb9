"""Ultralytics' Results of one image, with what the front end made of it beside."""

from __future__ import annotations

from copy import copy

import numpy as np
import torch
from ultralytics.engine.results import Results

import models.detector_yolo  # noqa: F401  first: it switches off what Ultralytics would download
from data.sources import Frame
from prediction.predictor import Prediction


class ConditionalResults(Results):
    """Results in pixels of the original image; everything that takes Ultralytics' Results takes these.

    `boxes`, `orig_img` (uint8 (H, W, 3) BGR), `orig_shape`, `names`, `path`, `speed` (preprocess, inference,
    postprocess in milliseconds per image), `plot()`, `save_txt()`, `to_df()`, ... are Ultralytics'. `masks` is None: it
    is for the outlines of objects.

    Args:
        frame: the image.
        prediction: what was found in it.
        names: class names by index.

    Attributes:
        patch_mask: bool (ceil(H / patch), ceil(W / patch)), true where SR_Quality ran; None without a masker.
        patch: side of a patch in pixels of the original image; None without a masker.
        kept_share: share of the patches that SR_Quality ran on; None without a masker.
        reused_share: share of the patches that kept the SR of an earlier frame; None without reuse.
        seconds: when the frame is shown, from the start of the video; None for an image.
        parts: in how many overlapping parts the image was detected, 1 but for large images.
        max_det_reached: there may be more objects than `max_det` let through.
        frame_index: number of the video frame, or of the page of an image file, from 1; None for a single image.
    """

    def __init__(self, frame: Frame, prediction: Prediction, names: dict[int, str]):
        bgr = np.ascontiguousarray(frame.image[..., ::-1])
        boxes, speed = torch.from_numpy(prediction.boxes), dict(prediction.speed)
        super().__init__(bgr, path=frame.file.name, names=names, boxes=boxes, speed=speed)
        self.patch_mask, self.patch, self.kept_share = prediction.mask, prediction.patch, prediction.kept_share
        self.frame_index, self.seconds, self.reused_share = frame.index, frame.seconds, prediction.reused_share
        self.parts, self.max_det_reached = prediction.parts, prediction.max_det_reached
        self._prediction: Prediction | None = prediction
        self._sr: np.ndarray

    @property
    def sr(self) -> np.ndarray:
        """Super-resolved image that the detector saw, uint8 (s * H, s * W, 3) RGB; on the host once asked for, and that
        of an image in parts made only then."""
        if self._prediction is not None:
            self._sr, self._prediction = self._prediction.sr_image(), None
        return self._sr

    def compact(self) -> None:
        """Keep the super-resolved image as 8 bit on the host only, unless it is not held at all."""
        if self._prediction is not None and self._prediction.sr.held:
            _ = self.sr

    def new(self) -> ConditionalResults:
        """The same image without boxes; Ultralytics makes `.cpu()`, `.numpy()`, `[index]`, ... of it."""
        result = copy(self)
        for name in self._keys:
            setattr(result, name, None)
        return result
