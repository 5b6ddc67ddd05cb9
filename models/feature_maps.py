"""What an SR network knows of an image before it enlarges it: its features at LR resolution."""

from __future__ import annotations

from typing import Protocol, cast

import torch
from torch import Tensor, nn

from models.sr_network import SRNetwork
from utils.errors import UserError


class HasFeatures(Protocol):
    """What networks have whose capabilities tell of `features`."""

    def features(self, lr: Tensor) -> Tensor: ...


class _Found(Exception):
    """Ends a call of the network as soon as its features are there."""

    def __init__(self, features: Tensor):
        self.features = features


@torch.no_grad()
def feature_maps(network: SRNetwork, lr: Tensor) -> Tensor:
    """Features (B, C, h, w), in the network's own units, of LR images (B, 3, h, w) in [0, 1].

    They are what `network.features(lr)` gives where the capabilities tell of it, else what enters the network's `tail`.

    Raises:
        UserError: the network has none: no layers at all (bicubic), or none between LR and SR that are known.
    """
    can, sides = network.capabilities, lr.shape[-2:]
    if can.features:
        return cast(HasFeatures, network).features(lr)[..., : sides[0], : sides[1]]
    tail, multiple = network.tail, can.size_multiple
    padded = {tuple(-(-side // multiple) * multiple for side in sides), tuple(sides)}

    def look(module: nn.Module, inputs: tuple) -> None:
        x = inputs[0] if inputs else None
        if isinstance(x, Tensor) and x.dim() == 4 and tuple(x.shape[-2:]) in padded:
            raise _Found(x.clone())  # the network may go on in place

    hooks = [module.register_forward_pre_hook(look) for module in (() if tail is None else tail.modules())]
    try:
        network(lr, *([tuple(round(network.scale * side) for side in sides)] if can.takes_size else []))
    except _Found as found:
        return found.features[..., : sides[0], : sides[1]]
    finally:
        for hook in hooks:
            hook.remove()
    name = network.spec["name"]
    raise UserError(f"{name} has no features of the LR image: nothing at its resolution enters its last layers")
