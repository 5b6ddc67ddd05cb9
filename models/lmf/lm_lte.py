"""LM-LTE: LTE (Lee & Jin 2022, arXiv:2111.08918) as a Latent Modulated Function (arXiv:2404.16451)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.lmf.mlp import WIDTH, RenderMLP, latent_mlp


def fourier(amplitude: Tensor, phase: Tensor) -> Tensor:
    """amplitude * [cos(pi phase), sin(pi phase)], channels last; (..., 2 n) from (..., 2 n) and (..., n)."""
    phase = math.pi * phase.float()  # bfloat16 would lose whole turns
    return amplitude * torch.cat((phase.cos(), phase.sin()), dim=-1).to(amplitude.dtype)


class FourierRenderer(nn.Module):
    """Input of LM-LTE's render MLP: WIDTH Fourier terms whose frequencies and amplitudes are the LR pixel's code."""

    def __init__(self):
        super().__init__()
        self.phase = nn.Linear(2, WIDTH // 2, bias=False)

    def forward(self, code: Tensor, relative: Tensor, cell: Tensor) -> Tensor:
        """(B, Q, WIDTH) from codes (B, Q, 2 * WIDTH), relative positions (B or 1, Q, 2) and cells (B or 1, 2)."""
        amplitude, frequency = code.split(WIDTH, dim=-1)
        phase = (frequency.unflatten(-1, (WIDTH // 2, 2)) * relative[..., None, :]).sum(-1)
        return fourier(amplitude, phase + self.phase(cell)[:, None])


class LTEDecoder(nn.Module):
    """Amplitudes and frequencies feed the latent MLP; the renderer adds its residual to bilinear interpolation.

    Args:
        n_feats: maps of the encoder.
        depth: hidden layers of the render MLP.
        n_waves: Fourier terms of the latent stage.
        hidden: hidden maps of the latent MLP.
    """

    skip = True
    receptive_radius = 2  # 3x3 features, and a neighbouring LR pixel of the query

    def __init__(self, n_feats: int, depth: int = 8, n_waves: int = 128, hidden: int = 288):
        super().__init__()
        self.depth = depth
        self.coef = nn.Conv2d(n_feats, n_waves, 3, padding=1)
        self.freq = nn.Conv2d(n_feats, n_waves, 3, padding=1)
        self.phase = nn.Linear(2, n_waves // 2, bias=False)
        self.latent_mlp = latent_mlp(n_waves, hidden, 2 * WIDTH * depth + 2 * WIDTH)
        self.renderer = FourierRenderer()
        self.render_mlp = RenderMLP(WIDTH, depth)

    def latent(self, features: Tensor, cell: Tensor) -> Tensor:
        """Scales, shifts and code of every LR pixel, (B, h * w, 2 * WIDTH * (depth + 1)).

        Args:
            features: (B, n_feats, h, w).
            cell: (B or 1, 2), see `relative_cell`.
        """
        amplitude = self.coef(features).flatten(2).transpose(1, 2)  # (B, h * w, n_waves)
        frequency = self.freq(features).flatten(2).transpose(1, 2)
        phase = frequency.unflatten(-1, (-1, 2)).sum(-1) + self.phase(cell)[:, None]
        return self.latent_mlp(fourier(amplitude, phase))

    def render_input(self, code: Tensor, relative: Tensor, cell: Tensor) -> Tensor:
        """See FourierRenderer."""
        return self.renderer(code, relative, cell)
