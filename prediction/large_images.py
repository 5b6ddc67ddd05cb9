"""Images too large for one call of the detector: super-resolved and detected part by part, in bounded memory.

The mask is chosen for the whole image beforehand, so a budget is one of the whole image; the parts overlap, and patches
in an overlap are computed twice. Neither the super-resolved image nor a picture of it is ever there as a whole unless
somebody asks for it: it is made again, strip by strip, where it is saved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.front_end import Policy
from models.mask_policy import GivenMask, MaskPolicy
from models.masker import patch_grid
from models.system import ConditionalSRDetector
from models.tiling.detection_parts import Part, PartPlan, plan_parts
from models.tiling.merge_parts import merge_parts
from prediction.padding import content_of, pad_images, padded_size, to_image_pixels
from utils.convert import to_image

IN_A_PART = 10  # times max_det: most boxes of a part, many of which belong to other parts' cores
EVERYWHERE = MaskPolicy("learned")  # of front ends without masks, which look at none


@dataclass(frozen=True)
class LargeImages:
    """A system that runs on parts of images.

    Args:
        system: prepared front end and detector.
        device: where it is.
        plan: how images are cut; windows begin where patches do.
        unit: windows are padded to multiples of it, in LR pixels, for the detector.
    """

    system: ConditionalSRDetector
    device: torch.device
    plan: PartPlan
    unit: int

    def choose(self, image: np.ndarray, policy: MaskPolicy) -> Tensor | None:
        """The whole image's mask, bool (gh, gw) on the CPU; None without a masker."""
        if self.system.patch is None:
            return None
        height, width = image.shape[:2]
        size = padded_size(height, width, self.unit)  # as in one call: what is beside an image can move the mask
        mask = self.system.front.choose(self._tensor(image, size), policy, content_of([image], size))
        rows, columns = patch_grid(height, width, self.system.patch)
        return None if mask is None else mask[0, :rows, :columns].cpu()

    def detect(
        self,
        image: np.ndarray,
        mask: Tensor | None,
        find: Callable[[Tensor, int], Tensor],
        max_det: int,
        measure: Callable[[str], AbstractContextManager],
    ) -> tuple[np.ndarray, int, bool]:
        """Boxes float32 (n, 6) in pixels of the image, best first; number of parts; whether there may be more boxes.

        Args:
            image: uint8 (H, W, 3) RGB.
            mask: of the whole image, from `choose`.
            find: from a super-resolved part (1, 3, H, W), and the most boxes wanted, to its boxes (n, 6), as
                `ConditionalSRDetector.detect`.
            max_det: most boxes in the image.
            measure: times the stages SR and detection.
        """
        found, parts = [], []
        for part in (part for row in self.plan.rows(*image.shape[:2]) for part in row):
            with measure("SR"):
                sr = self._super_resolve(image, mask, part)
            with measure("detection"):
                boxes = find(sr, IN_A_PART * max_det).float().cpu().numpy()
            del sr
            rows, columns = part.rows, part.columns
            boxes = to_image_pixels(boxes, self.system.scale, rows.last - rows.first, columns.last - columns.first)
            found.append(boxes + np.array([columns.first, rows.first] * 2 + [0, 0], np.float32))
            parts.append(part)
        merged = merge_parts(found, parts, self.plan)
        more = len(merged) > max_det or any(len(boxes) >= IN_A_PART * max_det for boxes in found)
        return merged[:max_det], len(parts), more

    def strips(self, image: np.ndarray, mask: Tensor | None) -> Iterator[np.ndarray]:
        """The super-resolved image from top to bottom, uint8 (rows, s * W, 3) each, one row of parts at a time.

        Args:
            image, mask: as in `detect`.

        Raises:
            UserError: the super-resolved image holds NaN.
        """
        scale = self.system.front.scale
        for row in self.plan.rows(*image.shape[:2]):
            span = row[0].rows
            strip = np.empty(((span.end - span.start) * scale, image.shape[1] * scale, 3), np.uint8)
            inside = slice((span.start - span.first) * scale, (span.end - span.first) * scale)
            for part in row:
                across, sr = part.columns, self._super_resolve(image, mask, part)[0]
                own = slice((across.start - across.first) * scale, (across.end - across.first) * scale)
                strip[:, across.start * scale : across.end * scale] = to_image(sr[None, :, inside, own])
                del sr  # before the next one is made
            yield strip

    def _super_resolve(self, image: np.ndarray, mask: Tensor | None, part: Part) -> Tensor:
        """(1, 3, s * h, s * w) of one window of an image, padded for the detector."""
        window = image[part.window]
        height, width = window.shape[:2]
        size = padded_size(height, width, self.unit)
        policy: Policy = EVERYWHERE
        patch = self.system.patch
        if mask is not None and patch is not None:
            own = mask[part.rows.first // patch :, part.columns.first // patch :]
            rows, columns = patch_grid(height, width, patch)
            chosen = torch.zeros(1, *patch_grid(size[0], size[1], patch), dtype=torch.bool)
            chosen[0, :rows, :columns] = own[:rows, :columns]
            policy = GivenMask(chosen.to(self.device), needs_masker=False)
        return self.system.super_resolve(self._tensor(window, size), policy, content_of([window], size)).sr

    def _tensor(self, image: np.ndarray, size: tuple[int, int]) -> Tensor:
        """uint8 (H, W, 3) -> float32 (1, 3, *size) in [0, 1], padded."""
        lr = torch.from_numpy(pad_images([image], size)).to(self.device)
        return lr.permute(0, 3, 1, 2).float().div_(255)


def large_images(system: ConditionalSRDetector, device: torch.device, pixels: int, unit: int) -> LargeImages:
    """Parts of about so many LR pixels for this system; `unit`: see LargeImages."""
    detector, front = system.detector, system.front
    plan = plan_parts(pixels, front.scale, detector.stride, math.lcm(unit, system.patch or 1))
    return LargeImages(system, device, plan, unit)
