"""Gradient checkpointing (Chen et al. 2016, arXiv:1604.06174) of a network's repeated blocks, whatever the network."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from utils.errors import UserError

CONTAINERS = (nn.Sequential, nn.ModuleList)


def checkpoint_blocks(network: nn.Module) -> int:
    """Let the repeated blocks keep their inputs only and recompute the rest in the backward pass.

    Gradients stay the same; names and values of parameters and the evaluation mode are not touched.

    Returns:
        Number of blocks, or of parts that diffusers makes and recomputes in its own way; 0 where nothing is repeated.

    Raises:
        ValueError: a block has BatchNorm, whose running statistics the recomputation would update twice.
    """
    library = [module for module in network.modules() if hasattr(module, "enable_gradient_checkpointing")]
    if library:  # the parts that diffusers makes know best what to recompute
        for module in library:
            module.enable_gradient_checkpointing()
        return len(library)
    blocks = repeated_blocks(network)
    if any(isinstance(module, _BatchNorm) for block in blocks for module in block.modules()):
        raise UserError(
            f"gradient_checkpointing: the blocks of {type(network).__name__} have BatchNorm, whose statistics would be"
            " updated twice; switch it off, or use a network without BatchNorm"
        )
    for block in blocks:
        block.forward = _recomputing(block.forward)
    return len(blocks)


def repeated_blocks(network: nn.Module) -> list[nn.Module]:
    """The siblings of one class, themselves made of modules, that hold the most parameters; [] where there are none.

    Lists of modules as attributes (head, body, tail) are parts of a network, not repetitions.
    """
    groups = [[]]
    for parent in network.modules():
        siblings = defaultdict(list)
        for child in parent.children():
            is_part = isinstance(child, CONTAINERS) and not isinstance(parent, CONTAINERS)
            if any(True for _ in child.children()) and not is_part:
                siblings[type(child)].append(child)
        groups += [group for group in siblings.values() if len(group) > 1]
    return max(groups, key=lambda group: sum(p.numel() for block in group for p in block.parameters()))


def _recomputing(forward):
    def recomputed(*inputs, **options):
        if not torch.is_grad_enabled():
            return forward(*inputs, **options)
        return checkpoint(forward, *inputs, use_reentrant=False, **options)

    return recomputed
