"""What the attention of an SR network looks at: gates of channels and places, and softmax attention, as maps.

Nothing in a network has to be prepared for this. While it runs once, every sigmoid and softmax is noted with the module
in which it happened; what is one of places or channels by its shape becomes a map.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from models.sr_network import SRNetwork

SIGMOIDS = (torch.sigmoid, Tensor.sigmoid, F.sigmoid)
SOFTMAXES = (torch.softmax, Tensor.softmax, F.softmax)
COARSEST, LEAST = 32, 16  # attention on features at 1/32 of the image's resolution is still laid out, if of 16 places
SHIFTS = ("shift_size", "shift")  # what blocks with shifted windows call the shift


@dataclass(frozen=True)
class Attention:
    """One attention of one image.

    Args:
        name: of the module.
        kind: "channels": factor of each feature map; "places": how much each place counts.
        weights: float32 (C,), or (h', w') at the resolution of the attention, the image's or coarser.
    """

    name: str
    kind: Literal["channels", "places"]
    weights: Tensor


@torch.no_grad()
def attention_maps(network: SRNetwork, lr: Tensor) -> list[Attention]:
    """Attentions of one LR image (1, 3, h, w) in [0, 1], in the order in which they happen; empty where there are none.

    Of softmax attention it is the weight that a place receives, mean over heads and over the places that ask. Windows
    are put back to where they lie. Several passes (diffusion) leave the last one; what looks at something else than
    places of the image (text, tiles of it) is left out.
    """
    can, sides = network.capabilities, (lr.shape[-2], lr.shape[-1])
    padded = tuple(-(-side // can.size_multiple) * can.size_multiple for side in sides)
    names = {id(module): name for name, module in network.named_modules()}
    notes = _Notes(names)
    entered = register_module_forward_pre_hook(lambda module, inputs: notes.stack.append(module))
    left = register_module_forward_hook(lambda module, inputs, output: notes.leave())
    try:
        with notes:
            network(lr, *([tuple(round(network.scale * side) for side in sides)] if can.takes_size else []))
    finally:
        entered.remove()
        left.remove()
    found = []
    for name, calls in notes.calls.items():
        if len(calls) <= can.steps and (attention := _laid_out(name, calls[-1], padded, sides)) is not None:
            found.append(attention)
    return found


@dataclass(frozen=True)
class _Call:
    kind: Literal["gate", "softmax"]
    values: Tensor  # gate (B, C, h, w); softmax (G, M), the mean weight of M keys in each of G windows
    shift: int


@dataclass
class _Notes(TorchFunctionMode):
    """Notes sigmoids and softmaxes by the module in which they happen."""

    names: dict[int, str]
    stack: list[nn.Module] = field(default_factory=list)
    calls: dict[str, list[_Call]] = field(default_factory=dict)

    def __post_init__(self):
        super().__init__()

    def leave(self) -> None:
        self.stack.pop()

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in SIGMOIDS and result.dim() == 4:
            self.note("gate", result)
        elif func in SOFTMAXES and result.dim() in (3, 4, 5):
            dim = (kwargs or {}).get("dim", args[1] if len(args) > 1 else -1)
            self.note("softmax", _received(result.movedim(dim, -1)))
        elif func is F.scaled_dot_product_attention:
            self.note("softmax", _received(_attention(*args, **(kwargs or {}))))
        return result

    def note(self, kind: Literal["gate", "softmax"], values: Tensor) -> None:
        path = [self.names[id(module)] for module in self.stack if id(module) in self.names]
        told = [getattr(module, key, 0) for module in self.stack for key in SHIFTS]
        shifts = [shift for shift in told if isinstance(shift, int) and shift]
        call = _Call(kind, values.float().clone(), shifts[-1] if shifts else 0)
        self.calls.setdefault(path[-1] if path else "", []).append(call)


def _attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *_, **options) -> Tensor:
    """Weights (..., L, M) that scaled dot-product attention gives its M keys, without dropout or causal masks."""
    scale = options.get("scale") or query.shape[-1] ** -0.5
    scores = scale * (query.float() @ key.float().transpose(-2, -1))
    if attn_mask is not None:
        masked = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -torch.inf) if masked else scores + attn_mask
    return torch.softmax(scores, -1)


def _received(weights: Tensor) -> Tensor:
    """(G, ..., M) or (1, G, heads, ..., M) weights of M keys -> (G, M), the mean over everything between."""
    weights = weights[0] if weights.dim() == 5 else weights
    return weights.float().flatten(1, -2).mean(1)


def _laid_out(name: str, call: _Call, padded: tuple[int, ...], sides: tuple[int, int]) -> Attention | None:
    """A call as a map; None where it is none of one image's places or channels."""
    values = call.values
    if call.kind == "gate":
        if len(values) != 1:
            return None
        if values.shape[-2:] == (1, 1):
            return Attention(name, "channels", values.flatten())
        return Attention(name, "places", values[0].mean(0))
    places = _windows(values, padded, call.shift) if len(values) > 1 else _grid(values[0], padded)
    if places is None:
        return None
    if places.shape == padded:
        places = places[: sides[0], : sides[1]]
    return Attention(name, "places", places)


def _windows(values: Tensor, padded: tuple[int, ...], shift: int) -> Tensor | None:
    """(windows, side * side), row by row over the padded image, moved up and left by `shift` -> (h', w')."""
    side = math.isqrt(values.shape[1])
    if side * side != values.shape[1] or any(length % side for length in padded):
        return None
    rows, columns = (length // side for length in padded)
    if rows * columns != len(values):
        return None
    shift = shift if min(rows, columns) > 1 else 0  # a window as large as the image is not shifted
    return values.view(rows, columns, side, side).transpose(1, 2).reshape(padded).roll((shift, shift), (0, 1))


def _grid(values: Tensor, padded: tuple[int, ...]) -> Tensor | None:
    """(M,) -> (h', w') with h' * w' = M in the shape of the image, at its resolution or a coarser one."""
    for factor in range(1, COARSEST + 1) if len(values) >= LEAST else ():
        rows, columns = (-(-length // factor) for length in padded)
        if rows * columns == len(values):
            return values.view(rows, columns)
    return None
