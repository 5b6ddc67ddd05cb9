"""What a network holds at once, and how large its tiles may be for it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.sr_network import SRNetwork
from models.tiling.whole import LEAST_SIDE


def largest_tile(network: SRNetwork, memory_mb: int) -> int:
    """Side in LR pixels of tiles that with their halo take about so much memory in one call."""
    can = network.capabilities
    side = math.isqrt(int(memory_mb * 1e6 / activation_bytes(network, torch.float32)))
    return max(side // can.size_multiple * can.size_multiple - 2 * can.halo, 2 * can.blend, LEAST_SIDE)


def activation_bytes(network: nn.Module, dtype: torch.dtype) -> float:
    """About the bytes that a network holds at once per LR pixel: twice the largest input plus output of a layer."""
    if not any(True for _ in network.parameters()):
        return 24.0 * network.scale**2  # interpolation: input and output in fp32
    return layer_bytes(network, max(24, network.capabilities.size_multiple), dtype)


def layer_bytes(network: nn.Module, side: int, dtype: torch.dtype) -> float:
    """Twice the largest input plus output of a layer, in bytes per pixel of an image of side x side pixels."""
    largest = 0

    def note(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        nonlocal largest
        tensors = [t for t in (*inputs, output) if isinstance(t, Tensor)]
        largest = max(largest, sum(t.numel() for t in tensors))

    hooks = [module.register_forward_hook(note) for module in network.modules() if not list(module.children())]
    parameter = next(network.parameters())
    try:
        with torch.inference_mode():
            network(torch.zeros(1, 3, side, side, device=parameter.device, dtype=parameter.dtype))
    finally:
        for hook in hooks:
            hook.remove()
    return 2.0 * largest * torch.empty((), dtype=dtype).element_size() / side**2
