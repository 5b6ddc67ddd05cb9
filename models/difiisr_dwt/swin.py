"""Shifted-window attention (Liu et al. 2021, arXiv:2103.14030) on feature maps."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

APART = -100.0  # added to the attention between pixels that are no neighbours


def group_norm(channels: int) -> nn.GroupNorm:
    """32 groups; fewer in narrow layers, so that a group has at least 4 channels, as far as they divide."""
    groups = min(32, max(1, channels // 4))
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels)


def to_windows(x: Tensor, side: int) -> Tensor:
    """(B, h, w, C) to (B * windows, side * side, C)."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // side, side, width // side, side, channels)
    return x.transpose(2, 3).reshape(-1, side * side, channels)


def from_windows(x: Tensor, side: int, height: int, width: int) -> Tensor:
    """The inverse of `to_windows`."""
    channels = x.shape[-1]
    x = x.view(-1, height // side, width // side, side, side, channels)
    return x.transpose(2, 3).reshape(-1, height, width, channels)


@lru_cache(maxsize=8)  # those of one size of image; one takes up to 100 MB
def shift_mask(height: int, width: int, side: int, shift: int, device: torch.device) -> Tensor:
    """(windows, 1, n, n), n = side^2: pixels that only the cyclic shift has made neighbours do not see each other."""
    with torch.inference_mode(False):  # a cached inference tensor could not serve a later training step
        region = [(torch.arange(size) >= size - side).long() + (torch.arange(size) >= size - shift).long()
                  for size in (height, width)]  # fmt: skip
        ids = to_windows((3 * region[0][:, None] + region[1])[None, ..., None].float(), side).squeeze(-1)
        return APART * (ids[:, None, :, None] != ids[:, None, None, :]).float().to(device)


@lru_cache(maxsize=64)
def relative_places(side: int, device: torch.device) -> Tensor:
    """Rows (n, n) of the table of position biases, for every pair of pixels of a window."""
    with torch.inference_mode(False):
        rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        rows, columns = (place.flatten()[:, None] - place.flatten() + side - 1 for place in (rows, columns))
        return (rows * (2 * side - 1) + columns).to(device)


class WindowAttention(nn.Module):
    """Multi-head attention within windows, with a learned bias for every relative position.

    Args:
        dim: channels, a multiple of `heads`.
        heads: attention heads.
        side: of a window.
    """

    def __init__(self, dim: int, heads: int, side: int):
        super().__init__()
        self.heads, self.side = heads, side
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.bias = nn.Parameter(torch.zeros((2 * side - 1) ** 2, heads))
        nn.init.trunc_normal_(self.bias, std=0.02)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Windows (B * windows, n, dim); mask (windows, 1, n, n)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (Bw, heads, n, d) each
        bias = self.bias[relative_places(self.side, x.device)].permute(2, 0, 1)  # (heads, n, n)
        weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + bias
        if mask is not None:
            weights = (weights.unflatten(0, (-1, len(mask))) + mask.to(weights.dtype)).flatten(0, 1)
        return self.proj((weights.softmax(-1) @ v).transpose(1, 2).flatten(2))


class SwinBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)).

    Args:
        dim, heads: of the attention.
        side: of a window.
        shift: pixels by which windows are moved; none where the map is one window wide or high.
        mlp_ratio: hidden channels, as a multiple of dim.
    """

    def __init__(self, dim: int, heads: int, side: int, shift: int, mlp_ratio: int = 4):
        super().__init__()
        self.side, self.shift = side, shift
        self.norm1, self.norm2 = group_norm(dim), group_norm(dim)
        self.attention = WindowAttention(dim, heads, side)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp_ratio * dim), nn.GELU(), nn.Linear(mlp_ratio * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w), h and w multiples of the window."""
        x = x + self.attend(self.norm1(x))
        return x + self.mlp(self.norm2(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def attend(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        shift = self.shift if min(height, width) > self.side else 0
        x = x.permute(0, 2, 3, 1)
        mask = None
        if shift:
            x, mask = x.roll((-shift, -shift), (1, 2)), shift_mask(height, width, self.side, shift, x.device)
        x = from_windows(self.attention(to_windows(x, self.side), mask), self.side, height, width)
        if shift:
            x = x.roll((shift, shift), (1, 2))
        return x.permute(0, 3, 1, 2)


class SwinGroup(nn.Module):
    """1x1 convolution to `dim` channels, blocks with windows at rest and shifted by half in turn, 1x1 convolution back;
    there is no connection around the whole.

    Args:
        channels: of the feature map.
        dim: of the tokens, a multiple of head_dim.
        depth: blocks.
        side: of a window.
        head_dim: channels of an attention head.
    """

    def __init__(self, channels: int, dim: int, depth: int, side: int, head_dim: int = 32):
        super().__init__()
        self.enter, self.leave = nn.Conv2d(channels, dim, 1), nn.Conv2d(dim, channels, 1)
        shifts = [side // 2 * (number % 2) for number in range(depth)]
        self.blocks = nn.Sequential(*(SwinBlock(dim, dim // head_dim, side, shift) for shift in shifts))

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.blocks(self.enter(x)))
