"""LM-LIIF: LIIF (Chen et al. 2021, arXiv:2012.09161) as a Latent Modulated Function (arXiv:2404.16451)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.lmf.mlp import WIDTH, RenderMLP, latent_mlp


class LIIFDecoder(nn.Module):
    """The latent MLP sees 3x3 features and the cell; the render MLP a compressed code, relative position and cell.

    Args:
        n_feats: maps of the encoder.
        depth: hidden layers of the render MLP.
        hidden: hidden maps of the latent MLP.
    """

    skip = False
    receptive_radius = 2  # 3x3 features, and a neighbouring LR pixel of the query

    def __init__(self, n_feats: int, depth: int = 6, hidden: int = 208):
        super().__init__()
        self.depth = depth
        self.latent_mlp = latent_mlp(9 * n_feats + 2, hidden, 2 * WIDTH * depth + WIDTH)
        self.render_mlp = RenderMLP(WIDTH + 2 + 2, depth)

    def latent(self, features: Tensor, cell: Tensor) -> Tensor:
        """Scales, shifts and code of every LR pixel, (B, h * w, 2 * WIDTH * depth + WIDTH).

        Args:
            features: (B, n_feats, h, w).
            cell: (B or 1, 2), see `relative_cell`.
        """
        first, activation, second = self.latent_mlp
        assert isinstance(first, nn.Linear)
        n_feats = features.shape[1]
        # A linear layer of 3x3 features is a 3x3 convolution; nine copies of the features need not exist.
        kernel = first.weight[:, :-2].unflatten(1, (n_feats, 3, 3))
        x = F.conv2d(features, kernel, first.bias, padding=1)
        x = x.flatten(2).transpose(1, 2) + F.linear(cell, first.weight[:, -2:])[:, None]  # (B, h * w, hidden)
        return second(activation(x))

    def render_input(self, code: Tensor, relative: Tensor, cell: Tensor) -> Tensor:
        """(B, Q, WIDTH + 4) from codes (B, Q, WIDTH), relative positions (B or 1, Q, 2) and cells (B or 1, 2)."""
        shape = (*code.shape[:-1], 2)
        return torch.cat((code, relative.expand(shape), cell[:, None].expand(shape)), dim=-1)
