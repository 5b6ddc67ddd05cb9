"""Counts multiply-accumulates (MAC) and parameters. One MAC is two FLOPs; convolutions and matrix products count."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(module: nn.Module) -> int:
    """Number of parameters, trainable or not; buffers such as BatchNorm statistics do not count."""
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def count_macs(module: nn.Module, *inputs: torch.Tensor) -> int:
    """MACs of module(*inputs), counted while it runs once in eval mode; its mode is restored."""
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        with FlopCounterMode(display=False) as counter:
            module(*inputs)
    finally:
        for child, training in modes.items():
            child.training = training
    return counter.get_total_flops() // 2


def count_macs_at(module: nn.Module, height: int, width: int) -> int:
    """MACs of a network for one RGB image of height x width; only shapes are computed, so any size is quick."""
    return count_macs(OnMeta(module), torch.empty(1, 3, height, width, device="meta"))


class OnMeta(nn.Module):
    """Calls a network with its weights replaced by shapes without content; the network itself stays as it is."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        tensors = dict(self.network.named_parameters()) | dict(self.network.named_buffers())
        tensors = {name: tensor.detach().to("meta") for name, tensor in tensors.items()}
        return torch.func.functional_call(self.network, tensors, inputs)
