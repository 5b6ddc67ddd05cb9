"""A hybrid of LM-LTE and LM-CiaoSR: Fourier features of local and cross-scale maps, attended over four offsets.

Not in the LMF paper (arXiv:2404.16451); the latent stage is CiaoSR's attention, the renderer LM-LTE's.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.lmf.cross_scale_attention import CrossScaleAttention
from models.lmf.lm_lte import FourierRenderer, fourier
from models.lmf.mlp import WIDTH, RenderMLP, latent_mlp

OCTAVES = 8


def encode_position(position: Tensor) -> Tensor:
    """sin and cos of 2^k pi * position, k = 0 ... OCTAVES - 1: (..., 2) to (..., 4 * OCTAVES) (NeRF, 2003.08934)."""
    factors = math.pi * 2.0 ** torch.arange(OCTAVES, device=position.device, dtype=position.dtype)
    angles = position[..., None] * factors
    return torch.cat((angles.sin(), angles.cos()), dim=-1).flatten(-2)


class HybridDecoder(nn.Module):
    """Keys and values of an LR pixel, seen from four offsets of half an LR pixel, are weighed by its query.

    The frequencies are multiplied by the offset, as LTE does with relative positions: with values that do not depend on
    it, the attention would have no effect and its MLPs no gradient.

    Args:
        n_feats: maps of the encoder.
        depth: hidden layers of the render MLP.
    """

    skip = True
    receptive_radius = None  # attention knows no distance

    def __init__(self, n_feats: int, depth: int = 8):
        super().__init__()
        self.depth = depth
        both = 2 * n_feats  # local and cross-scale features
        self.non_local = CrossScaleAttention(n_feats)
        self.coef = nn.Linear(both, both, bias=False)
        self.freq = nn.Linear(both, both, bias=False)
        self.phase = nn.Linear(2, both // 2, bias=False)
        self.query_mlp = latent_mlp(n_feats, 256, n_feats)
        self.key_mlp = latent_mlp(n_feats // 2 + 4 * OCTAVES + 2, 256, n_feats)
        self.value_mlp = latent_mlp(both, 256, both)
        self.latent_mlp = latent_mlp(both, 288, 2 * WIDTH * depth + 2 * WIDTH)
        self.renderer = FourierRenderer()
        self.render_mlp = RenderMLP(WIDTH, depth)

    def latent(self, features: Tensor, cell: Tensor) -> Tensor:
        """Scales, shifts and code of every LR pixel, (B, h * w, 2 * WIDTH * (depth + 1)).

        Args:
            features: (B, n_feats, h, w).
            cell: (B or 1, 2), see `relative_cell`.
        """
        local = features.flatten(2).transpose(1, 2)  # (B, h * w, n_feats)
        value = torch.cat((local, self.non_local(features).flatten(2).transpose(1, 2)), dim=-1)
        coef, freq = self.coef(value), self.freq(value).unflatten(-1, (-1, 2))
        query = self.query_mlp(local)
        scores, values = [], []
        for y in (0.5, -0.5):
            for x in (0.5, -0.5):
                offset = local.new_tensor([y, x])
                place = torch.cat((encode_position(offset).expand(len(cell), -1), cell), dim=-1)[:, None]
                projected = (local.unflatten(-1, (-1, 2)) * offset).sum(-1)  # (B, h * w, n_feats / 2)
                key = torch.cat((projected, place.expand(*local.shape[:2], -1)), dim=-1)
                scores.append((query * local * self.key_mlp(key)).sum(-1))
                waves = fourier(coef, (freq * offset).sum(-1) + self.phase(cell)[:, None])
                values.append(value * self.value_mlp(waves))
        attention = torch.stack(scores, dim=-1).softmax(dim=-1).to(value.dtype)  # (B, h * w, 4)
        return self.latent_mlp((torch.stack(values, dim=-1) @ attention[..., None])[..., 0])

    def render_input(self, code: Tensor, relative: Tensor, cell: Tensor) -> Tensor:
        """See FourierRenderer."""
        return self.renderer(code, relative, cell)
