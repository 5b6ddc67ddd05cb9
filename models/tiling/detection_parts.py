"""Parts of an image that is too large to be detected at once: overlapping windows, each with a core it answers for.

The cores cover the image without overlap. A detection belongs to the window in whose core its centre lies, so almost
every object is decided by one window alone, far from that window's edges; what lies near the border of two cores is
matched between their windows (models/tiling/merge_parts.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Span:
    """A part along one axis, in LR pixels.

    Args:
        first, last: of the window, which is what the networks see.
        start, end: of the core.
        length: of the whole axis.
    """

    first: int
    last: int
    start: int
    end: int
    length: int


@dataclass(frozen=True)
class Part:
    """One window of an image and its core."""

    rows: Span
    columns: Span

    @property
    def window(self) -> tuple[slice, slice]:
        """Where the window is in an image (H, W, ...)."""
        return slice(self.rows.first, self.rows.last), slice(self.columns.first, self.columns.last)


@dataclass(frozen=True)
class PartPlan:
    """How images are cut, all in LR pixels.

    Args:
        tile: side of a window, a multiple of `unit`; an image of tile x tile pixels is not cut.
        objects: objects up to this size lie in a window that sees all of them and answers for them.
        margin: by how much boxes of one object may differ between two windows, and how close to a window's edge a box
            ends that this edge cuts off.
        unit: windows begin at multiples of it (patches and the detector's stride).
    """

    tile: int
    objects: int
    margin: int
    unit: int

    @property
    def overlap(self) -> int:
        """What two neighbouring windows have in common at least.

        The centre of an object that a window answers for is at most `margin` beyond the middle of the overlap; the
        object then ends objects / 2 + margin beyond it, and another margin away from the window's edge.
        """
        return self.objects + 4 * self.margin

    def __post_init__(self):
        if self.tile % self.unit or self.tile < self.overlap + self.unit:
            raise ValueError(f"{self}: the tile must be a multiple of unit, and at least unit longer than the overlap")

    def whole(self, height: int, width: int) -> bool:
        """Whether an image of this size is taken as it is."""
        return height * width <= self.tile**2

    def rows(self, height: int, width: int) -> Iterator[list[Part]]:
        """The parts of an image, a list for each row of them."""
        columns = self.spans(width)
        for row in self.spans(height):
            yield [Part(row, column) for column in columns]

    def spans(self, length: int) -> list[Span]:
        """The parts of one axis."""
        step = (self.tile - self.overlap) // self.unit * self.unit
        count = max(0, -(-(length - self.tile) // step)) + 1
        last = max(0, -(-(length - self.tile) // self.unit) * self.unit)  # the first unit from which one window is left
        firsts = [min(number * step, last) for number in range(count)]
        lasts = [min(first + self.tile, length) for first in firsts]
        borders = [0, *((first + end) // 2 for first, end in zip(firsts[1:], lasts)), length]
        ends = zip(firsts, lasts, pairwise(borders), strict=True)
        return [Span(first, end, *core, length) for first, end, core in ends]


def plan_parts(pixels: int, scale: int, stride: int, unit: int) -> PartPlan:
    """Parts of about so many LR pixels.

    Args:
        pixels: LR pixels that fit into memory at once.
        scale: pixels of the detector's input per LR pixel.
        stride: of the detector.
        unit: see PartPlan.
    """
    margin = -(-stride // (2 * scale))
    least = 2 * (4 * margin + unit)
    tile = -(-max(int(pixels**0.5) // unit * unit, least) // unit) * unit
    return PartPlan(tile, tile // 8, margin, unit)
