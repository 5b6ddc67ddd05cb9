"""Which windows to compute for a patch mask: neighbouring patches are merged into rectangles, so that halos are shared.

A rectangle of a x b patches is computed in one window with one halo around it: (a * patch + 2 * halo) times
(b * patch + 2 * halo) LR pixels instead of a * b windows of (patch + 2 * halo) squared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.masker import patch_grid
from models.sr_network import SRNetwork

SIDES = (1, 2, 3, 4, 6, 8)
# Largest first; slender ones only where small, they save little.
SHAPES = sorted(
    ((a, b) for a in SIDES for b in SIDES if max(a, b) <= 2 * min(a, b) or (min(a, b) == 1 and max(a, b) <= 4)),
    key=lambda shape: (-shape[0] * shape[1], abs(shape[0] - shape[1]), shape),
)


def choose_patch(height: int, width: int) -> int:
    """Patch side for LR images: 32, where halos cost 13 %, as long as four of them fit along the shorter side."""
    return next((patch for patch in (32, 16) if min(height, width) >= 4 * patch), 8)


def choose_halo(patch: int) -> int:
    """Shortest halo that costs at most about 0.02 dB (EDSR 8 x 32, Set14 x4, all patches: benchmarks/halo_cost.py)."""
    return 1 if patch >= 32 else 2 if patch >= 8 else 4


def auto_halo(quality: SRNetwork, patch: int) -> int | None:
    """The halo of an SR_Quality where none is named; None: that of its capabilities, for windows that fade into each
    other."""
    return None if quality.capabilities.blend else choose_halo(patch)


@dataclass(frozen=True)
class Geometry:
    """Sizes of a tiled image, in LR pixels.

    Args:
        height, width: of the image.
        patch: side of a patch.
        halo: real neighbours around a rectangle.
    """

    height: int
    width: int
    patch: int
    halo: int

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches; the last ones may be partial."""
        return patch_grid(self.height, self.width, self.patch)

    def window(self, rows: int, columns: int) -> tuple[int, int]:
        """Height and width of the window in which a rectangle of patches is computed; it never leaves the image."""
        margin = 2 * self.halo
        return min(self.height, rows * self.patch + margin), min(self.width, columns * self.patch + margin)

    def area(self, rows: int, columns: int) -> int:
        """Pixels of that window."""
        height, width = self.window(rows, columns)
        return height * width


@dataclass(frozen=True)
class Group:
    """Rectangles of one shape.

    Args:
        rows, columns: size in patches.
        index: int64 (n, 3): image, row and column of the first patch of every rectangle.
    """

    rows: int
    columns: int
    index: np.ndarray


@dataclass(frozen=True)
class TilePlan:
    """What to run for a mask.

    Args:
        dense: bool (B,), images that are run as a whole.
        groups: rectangles of the other images; together they cover each selected patch once and nothing else.
    """

    dense: np.ndarray
    groups: list[Group]


def plan_tiles(mask: np.ndarray, geometry: Geometry, overhead: float, merge: bool = True) -> TilePlan:
    """Cover a mask by rectangles at low cost; decided image by image, so a batch gives what its images give one by one.

    The cost of an image is the area of its windows plus `overhead` per different shape. From large to small, shapes are
    placed on the grid offset where most of them fit, if that saves more than the overhead. Images whose windows would
    cost more than the whole image are run densely.

    Args:
        mask: bool (B, gh, gw).
        geometry: sizes; its grid is that of the mask.
        overhead: cost of one more call of the network, in LR pixels.
        merge: false gives one window per patch.

    Raises:
        ValueError: the mask has another grid.
    """
    if mask.shape[1:] != geometry.grid:
        raise ValueError(f"the mask has {mask.shape[1:]} patches, but the image has {geometry.grid}")
    whole, single = geometry.height * geometry.width, geometry.area(1, 1)
    count = mask.sum((1, 2))
    # Where all patches are wanted, or merging cannot save enough, no plan is needed.
    dense = (count == mask[0].size) | (count * geometry.patch**2 >= whole)
    left = mask & ~dense[:, None, None]
    cost = np.zeros(len(mask))
    groups = []
    for rows, columns in SHAPES if merge else []:
        if rows * columns == 1:
            continue
        saving = rows * columns * single - geometry.area(rows, columns)
        taken = _place(left, rows, columns, overhead / saving) if saving > 0 else None
        if taken is not None:
            groups.append(Group(rows, columns, taken))
            number = np.bincount(taken[:, 0], minlength=len(mask))
            cost += number * geometry.area(rows, columns) + overhead * (number > 0)
    singles = left.sum((1, 2))
    cost += singles * single + overhead * (singles > 0)
    groups.append(Group(1, 1, np.argwhere(left)))
    dense |= cost >= whole + overhead
    kept = [Group(group.rows, group.columns, group.index[~dense[group.index[:, 0]]]) for group in groups]
    return TilePlan(dense, [group for group in kept if len(group.index)])


def _place(left: np.ndarray, rows: int, columns: int, least: float) -> np.ndarray | None:
    """Place non-overlapping rectangles on selected patches and clear these in `left`.

    Args:
        left: bool (B, gh, gw), patches not yet covered; changed.
        rows, columns: size of the rectangles.
        least: an image gets them only if more than this number fit.

    Returns:
        Positions (n, 3) of the first patches, None where nothing was placed.
    """
    batch, height, width = left.shape
    if rows > height or columns > width or left.sum() < rows * columns:
        return None
    fits = _erode(_erode(left, rows, 1), columns, 2)
    if not fits.any():
        return None
    # Rectangles at equal offset modulo their size do not overlap: count per offset, take the best of each image.
    padding = [(0, 0), (0, -fits.shape[1] % rows), (0, -fits.shape[2] % columns)]
    padded = np.pad(fits, padding)
    blocks = padded.reshape(batch, padded.shape[1] // rows, rows, padded.shape[2] // columns, columns)
    number = blocks.sum((1, 3)).reshape(batch, -1)  # (B, rows * columns) by offset
    best = number.argmax(1)
    good = number.max(1) > least
    if not good.any():
        return None
    image = np.flatnonzero(good)
    top, start = np.divmod(best[image], columns)
    chosen = blocks[image, :, top, :, start]  # (n, high / rows, wide / columns)
    found, row, column = chosen.nonzero()
    index = np.stack([image[found], row * rows + top[found], column * columns + start[found]], 1)
    inside = np.mgrid[0:rows, 0:columns].reshape(2, -1)  # (2, rows * columns)
    left[index[:, :1], index[:, 1:2] + inside[0], index[:, 2:3] + inside[1]] = False
    return index


def _erode(mask: np.ndarray, length: int, axis: int) -> np.ndarray:
    """True where `length` entries in a row along the axis are true, from there on."""
    size = mask.shape[axis] - length + 1
    part = [slice(None)] * mask.ndim
    result = np.array(True)
    for start in range(length):
        part[axis] = slice(start, start + size)
        result = result & mask[tuple(part)]
    return result
