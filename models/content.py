"""Which part of a canvas is image. The rest is padding: no decision, share or mean may rest on it.

`content`, wherever it is handed over, is int64 (B, K, 4) on the CPU: top, left, bottom and right in LR pixels of the K
rectangles that hold the image (one, in a mosaic up to four; a rectangle without area holds nothing). None: the whole
canvas is image. A patch is an image patch if it holds at least one pixel of the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from models.masker import patch_grid


def image_cells(content: Tensor, size: Sequence[int], cell: int) -> Tensor:
    """Bool (B, ceil(h / cell), ceil(w / cell)) on the CPU, true where a cell holds at least one pixel of the image.

    Args:
        content: see above.
        size: height and width of the canvas in LR pixels.
        cell: side of a cell in LR pixels; 1 gives the pixels themselves.
    """
    top, left, bottom, right = content.unbind(-1)  # (B, K) each
    rows, columns = (torch.arange(count) for count in patch_grid(size[0], size[1], cell))
    inside_rows = (rows >= top[..., None] // cell) & (rows * cell < bottom[..., None])  # (B, K, gh)
    inside_columns = (columns >= left[..., None] // cell) & (columns * cell < right[..., None])  # (B, K, gw)
    some = ((top < bottom) & (left < right))[..., None, None]
    return (inside_rows[..., None] & inside_columns[..., None, :] & some).any(1)


def image_patches(content: Tensor | None, size: Sequence[int], patch: int) -> Tensor | None:
    """Bool (B, gh, gw) on the CPU, true where a patch holds image; None where all of them do.

    Args:
        content: see above.
        size: height and width of the canvas in LR pixels.
        patch: side of a patch in LR pixels; gh = ceil(h / patch), gw = ceil(w / patch).
    """
    if content is None:
        return None
    cells = image_cells(content, size, patch)
    return None if bool(cells.all()) else cells
