"""The two MLPs of a Latent Modulated Function (He & Jin 2024, arXiv:2404.16451, section 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 16  # of the hidden layers of the render MLP, for every model of the paper


def latent_mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Runs once per LR pixel: Linear - ReLU - Linear."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


class RenderMLP(nn.Module):
    """Runs once per query and neighbour: `depth` hidden layers of WIDTH maps, each modulated, then Linear to RGB.

    Hidden layer k is ReLU((1 + scale_k) * (W x + b) + shift_k). Scales and shifts belong to the LR pixel; each layer
    looks up its own only when its turn comes, which bounds the memory.

    Args:
        inputs: input maps.
        depth: hidden layers.
    """

    def __init__(self, inputs: int, depth: int):
        super().__init__()
        self.hidden = nn.ModuleList([nn.Linear(inputs if k == 0 else WIDTH, WIDTH) for k in range(depth)])
        self.rgb = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor, modulations: Tensor, index: Tensor) -> Tensor:
        """Args:
        x: (..., inputs).
        modulations: (depth, N, 2 * WIDTH), of every layer and LR pixel: 1 + scales, then shifts.
        index: LR pixel of each query, int64 (...), in [0, N).
        """
        for layer, table in zip(self.hidden, modulations):
            factor, shift = F.embedding(index, table).chunk(2, dim=-1)  # (..., WIDTH) each
            x = torch.addcmul(shift, factor, layer(x)).relu_()
        return self.rgb(x)
