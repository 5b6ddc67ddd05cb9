"""The whole way as one module: LR image -> super-resolved image -> boxes.

The front end is a ConditionalSR, or one SR network that runs everywhere (the baselines). A system rebuilds itself
from its `spec`, so a checkpoint needs no YAML beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from models import build_sr
from models.conditional_sr import ConditionalOutput, ConditionalSR
from models.mask_policy import MaskPolicy
from models.masker import Masker
from models.sr_fast import ESPCN, FSRCNN
from models.tiling.execution import DEFAULT, run_whole
from utils.errors import UserError

if TYPE_CHECKING:  # at run time only where there is a detector: SR alone loads no Ultralytics
    from models.detector_yolo import YoloDetector


class HRImages(nn.Module):
    """Front end of a detector that is trained and run on HR images, the upper bound: it shows them as they are."""

    scale, radius, size_multiple, tail = 1, 0, 1, None
    sees_hr = True

    @property
    def spec(self) -> dict:
        return {"name": "hr", "args": {}}

    def forward(self, hr: Tensor) -> Tensor:
        return hr.clone()  # the result of a front end may be changed in place


def build_front(spec: dict) -> nn.Module:
    """Front end from its spec: {"name": "conditional", "args": {...}}, {"name": "hr"} or the spec of one SR network."""
    if spec["name"] == "hr":
        return HRImages()
    if spec["name"] != "conditional":
        args = dict(spec["args"])
        return build_sr(spec["name"], args.pop("scale"), args)
    args = spec["args"]
    sr_fast = build_front(args["sr_fast"])
    stem = shared_stem(sr_fast) if args.get("shared_stem", False) else None
    masker = Masker(**args["masker"], stem=stem)
    front = ConditionalSR(masker, sr_fast, build_front(args["sr_quality"]), halo=args["halo"])
    front.train_tiles = args.get("train_tiles", False)
    return front


def shared_stem(sr_fast: nn.Module) -> nn.Module:
    """The layers of SR_Fast that a masker may share: all before the last, at LR resolution.

    Raises:
        ValueError: the network has no such layers.
    """
    if not isinstance(sr_fast, (ESPCN, FSRCNN)):
        name = sr_fast.spec["name"]
        raise UserError(f"masker.shared_stem: {name} has no layers to share; take espcn or fsrcnn, or set it to false")
    return sr_fast.features


def front_spec(front: nn.Module) -> dict:
    """Inverse of `build_front`: plain types only."""
    if not isinstance(front, ConditionalSR):
        return front.spec
    shared = {"shared_stem": True} if front.masker.shares_stem else {}
    return {
        "name": "conditional",
        "args": shared
        | {
            "masker": {"patch": front.masker.patch, "channels": front.masker.channels, "bias": front.masker.bias},
            "sr_fast": front.sr_fast.spec,
            "sr_quality": front.sr_quality.spec,
            "halo": front.halo,
            "train_tiles": front.train_tiles,
        },
    }


class ConditionalSRDetector(nn.Module):
    """LR images in, boxes out.

    Args:
        front: ConditionalSR or any SR network, (B, 3, h, w) in [0, 1] -> (B, 3, s*h, s*w); or HRImages.
        detector: YOLO detector on the super-resolved image.
        max_pixels: most LR pixels in one call of a plain front end; a ConditionalSR has its own limit.
    """

    def __init__(self, front: nn.Module, detector: YoloDetector, max_pixels: int = DEFAULT.max_pixels):
        super().__init__()
        self.front = front
        self.detector = detector
        self.max_pixels = max_pixels

    @property
    def scale(self) -> int:
        """HR canvas pixels per pixel of the images that the system takes."""
        return self.front.scale // self.zoom

    @property
    def zoom(self) -> int:
        """Pixels of the super-resolved image per HR canvas pixel: `upscale` of bicubic interpolation, else 1."""
        return getattr(self.front, "upscale", 1)

    @property
    def sees_hr(self) -> bool:
        """Whether the system takes HR images instead of LR images."""
        return getattr(self.front, "sees_hr", False)

    def images(self, batch) -> Tensor:
        """What the system takes of a batch, in [0, 1]: LR images (B, 3, h, w), or HR images."""
        return batch.hr if self.sees_hr else batch.lr

    def train(self, mode: bool = True) -> ConditionalSRDetector:
        super().train(mode)
        # What is fixed keeps its BatchNorm statistics too; a conditional front end itself goes on drawing masks.
        for part in self.front.children() if isinstance(self.front, ConditionalSR) else [self.front]:
            own = part.own_parameters() if isinstance(part, Masker) else part.parameters()
            if not any(p.requires_grad for p in own):
                part.eval()
        return self

    @property
    def spec(self) -> dict:
        args = {"front": front_spec(self.front), "detector": self.detector.spec["args"]}
        return {"name": "conditional_sr_yolo", "args": args}

    @classmethod
    def from_spec(cls, args: dict) -> ConditionalSRDetector:
        """System with fresh weights from `spec["args"]`."""
        from models.detector_yolo import YoloDetector

        return cls(build_front(args["front"]), YoloDetector(**args["detector"]))

    def upscale(self, lr: Tensor, policy: MaskPolicy, content: Tensor | None = None) -> ConditionalOutput:
        """Super-resolve without gradient. (B, 3, h, w) -> sr (B, 3, s*h, s*w) in [0, 1]; no mask for a plain front.

        `content` says which part of the images is no padding, see models/content.py.
        """
        if isinstance(self.front, ConditionalSR):
            return self.front.infer(lr, policy, content)
        with torch.no_grad():
            sr = run_whole(self.front, lr, self.max_pixels)
            return ConditionalOutput(sr=sr.clamp_(0, 1), mask=None, probability=None)

    def predict(
        self,
        lr: Tensor,
        policy: MaskPolicy,
        conf: float = 0.25,
        iou: float = 0.7,
        max_det: int = 300,
        content: Tensor | None = None,
    ) -> tuple[list[Tensor], ConditionalOutput]:
        """Boxes per image (n, 6): x1, y1, x2, y2 in HR canvas pixels, score, class; and what the front end made."""
        output = self.upscale(lr, policy, content)
        return self.detect(output.sr, conf, iou, max_det), output

    def detect(self, sr: Tensor, conf: float = 0.25, iou: float = 0.7, max_det: int = 300) -> list[Tensor]:
        """Boxes per image as from `predict`, in what `upscale` made."""
        found = self.detector.predict(sr, conf=conf, iou=iou, max_det=max_det)
        return found if self.zoom == 1 else [boxes / boxes.new_tensor([self.zoom] * 4 + [1, 1]) for boxes in found]
