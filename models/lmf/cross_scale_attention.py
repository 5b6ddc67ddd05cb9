"""Cross-scale non-local attention (Mei et al. 2020, arXiv:2006.01424): details from larger copies in the same image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TILE = 48


def conv1x1(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.PReLU())


class CrossScaleAttention(nn.Module):
    """Each 3x3 patch of the features asks the features at half size; what answers are the 6x6 patches they stem from.

    The answers overlap to features of twice the size, which a strided convolution brings back. Large images are done in
    tiles of TILE LR pixels (the last takes the rest), as memory and time grow with the square of the pixels.

    Args:
        n_feats: feature maps, (B, n_feats, h, w) in and out.
        sharpness: factor of the scores before the softmax.
    """

    def __init__(self, n_feats: int, sharpness: float = 10.0):
        super().__init__()
        self.sharpness = sharpness
        self.query = conv1x1(n_feats, n_feats // 2)
        self.key = conv1x1(n_feats, n_feats // 2)
        self.value = conv1x1(n_feats, n_feats)
        self.down = nn.Conv2d(n_feats, n_feats, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (tiles(length) for length in x.shape[-2:])
        bands = [torch.cat([self.attend_tile(x, row, column) for column in columns], dim=3) for row in rows]
        return torch.cat(bands, dim=2)

    def attend_tile(self, x: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
        """Attention within a tile and the pixels next to it; the result is of the tile alone."""
        (top, bottom), (left, right) = rows, columns
        above, before = max(top - 1, 0), max(left - 1, 0)
        y = self.attend(x[..., above : bottom + 1, before : right + 1])
        return y[..., top - above : bottom - above, left - before : right - before]

    def attend(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        border = "reflect" if min(height, width) > 1 else "replicate"
        x = F.pad(x, (0, width % 2, 0, height % 2), mode=border)
        even = x.shape[-2:]
        half = F.interpolate(x, (even[0] // 2, even[1] // 2), mode="bilinear")
        queries = F.unfold(self.query(x), 3, padding=1)  # (B, 9 n_feats / 2, N), N pixels
        keys = F.unfold(self.key(half), 3, padding=1)  # (B, 9 n_feats / 2, N / 4)
        keys = keys / keys.norm(dim=1, keepdim=True).clamp_min(1e-4)
        values = F.unfold(self.value(x), 6, stride=2, padding=2)  # (B, 36 n_feats, N / 4)
        attention = (self.sharpness * keys.transpose(1, 2) @ queries).softmax(dim=1)
        y = F.fold(values @ attention, (2 * even[0], 2 * even[1]), 6, stride=2, padding=2)
        return (self.down(y) / 6)[..., :height, :width]


def tiles(length: int) -> list[tuple[int, int]]:
    """First and last-plus-one pixel of each tile of an axis."""
    count = max(1, length // TILE)
    return [(i * TILE, length if i == count - 1 else (i + 1) * TILE) for i in range(count)]
