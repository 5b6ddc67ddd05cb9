"""A super-resolved image, held as a whole or made again when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from prediction.large_images import LargeImages
from utils.convert import to_image


class SRImage(Protocol):
    """What the detector saw of an image (H, W).

    Attributes:
        held: it is in memory; else every call makes it again.
        shape: height and width.
    """

    @property
    def held(self) -> bool: ...

    @property
    def shape(self) -> tuple[int, int]: ...

    def strips(self) -> Iterator[np.ndarray]:
        """From top to bottom, uint8 (rows, width, 3) each. Raises UserError for NaN, which would become black."""

    def whole(self) -> np.ndarray:
        """uint8 (height, width, 3). Raises UserError for NaN."""


@dataclass(frozen=True)
class HeldSR:
    """A super-resolved image (3, s * H, s * W) in [0, 1], on the device where it was made."""

    image: Tensor
    held = True

    @property
    def shape(self) -> tuple[int, int]:
        return self.image.shape[-2], self.image.shape[-1]

    def strips(self) -> Iterator[np.ndarray]:
        yield self.whole()

    def whole(self) -> np.ndarray:
        return to_image(self.image[None])


@dataclass(frozen=True)
class SRInParts:
    """That of a large image, with the mask that was chosen for it; see prediction/large_images.py."""

    maker: LargeImages
    image: np.ndarray
    mask: Tensor | None
    held = False

    @property
    def shape(self) -> tuple[int, int]:
        scale = self.maker.system.front.scale
        return self.image.shape[0] * scale, self.image.shape[1] * scale

    def strips(self) -> Iterator[np.ndarray]:
        return self.maker.strips(self.image, self.mask)

    def whole(self) -> np.ndarray:
        return in_one(self.strips(), self.shape)


def in_one(strips: Iterator[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Strips from top to bottom as one image of this height and width; the strips are not kept."""
    whole, top = np.empty((*shape, 3), np.uint8), 0
    for strip in strips:
        whole[top : top + len(strip)] = strip
        top += len(strip)
    return whole
