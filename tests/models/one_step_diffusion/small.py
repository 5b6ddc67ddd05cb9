"""A tiny one-step network and images for the tests."""

from __future__ import annotations

import torch

from models import build_sr
from models.one_step_diffusion import OneStepDiffusion

ARGS = {"channels": 32, "vae_channels": 16, "rank": 4}


def small_network(scale: float = 4, trained: bool = False, **args) -> OneStepDiffusion:
    """In evaluation mode, from a fixed seed; `trained`: the low-rank additions are not zero any more."""
    torch.manual_seed(0)
    network = build_sr("one_step_diffusion", scale, ARGS | args).eval()
    if trained:
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if ".lora_B." in name:
                    parameter.normal_(std=0.05)
    return network
