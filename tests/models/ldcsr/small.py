"""A small LDCSR, for tests."""

from __future__ import annotations

import copy
from functools import cache

import torch

from models import build_sr

DECODER = {"channels": 8, "n_modules": 1, "encoder_channels": 4, "levels": 2, "width": 8}
WHOLE = DECODER | {"unet_channels": 8}


def small(name: str = "ldcsr", scale: float = 4, **more):
    """A network in evaluation mode whose weights are all random, none left as the initialisation set them."""
    return copy.deepcopy(_built(name, scale, tuple(more.items())))  # faster than building it again


@cache
def _built(network_name: str, scale: float, more: tuple):
    torch.manual_seed(0)
    network = build_sr(network_name, scale, (WHOLE if network_name == "ldcsr" else DECODER) | dict(more)).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
            if name.endswith("conv_du.0.bias"):
                parameter.fill_(1.0)  # the one unit of a narrow attention stays alive
    return network
