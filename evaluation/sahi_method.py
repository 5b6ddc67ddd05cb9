"""Sliced inference by the sahi package itself, a rival: its slicing, its calls, its merging, with our detector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from models.detector_input import resized
from models.front_end import ConditionalOutput, Policy, Preparation
from models.method import Boxes, Detector, Network
from models.sliced_detection import Slicer
from prediction.sahi_detection import sahi_detection_model
from utils.convert import to_image, to_tensor
from utils.extras import require

LOW_CONF = 0.1  # below it the package merges by NMS and IoU whatever is asked for, for the many boxes that a mAP counts


class SahiMethod(nn.Module):
    """`sahi.predict.get_sliced_prediction` as a method: every slice, and the whole image, enlarged to the HR canvas.

    Args:
        slicer: says how large slices are, and whether the whole image is looked at too.
        detector: of what the slices become.
        match: "ios" or "iou", and
        threshold: overlap above which boxes are merged (GREEDYNMM, the package's default; see LOW_CONF).

    Raises:
        MissingExtra: the package is not installed.
    """

    sees_hr = False
    patch = front = None

    def __init__(self, slicer: Slicer, detector: Detector, match: str = "ios", threshold: float = 0.5):
        super().__init__()
        self.get_sliced_prediction = require("sahi.predict", "integrations", "the row of sahi").get_sliced_prediction
        self.slicer, self.detector, self.match, self.threshold = slicer, detector, match, threshold

    def super_resolve(self, images: Tensor, policy: Policy, content: Tensor | None = None) -> ConditionalOutput:
        """The whole image as the detector gets it; only `images` is looked at."""
        return ConditionalOutput(self._enlarged(images, images.shape[-2:]))

    @torch.no_grad()
    def predict(
        self,
        images: Tensor,
        policy: Policy,
        conf: float = 0.25,
        iou: float = 0.7,
        max_det: int = 300,
        content: Tensor | None = None,
    ) -> tuple[Boxes, None]:
        """See `Method.predict`; `iou` and `max_det` are those of every slice, and `max_det` of the image."""
        return [self._predict_one(image, conf, iou, max_det) for image in images], None

    def _predict_one(self, image: Tensor, conf: float, iou: float, max_det: int) -> Tensor:
        size = image.shape[-2:]

        def find(slices: list[np.ndarray], conf: float) -> list[list[list[float]]]:
            """Boxes in pixels of slices of one size."""
            parts = torch.cat([to_tensor(part, image.device) for part in slices])
            factor = [side * self.slicer.scale / own for side, own in zip(size, parts.shape[-2:], strict=True)]
            found = self.detector.predict(self._enlarged(parts, size), conf=conf, iou=iou, max_det=max_det)
            scale = torch.tensor([factor[1], factor[0], factor[1], factor[0], 1, 1])
            return [(boxes.float().cpu() / scale).tolist() for boxes in found]

        _, _, height, width = self.slicer.windows(*size)[0]
        low = conf < LOW_CONF
        result = self.get_sliced_prediction(
            to_image(image[None]),
            sahi_detection_model(find, self.detector.names, conf, str(image.device)),
            slice_height=height,
            slice_width=width,
            overlap_height_ratio=self.slicer.overlap,
            overlap_width_ratio=self.slicer.overlap,
            perform_standard_pred=self.slicer.full,
            postprocess_type="NMS" if low else "GREEDYNMM",
            postprocess_match_metric="IOU" if low else self.match.upper(),
            postprocess_match_threshold=self.threshold,
            batch_size=self.slicer.rows * self.slicer.columns,
            verbose=0,
        )
        rows = [[*it.bbox.to_xyxy(), it.score.value, it.category.id] for it in result.object_prediction_list]
        boxes = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
        boxes[:, :4] *= self.slicer.scale
        return boxes[boxes[:, 4].argsort(descending=True, stable=True)][:max_det].to(image.device)

    def _enlarged(self, images: Tensor, size: Sequence[int]) -> Tensor:
        """Images (n, 3, h, w) on the canvas of an LR image of this size, in the detector's type."""
        images = images if self.detector.dtype is None else images.to(self.detector.dtype)
        return resized(images, *(side * self.slicer.scale for side in size)).clamp(0, 1)

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the detector's input for an image of height x width."""
        return height * self.slicer.scale, width * self.slicer.scale

    def detector_inputs(self, height: int, width: int) -> int:
        """Slices of one image, and the whole of it."""
        return len(self.slicer.windows(height, width))

    def front_macs(self, height: int, width: int, patches: int, masker: bool = True) -> None:
        return None

    def networks_run(self, height: int, width: int, patches: Sequence[int], masker: bool = True) -> list[Network]:
        return [self.detector]

    def with_detector(self, detector: Detector, preparation: Preparation) -> SahiMethod:
        """Inference copy around the inference copy of the detector."""
        return SahiMethod(self.slicer, detector, self.match, self.threshold).eval()
