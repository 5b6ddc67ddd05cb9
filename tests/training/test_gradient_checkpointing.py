"""training/gradient_checkpointing.py: the same gradients with less kept, whatever the network."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from models import build_sr
from models.sr_quality import ResBlock
from training.gradient_checkpointing import checkpoint_blocks, repeated_blocks


def saved_bytes(network: nn.Module, lr: torch.Tensor) -> int:
    """Bytes of activations that a forward pass keeps for the backward pass."""
    total = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal total
        total += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(lr)
    return total


def test_gradients_stay_the_same_and_memory_falls():
    plain = build_sr("edsr", 2, {"n_blocks": 6, "n_feats": 8})
    frugal = copy.deepcopy(plain)
    assert checkpoint_blocks(frugal) == 6
    lr = torch.rand(2, 3, 12, 12)
    for network in (plain, frugal):
        network(lr).square().mean().backward()
    assert plain.state_dict().keys() == frugal.state_dict().keys()
    for (name, one), other in zip(plain.named_parameters(), frugal.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad), name
    assert saved_bytes(frugal, lr) < 0.7 * saved_bytes(plain, lr)


def test_evaluation_is_untouched():
    network = build_sr("edsr", 2, {"n_blocks": 2, "n_feats": 4}).eval()
    lr = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        before = network(lr)
        checkpoint_blocks(network)
        assert torch.equal(network(lr), before)


def test_blocks_are_the_largest_group_of_equal_siblings():
    network = build_sr("edsr", 2, {"n_blocks": 5, "n_feats": 4})
    assert [type(block) for block in repeated_blocks(network)] == [ResBlock] * 5

    class Named(nn.Module):
        """Blocks as attributes, as CARN and IMDN have them."""

        def __init__(self):
            super().__init__()
            self.b1, self.b2, self.b3 = (ResBlock(4, 1.0) for _ in range(3))

    assert len(repeated_blocks(Named())) == 3
    assert repeated_blocks(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))) == []


def test_batch_norm_is_refused():
    with pytest.raises(ValueError, match="SRResNet have BatchNorm, whose statistics would be updated twice"):
        checkpoint_blocks(build_sr("srresnet", 2, {"n_blocks": 2, "n_feats": 4}))
