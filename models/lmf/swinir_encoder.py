"""SwinIR as a feature encoder for arbitrary-scale SR (Liang et al. 2021, arXiv:2108.10257), without its upsampler."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WINDOW = 8


def windows(x: Tensor) -> Tensor:
    """Maps (B, h, w, C) as windows (B, h / 8 * w / 8, 64, C)."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // WINDOW, WINDOW, width // WINDOW, WINDOW, channels)
    return x.transpose(2, 3).reshape(batch, -1, WINDOW * WINDOW, channels)


def unwindows(x: Tensor, height: int, width: int) -> Tensor:
    """Inverse of `windows`."""
    batch, channels = x.shape[0], x.shape[-1]
    x = x.reshape(batch, height // WINDOW, width // WINDOW, WINDOW, WINDOW, channels)
    return x.transpose(2, 3).reshape(batch, height, width, channels)


def shift_mask(height: int, width: int, like: Tensor) -> Tensor:
    """0 where two pixels of a shifted window are neighbours in the image, -100 where the shift wrapped one of them.

    Returns:
        (windows, 1, 64, 64), added to the attention of every head.
    """

    def regions(size: int) -> Tensor:
        pixel = torch.arange(size, device=like.device)
        return (pixel >= size - WINDOW).int() + (pixel >= size - WINDOW // 2).int()

    region = 3 * regions(height)[:, None] + regions(width)[None]
    region = windows(region[None, :, :, None])[0, :, :, 0]  # (windows, 64)
    return -100.0 * (region[:, None, :, None] != region[:, None, None, :]).to(like.dtype)


def relative_positions() -> Tensor:
    """Row of the position-bias table for each pair of pixels of a window, int64 (64, 64)."""
    y, x = torch.meshgrid(torch.arange(WINDOW), torch.arange(WINDOW), indexing="ij")
    y, x = y.flatten(), x.flatten()
    return (y[:, None] - y + WINDOW - 1) * (2 * WINDOW - 1) + (x[:, None] - x + WINDOW - 1)


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with a learned bias for each relative position."""

    positions: Tensor

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, heads))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.register_buffer("positions", relative_positions(), persistent=False)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Args:
        x: (B, windows, 64, dim).
        mask: see `shift_mask`.
        """
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).movedim(-3, 0).transpose(-3, -2)
        attention = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (B, windows, heads, 64, 64)
        attention = attention + self.relative_position_bias_table[self.positions].permute(2, 0, 1)
        if mask is not None:
            attention = attention + mask
        x = attention.softmax(dim=-1) @ v  # (B, windows, heads, 64, dim / heads)
        return self.proj(x.transpose(-3, -2).flatten(-2))


class MLP(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class SwinBlock(nn.Module):
    """Attention in windows, shifted by half a window in every second block, and an MLP, each with a skip."""

    def __init__(self, dim: int, heads: int, shift: int):
        super().__init__()
        self.shift = shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, 2 * dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Args:
        x: (B, h, w, dim).
        mask: see `shift_mask`; for the shifted windows.
        """
        y = self.norm1(x)
        if self.shift:
            y = y.roll((-self.shift, -self.shift), dims=(1, 2))
        y = unwindows(self.attn(windows(y), mask if self.shift else None), *x.shape[1:3])
        if self.shift:
            y = y.roll((self.shift, self.shift), dims=(1, 2))
        x = x + y
        return x + self.mlp(self.norm2(x))


class SwinGroup(nn.Module):
    """Blocks, a convolution, and a skip around both."""

    def __init__(self, dim: int, depth: int, heads: int):
        super().__init__()
        self.blocks = nn.ModuleList([SwinBlock(dim, heads, WINDOW // 2 * (i % 2)) for i in range(depth)])
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = x
        for block in self.blocks:
            y = block(y, mask)
        return x + self.conv(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class SwinIREncoder(nn.Module):
    """Maps images (B, 3, h, w) in [-1, 1], sides divisible by `multiple`, to features (B, n_feats, h, w).

    The defaults are those of the LMF paper. There is no stochastic depth: training and evaluation compute the same.
    `receptive_radius` is None: windows lie at multiples of 8, so a window of the image gives other features than
    the image.

    Args:
        dim: maps of the transformer.
        depths: blocks of each group.
        heads: attention heads.
        n_feats: feature maps of the result.
    """

    multiple = WINDOW
    receptive_radius = None

    def __init__(self, dim: int = 180, depths: tuple[int, ...] = (6,) * 6, heads: int = 6, n_feats: int = 64):
        super().__init__()
        self.conv_first = nn.Conv2d(3, dim, 3, padding=1)
        self.norm_first = nn.LayerNorm(dim)
        self.layers = nn.ModuleList([SwinGroup(dim, depth, heads) for depth in depths])
        self.norm = nn.LayerNorm(dim)
        self.conv_after_body = nn.Conv2d(dim, dim, 3, padding=1)
        self.conv_before_upsample = nn.Sequential(nn.Conv2d(dim, n_feats, 3, padding=1), nn.LeakyReLU())
        self.initialize_weights()

    def initialize_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        shallow = self.conv_first(x)
        mask = shift_mask(x.shape[-2], x.shape[-1], shallow)
        y = self.norm_first(shallow.permute(0, 2, 3, 1))  # (B, h, w, dim)
        for group in self.layers:
            y = group(y, mask)
        y = self.norm(y).permute(0, 3, 1, 2)
        return self.conv_before_upsample(shallow + self.conv_after_body(y))  # (B, n_feats, h, w)
