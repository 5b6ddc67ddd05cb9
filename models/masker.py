"""The Masker decides, patch by patch, whether an LR image needs SR_Quality."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def patch_grid(height: int, width: int, patch: int) -> tuple[int, int]:
    """Rows and columns of patches of an LR image; the last ones may be partial."""
    return -(-height // patch), -(-width // patch)


def pool_to_grid(x: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Average features (B, C, h, w) over the cells of a grid -> (B, C, gh, gw)."""
    height, width = x.shape[-2:]
    if height % grid[0] == 0 and width % grid[1] == 0:  # the adaptive one has no deterministic backward on CUDA
        return F.avg_pool2d(x, (height // grid[0], width // grid[1]))
    return F.adaptive_avg_pool2d(x, grid)


class Masker(nn.Module):
    """Two strided convolutions, one at a quarter of LR resolution, pooling to the patch grid, one look at the neighbours.

    Every image is treated on its own (no BatchNorm), so a batch gives what its images give one by one.

    Args:
        patch: side of a patch in LR pixels, 4 ... 64.
        channels: maps of the first convolution, later ones have twice as many.
        bias: initial logit in favour of SR_Quality; training starts from the good image and learns what to drop.

    Raises:
        ValueError: patch outside 4 ... 64.
    """

    def __init__(self, patch: int, channels: int = 16, bias: float = 2.0):
        super().__init__()
        if not 4 <= patch <= 64:
            raise ValueError(f"masker: patch is {patch}; use 4 to 64 LR pixels")
        self.patch = patch
        self.channels = channels
        self.bias = bias
        self.features = nn.Sequential(
            nn.Conv2d(3, channels, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(2 * channels, 2 * channels, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.context = nn.Sequential(nn.Conv2d(2 * channels, 2 * channels, 3, padding=1), nn.ReLU(inplace=True))
        self.logits = nn.Conv2d(2 * channels, 2, 1)
        self.initialize_weights()

    def initialize_weights(self) -> None:
        for layer in (*self.features, *self.context):
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        nn.init.normal_(self.logits.weight, std=0.01)  # so that the bias decides at the start
        with torch.no_grad():
            self.logits.bias.copy_(torch.tensor([0.0, self.bias]))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the mask of an LR image of height x width pixels."""
        return patch_grid(height, width, self.patch)

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        """LR images (B, 3, h, w) in [0, 1] -> logits (B, 2, ceil(h / patch), ceil(w / patch)), channel 1 = quality."""
        height, width = lr.shape[-2:]
        rows, columns = self.grid(height, width)
        x = (lr - 0.5) / 0.25  # about zero mean and unit variance, as the initialisation assumes
        x = F.pad(x, (0, columns * self.patch - width, 0, rows * self.patch - height), mode="replicate")
        x = self.features(x)  # (B, 2C, gh * patch / 4, gw * patch / 4)
        x = self.context(pool_to_grid(x, (rows, columns)))  # (B, 2C, gh, gw)
        return self.logits(x)  # (B, 2, gh, gw)
