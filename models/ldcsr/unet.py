"""The network that sees the noise in a latent: a plain U-Net, told the step, the scale and the output's height."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.ldcsr.encoder import MULTIPLIERS, norm_groups
from utils.errors import UserError
from utils.extras import require

MULTIPLE = 2 ** (len(MULTIPLIERS) - 1)  # of the sides that the U-Net halves three times
HEAD = 32  # channels of an attention head


def pad_to_multiple(latent: Tensor, multiple: int = MULTIPLE) -> Tensor:
    """Extended below and on the right to multiples: mirrored; repeated where a side is too short for that."""
    for axis, padding in ((2, (0, 0, 0, 1)), (3, (0, 1, 0, 0))):
        missing = -latent.shape[axis] % multiple
        if missing:
            mode = "reflect" if missing < latent.shape[axis] else "replicate"
            latent = F.pad(latent, tuple(missing * part for part in padding), mode=mode)
    return latent


class LatentUNet(nn.Module):
    """Noise in latents (B, L, h, w), seen beside the condition of the same shape.

    Args:
        latent_channels: of the latent.
        channels: feature maps at the latent's resolution, a multiple of 8; below there are 2, 2 and 4 times as
            many, the last with attention in heads of 32.

    Raises:
        UserError: channels is no multiple of 8.
    """

    def __init__(self, latent_channels: int, channels: int):
        super().__init__()
        if channels % (HEAD // MULTIPLIERS[-1]):
            raise UserError(f"LDCSR: unet_channels is {channels}, but must be a multiple of {HEAD // MULTIPLIERS[-1]}")
        diffusers = require("diffusers", "generative")
        embeddings = require("diffusers.models.embeddings", "generative")
        plain = len(MULTIPLIERS) - 1
        self.unet = diffusers.UNet2DModel(
            in_channels=2 * latent_channels,
            out_channels=latent_channels,
            block_out_channels=tuple(channels * factor for factor in MULTIPLIERS),
            down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",),
            up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * plain,
            layers_per_block=2,
            attention_head_dim=HEAD,
            norm_num_groups=norm_groups(channels),
            norm_eps=1e-5,
            class_embed_type="identity",  # takes the sum of the two embeddings below
            freq_shift=0,
            flip_sin_to_cos=True,
        )
        self.scale = embeddings.TimestepEmbedding(channels, 4 * channels)
        self.height = embeddings.TimestepEmbedding(channels, 4 * channels)

    def forward(self, latent: Tensor, condition: Tensor, t: int, scale: float, height: int) -> Tensor:
        """Predicted noise, of the latent's shape, in the type of the weights.

        Args:
            latent: z_t (B, L, h, w).
            condition: (B, L, h, w).
            t: step.
            scale: HR pixels per LR pixel.
            height: of the HR image in pixels.
        """
        rows, columns = latent.shape[-2:]
        x = pad_to_multiple(torch.cat([latent, condition], 1)).to(self.unet.dtype)
        factor, side = (
            self.unet.time_proj(torch.tensor([number], dtype=torch.float32, device=x.device)).to(x.dtype)
            for number in (scale, height)
        )
        told = (self.scale(factor) + self.height(side)).expand(len(x), -1)
        return self.unet(x, t, class_labels=told).sample[..., :rows, :columns]
