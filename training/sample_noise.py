"""Noise for training that is a pure function of (seed, epoch, sample index), whatever the batch and the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def sample_noise(
    keys: Sequence[tuple[int, int]], seed: int, stream: int, shape: Sequence[int], device: torch.device
) -> Tensor:
    """Standard normal numbers (B, *shape), each sample's drawn on the CPU from numbers of its own.

    Args:
        keys: (epoch, index) of each sample.
        seed: of the run.
        stream: other numbers for other purposes.
        shape: of one sample's noise.
        device: where it goes.
    """
    rows = []
    for key in keys:
        number = int(np.random.default_rng((seed, *key, stream)).integers(2**62))
        rows.append(torch.randn(tuple(shape), generator=torch.Generator().manual_seed(number)))
    return torch.stack(rows).to(device, non_blocking=True)
