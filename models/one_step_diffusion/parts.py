"""The parts of a latent diffusion model: U-Net, autoencoder, and low-rank additions to the U-Net."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from utils.extras import require

TOKENS = 77  # of a CLIP text encoder; shorter prompts are padded
CELL = 8  # pixels of a latent cell, per side
# Convolutions and linear layers of the U-Net that LoRA adapts: all but the first convolution and the time embedding.
LORA_TARGETS = (
    "to_k", "to_q", "to_v", "to_out.0", "conv", "conv1", "conv2", "conv_shortcut", "conv_out",
    "proj_in", "proj_out", "ff.net.2", "ff.net.0.proj",
)  # fmt: skip


@dataclass(frozen=True)
class Parts:
    """What a one-step network is made of.

    Args:
        unet: diffusers' UNet2DConditionModel without LoRA, predicting noise.
        vae: diffusers' AutoencoderKL with cells of 8 pixels a side.
        prompt: embedding (1, TOKENS, width) of the prompt that is used by default.
        latent_scale: factor that gives latents a deviation of about one.
        text_encoder: CLIPTextModel that embeds token ids, where there is one.
    """

    unet: nn.Module
    vae: nn.Module
    prompt: Tensor
    latent_scale: float
    text_encoder: nn.Module | None = None


def small_parts(channels: int, cross: int, vae_channels: int, latent: int) -> Parts:
    """Random parts of the same build as Stable Diffusion's, with two U-Net levels.

    Args:
        channels: of the first U-Net level, a multiple of 16; the second has twice as many.
        cross: width of the prompt's embedding.
        vae_channels: of the autoencoder's first two levels, a multiple of 8; the others have twice as many.
        latent: channels of the latent.
    """
    diffusers = require("diffusers", "generative")
    unet = diffusers.UNet2DConditionModel(
        in_channels=latent,
        out_channels=latent,
        block_out_channels=(channels, 2 * channels),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=cross,
        attention_head_dim=(2, 4),  # in diffusers this is the number of heads
        norm_num_groups=8,
        use_linear_projection=True,
    )
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(vae_channels, vae_channels, 2 * vae_channels, 2 * vae_channels),
        layers_per_block=1,
        latent_channels=latent,
        norm_num_groups=8,
    )
    return Parts(unet, vae, torch.randn(1, TOKENS, cross), 1.0)


def sd2_parts() -> Parts:
    """Shapes of Stable Diffusion 2.1-base without weights, on the meta device: 865.91 M parameters in the U-Net."""
    diffusers = require("diffusers", "generative")
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(320, 640, 1280, 1280),
            cross_attention_dim=1024,
            attention_head_dim=(5, 10, 20, 20),
            use_linear_projection=True,
        )
        vae = diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
        )
        return Parts(unet, vae, torch.empty(1, TOKENS, 1024), vae.config.scaling_factor)


def add_lora(unet: Any, rank: int) -> None:
    """Freeze the U-Net and add trainable B A to its layers (Hu et al. 2021, arXiv:2106.09685); B begins at zero."""
    peft = require("peft", "generative")
    unet.add_adapter(
        peft.LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=list(LORA_TARGETS))
    )


def is_lora(name: str) -> bool:
    """Whether a tensor of this name belongs to the low-rank additions."""
    return ".lora_" in name
