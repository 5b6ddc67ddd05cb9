"""LM-CiaoSR: CiaoSR (Cao et al. 2023, arXiv:2212.04362) as a Latent Modulated Function (arXiv:2404.16451).

Written from the description of the method.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.device_constants import on_device
from models.lmf.cross_scale_attention import CrossScaleAttention
from models.lmf.mlp import WIDTH, RenderMLP, latent_mlp

CODE = 2 * WIDTH


class CiaoSRDecoder(nn.Module):
    """Each LR pixel attends to the four 2x2 windows around it, whose values carry cross-scale features of the image.

    Keys and values are multiplied by what an MLP makes of them, their position and the cell. The attended value feeds
    the latent MLP. The renderer adds its residual to bilinear interpolation, in training and in evaluation.

    Args:
        n_feats: maps of the encoder.
        depth: hidden layers of the render MLP.
        weight_compat: compute as the authors' training code did, for weights that it made: windows read from the
            unfolded features in the order (3, 3, n_feats), upper right and lower left exchanged, distances of windows
            divided by the image size, and no interpolation added (their code adds it in evaluation only, where a
            network trained without it gets every image twice).
    """

    receptive_radius = None  # attention knows no distance

    def __init__(self, n_feats: int, depth: int = 8, weight_compat: bool = False):
        super().__init__()
        self.depth = depth
        self.weight_compat = weight_compat
        self.skip = not weight_compat
        self.non_local = CrossScaleAttention(n_feats)
        window, value = 4 * n_feats, 5 * n_feats
        self.query_mlp = latent_mlp(9 * n_feats, 256, window)
        self.key_mlp = latent_mlp(window + 4, 256, window)
        self.value_mlp = latent_mlp(value + 4, 256, value)
        self.latent_mlp = latent_mlp(value, 288, 2 * WIDTH * depth + CODE)
        self.render_mlp = RenderMLP(CODE + 2, depth)

    def latent(self, features: Tensor, cell: Tensor) -> Tensor:
        """Scales, shifts and code of every LR pixel, (B, h * w, 2 * WIDTH * (depth + 1)).

        Args:
            features: (B, n_feats, h, w).
            cell: (B or 1, 2), see `relative_cell`.
        """
        around = F.unfold(features, 3, padding=1).transpose(1, 2)  # (B, h * w, n_feats * 9)
        distant = self.non_local(features).flatten(2).transpose(1, 2)  # (B, h * w, n_feats)
        query = self.query_mlp(around)
        scores, values = [], []
        for row in (0, 1):
            for column in (0, 1):
                window = self.window(around, row, column)
                place = self.place(row, column, features, cell).expand(*window.shape[:2], 4)
                key = window * self.key_mlp(torch.cat((window, place), dim=-1))
                value = torch.cat((window, distant), dim=-1)
                values.append(value * self.value_mlp(torch.cat((value, place), dim=-1)))
                scores.append((query * key).sum(-1))
        attention = torch.stack(scores, dim=-1).softmax(dim=-1).to(distant.dtype)  # (B, h * w, 4)
        return self.latent_mlp((torch.stack(values, dim=-1) @ attention[..., None])[..., 0])

    def window(self, around: Tensor, row: int, column: int) -> Tensor:
        """The 2x2 window at one corner of 3x3 features (B, N, n_feats * 9), as (B, N, n_feats * 4)."""
        if self.weight_compat:
            return around.unflatten(-1, (3, 3, -1))[:, :, column : column + 2, row : row + 2].flatten(2)
        return around.unflatten(-1, (-1, 3, 3))[..., row : row + 2, column : column + 2].flatten(2)

    def place(self, row: int, column: int, features: Tensor, cell: Tensor) -> Tensor:
        """Distance of the LR pixel from the middle of a window, in half LR pixels, and the cell: (B or 1, 1, 4)."""
        distance = torch.tensor([1.0 - 2 * row, 1.0 - 2 * column])
        if self.weight_compat:
            distance = distance / torch.tensor(features.shape[-2:])
        distance = on_device(distance, features.device).to(features.dtype)
        return torch.cat((distance.expand(len(cell), 2), cell), dim=-1)[:, None]

    def render_input(self, code: Tensor, relative: Tensor, cell: Tensor) -> Tensor:
        """(B, Q, CODE + 2) from codes (B, Q, CODE) and relative positions (B or 1, Q, 2); the cell is not used."""
        return torch.cat((code, relative.expand(*code.shape[:-1], 2)), dim=-1)
