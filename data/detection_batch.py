"""One batch of detection samples: images, boxes and where they lie on the canvas."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from data.letterbox import Letterbox

TARGETS = ("boxes", "classes", "image_index")


@dataclass
class DetectionBatch:
    """B samples.

    Args:
        lr: (B, 3, h, w), uint8 as loaded, float32 in [0, 1] after `to`.
        hr: (B, 3, s*h, s*w) likewise, or None where no HR image exists.
        boxes: float32 (N, 4) of all images, cx, cy, w, h in shares of the canvas.
        classes: int64 (N,).
        image_index: int64 (N,), row of the batch that a box belongs to.
        labelled: bool (B,), false where the labels of an image are withheld (it has no boxes then); stays on the CPU.
        indices: int64 (B,), index in the data set; stays on the CPU.
        epoch: epoch of training samples, -1 for evaluation.
        files: image files; of a mosaic the first of four.
        letterboxes: where the images lie on the canvas; of use for evaluation only, augmentation is not part of it.
        scale: HR pixels per LR pixel.
        content: int64 (B, K, 4), top, left, bottom, right in LR pixels of the K rectangles of each canvas that hold the
            image, augmentation included (a rectangle without area holds nothing); None where there is no padding at
            all. Stays on the CPU.
    """

    lr: Tensor
    hr: Tensor | None
    boxes: Tensor
    classes: Tensor
    image_index: Tensor
    labelled: Tensor
    indices: Tensor
    epoch: int
    files: list[str]
    letterboxes: list[Letterbox]
    scale: int
    content: Tensor | None = None

    @property
    def canvas(self) -> tuple[int, int]:
        """(H, W) of the HR canvas in pixels."""
        return self.lr.shape[-2] * self.scale, self.lr.shape[-1] * self.scale

    def to(self, device: torch.device | str) -> DetectionBatch:
        """The batch on a device, images as float32 in [0, 1]."""

        def image(pixels: Tensor | None) -> Tensor | None:
            if pixels is None or pixels.dtype != torch.uint8:
                return pixels if pixels is None else pixels.to(device, non_blocking=True)
            pixels = pixels.to(device, non_blocking=True).float().div_(255)
            return pixels.contiguous(memory_format=torch.channels_last)  # convolutions are faster so

        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in TARGETS}
        return dataclasses.replace(self, lr=image(self.lr), hr=image(self.hr), **moved)

    def pin_memory(self) -> DetectionBatch:
        """The batch in page-locked memory (called by the DataLoader), from which `to` copies without waiting."""
        names = ("lr", *TARGETS) if self.hr is None else ("lr", "hr", *TARGETS)
        return dataclasses.replace(self, **{name: getattr(self, name).pin_memory() for name in names})


def collate_detection(samples: list[dict]) -> DetectionBatch:
    """Samples of one epoch -> batch."""
    counts = torch.tensor([len(sample["classes"]) for sample in samples])
    return DetectionBatch(
        lr=torch.stack([sample["lr"] for sample in samples]),
        hr=None if samples[0]["hr"] is None else torch.stack([sample["hr"] for sample in samples]),
        boxes=torch.cat([sample["boxes"] for sample in samples]),
        classes=torch.cat([sample["classes"] for sample in samples]),
        image_index=torch.repeat_interleave(torch.arange(len(samples)), counts),
        labelled=torch.tensor([sample["labelled"] for sample in samples]),
        indices=torch.tensor([sample["index"] for sample in samples]),
        epoch=samples[0]["epoch"],
        files=[sample["file"] for sample in samples],
        letterboxes=[sample["letterbox"] for sample in samples],
        scale=samples[0]["scale"],
        content=_collate_content([sample["content"] for sample in samples], samples[0]["lr"].shape[-2:]),
    )


def _collate_content(parts: list[Tensor], size: tuple[int, int]) -> Tensor | None:
    """Rectangles (K, 4) of each sample -> (B, most K, 4), filled up with empty ones; None where all are the canvas."""
    whole = torch.tensor([[0, 0, *size]])
    if all(torch.equal(part, whole) for part in parts):
        return None
    return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)
