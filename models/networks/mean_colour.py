"""Mean colour of DIV2K, which many published SR networks subtract before the first layer and add after the last."""

from __future__ import annotations

import torch

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)


def div2k_mean() -> torch.Tensor:
    """(1, 3, 1, 1), RGB in [0, 1]."""
    return torch.tensor(DIV2K_MEAN).view(1, 3, 1, 1)
