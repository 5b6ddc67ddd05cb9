"""Inference copies of SR networks for CPUs: convolutions with packed weights that add, activate and write in one pass.

oneDNN's fused convolutions save a pass over memory per activation and per residual addition, which eager PyTorch makes;
no compiler is needed. What cannot be traced or fused runs as it is.
"""

from __future__ import annotations

import operator
from copy import deepcopy

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

ACTIVATIONS = {nn.ReLU: "relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid", nn.SiLU: "swish"}
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05}  # of the largest output, fused against eager


class FusionError(RuntimeError):
    """The network cannot be fused here; the message says why."""


class FusedConv(nn.Module):
    """Activation(convolution(x) + other) in one call, stride, dilation and groups as in `conv`.

    Args:
        conv: convolution with zero padding; weights are copied.
        activation: "none" or a value of ACTIVATIONS.
    """

    def __init__(self, conv: nn.Conv2d, activation: str = "none"):
        super().__init__()
        self.geometry = ([*conv.padding], [*conv.stride], [*conv.dilation], conv.groups)
        self.activation = activation
        weight = conv.weight.detach().to_mkldnn()
        # Plain attributes: packed weights know no state dict and no `.to`.
        self.weight = torch._C._nn.mkldnn_reorder_conv2d_weight(
            weight, conv.padding, conv.stride, conv.dilation, conv.groups
        )
        self.bias = None if conv.bias is None else conv.bias.detach().clone()

    def forward(self, x: Tensor, other: Tensor | None = None, overwrite: bool = False) -> Tensor:
        """(B, C, h, w) -> (B, C', h', w').

        Args:
            x: channels_last is fastest.
            other: added before the activation, of the output's shape.
            overwrite: the result may take the memory of `other`.
        """
        if other is None:
            return torch.ops.mkldnn._convolution_pointwise(
                x, self.weight, self.bias, *self.geometry, self.activation, [], ""
            )
        unary = None if self.activation == "none" else self.activation
        if overwrite:
            return torch.ops.mkldnn._convolution_pointwise_.binary(
                other, x, self.weight, self.bias, *self.geometry, "add", 1.0, unary, [], None
            )
        return torch.ops.mkldnn._convolution_pointwise.binary(
            x, other, self.weight, self.bias, *self.geometry, "add", 1.0, unary, [], None
        )


def fuse(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Copy of an SR network for inference on CPUs: same result up to rounding, fewer passes over memory.

    BatchNorm is folded into the convolution before it or, if that is 1x1, after it; activations and residual additions
    (with constant factors) after a convolution become part of it; PixelShuffle after one moves whole pixels. The copy
    takes images of any size, in `dtype`.

    Args:
        network: in evaluation mode, on the CPU.
        dtype: torch.float32 or torch.bfloat16.

    Raises:
        FusionError: no oneDNN, the forward cannot be traced, or the copy's output differs from the network's.
    """
    if dtype not in TOLERANCE or not torch.backends.mkldnn.is_available():
        raise FusionError(f"no oneDNN convolutions for {dtype} here")
    if network.training:
        raise FusionError("the network is in training mode")
    try:
        traced = torch.fx.symbolic_trace(deepcopy(network).float())
        _fold_batchnorm(traced)  # in fp32, rounded once afterwards
        _sort_by_pixel(traced)
        traced.to(dtype)
        _fuse_convolutions(traced)
        traced.graph.lint()
        traced.recompile()
        traced.delete_all_unused_submodules()
        fused = ChannelsLast(traced)
        _compare(deepcopy(network).to(dtype), fused, dtype)
    except FusionError:
        raise
    except Exception as error:  # tracing fails in any way; the eager network is always there
        raise FusionError(f"{type(error).__name__}: {error}") from error
    return fused


class ChannelsLast(nn.Module):
    """Brings the input into the layout in which convolutions are fastest."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, lr: Tensor) -> Tensor:
        return self.network(lr.contiguous(memory_format=torch.channels_last))


class PixelMajorShuffle(nn.Module):
    """PixelShuffle of channels that come sorted by HR pixel, the maps of each together.

    In channels_last every HR row of an LR pixel is then one stretch of memory, which is several times faster to move.

    Args:
        factor: HR pixels per LR pixel along each side.
    """

    def __init__(self, factor: int):
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """(B, factor * factor * C, h, w) -> (B, C, factor * h, factor * w), channels_last."""
        batch, channels, height, width = x.shape
        row = channels // self.factor
        lines = x.permute(0, 2, 3, 1).reshape(batch, height, width, self.factor, row).transpose(2, 3)
        return lines.reshape(batch, height * self.factor, width * self.factor, row // self.factor).permute(0, 3, 1, 2)


class FusedBlock(nn.Module):
    """Convolution, BatchNorm and activation of an Ultralytics `Conv` in one call.

    Args:
        conv: with BatchNorm folded.
        activation: a value of ACTIVATIONS or "none".
        block: the module whose place this takes in the model's graph.
    """

    def __init__(self, conv: nn.Conv2d, activation: str, block: nn.Module):
        super().__init__()
        self.conv = FusedConv(conv, activation)
        for name in ("i", "f", "type", "np"):  # how Ultralytics numbers and connects layers
            if hasattr(block, name):
                setattr(self, name, getattr(block, name))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def fuse_conv_blocks(model: nn.Module, dtype: torch.dtype | None) -> None:
    """Fold BatchNorm into the convolutions of all conv-bn-act blocks of an Ultralytics model, in place.

    Args:
        model: in evaluation mode, on the CPU.
        dtype: the activation becomes part of a packed convolution of this type, where oneDNN has it; None leaves the
            activation to itself.
    """
    packed = dtype in TOLERANCE and torch.backends.mkldnn.is_available()
    for parent in list(model.modules()):
        for name, block in list(parent.named_children()):
            conv, norm, act = (getattr(block, part, None) for part in ("conv", "bn", "act"))
            plain = {part for part, _ in block.named_children()} == {"conv", "bn", "act"}
            if not plain or type(conv) is not nn.Conv2d or not isinstance(norm, nn.BatchNorm2d):
                continue
            conv = fuse_conv_bn_eval(conv, norm)
            known = ACTIVATIONS.get(type(act), "none" if isinstance(act, nn.Identity) else None)
            if packed and known:
                setattr(parent, name, FusedBlock(conv.to(dtype), known, block))
            else:
                block.conv, block.bn = conv, nn.Identity()


def _compare(network: nn.Module, fused: nn.Module, dtype: torch.dtype) -> None:
    """Raises FusionError where the two outputs differ by more than rounding."""
    lr = torch.rand(2, 3, 19, 23, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.inference_mode():
        expected, got = network(lr).float(), fused(lr).float()
    difference, largest = (got - expected).abs().max().item(), expected.abs().max().item()
    if not difference <= TOLERANCE[dtype] * max(1.0, largest):
        raise FusionError(f"its output would differ by {difference:.2g}")


def _single_user(node: torch.fx.Node) -> torch.fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _module(traced: torch.fx.GraphModule, node: object, kind: type | tuple[type, ...]) -> nn.Module | None:
    """The module that a node calls, where it is of this kind."""
    if not isinstance(node, torch.fx.Node) or node.op != "call_module":
        return None
    module = traced.get_submodule(node.target)
    return module if isinstance(module, kind) else None


def _fold_batchnorm(traced: torch.fx.GraphModule) -> None:
    """conv - BatchNorm and BatchNorm - 1x1 conv become one convolution."""
    for node in list(traced.graph.nodes):
        norm = _module(traced, node, nn.BatchNorm2d)
        conv = _module(traced, node.args[0], nn.Conv2d) if norm is not None and node.args else None
        if conv is None or norm.running_var is None or not _paired(traced, node.args[0], node):
            continue
        traced.add_submodule(node.args[0].target, fuse_conv_bn_eval(conv, norm))
        node.replace_all_uses_with(node.args[0])
        traced.graph.erase_node(node)
    for node in list(traced.graph.nodes):
        conv = _module(traced, node, nn.Conv2d)
        norm = _module(traced, node.args[0], nn.BatchNorm2d) if conv is not None and node.args else None
        if norm is None or norm.running_var is None or not _pointwise(conv) or not _paired(traced, node.args[0], node):
            continue
        before = node.args[0]
        traced.add_submodule(node.target, _after_norm(norm, conv))
        node.replace_input_with(before, before.args[0])
        traced.graph.erase_node(before)


def _paired(traced: torch.fx.GraphModule, first: torch.fx.Node, second: torch.fx.Node) -> bool:
    """Whether two modules are called once each, the second on the first's output, which nothing else reads."""
    calls = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    return _single_user(first) is second and calls.count(first.target) == calls.count(second.target) == 1


def _sort_by_pixel(traced: torch.fx.GraphModule) -> None:
    """conv - PixelShuffle: the convolution's outputs are sorted as PixelMajorShuffle takes them."""
    for node in list(traced.graph.nodes):
        shuffle = _module(traced, node, nn.PixelShuffle)
        conv = _module(traced, node.args[0], nn.Conv2d) if shuffle is not None and node.args else None
        if conv is None or conv.groups > 1 or not _paired(traced, node.args[0], node):
            continue
        sorted_conv = deepcopy(conv)
        cell = shuffle.upscale_factor**2
        order = torch.arange(conv.out_channels).view(-1, cell).T.flatten()
        sorted_conv.weight.data = conv.weight.data[order]
        if conv.bias is not None:
            sorted_conv.bias.data = conv.bias.data[order]
        traced.add_submodule(node.args[0].target, sorted_conv)
        traced.add_submodule(node.target, PixelMajorShuffle(shuffle.upscale_factor))


def _pointwise(conv: nn.Conv2d) -> bool:
    """Whether every output pixel is a sum over the channels of one input pixel."""
    return (conv.kernel_size, conv.stride, conv.padding, conv.groups) == ((1, 1), (1, 1), (0, 0), 1)


@torch.no_grad()
def _after_norm(norm: nn.BatchNorm2d, conv: nn.Conv2d) -> nn.Conv2d:
    """The 1x1 convolution that gives conv(norm(x))."""
    factor = (norm.running_var + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight)
    shift = (0 if norm.bias is None else norm.bias) - norm.running_mean * factor
    folded = nn.utils.skip_init(nn.Conv2d, conv.in_channels, conv.out_channels, 1, device=conv.weight.device)
    folded.weight.copy_(conv.weight * factor[:, None, None])
    folded.bias.copy_(conv.weight[:, :, 0, 0] @ shift + (0 if conv.bias is None else conv.bias))
    return folded


def _fuse_convolutions(traced: torch.fx.GraphModule) -> None:
    """Replace every convolution by a FusedConv that includes the addition and the activation after it."""
    order = {node: position for position, node in enumerate(traced.graph.nodes)}
    for number, node in enumerate(list(traced.graph.nodes)):
        conv = _module(traced, node, nn.Conv2d)
        if conv is None or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            continue
        last, args = node, node.args
        addition = _residual(_single_user(node), node)
        if addition is not None and order[addition[1]] < order[addition[0]]:
            last, other, factor = addition
            conv = _scaled(conv, factor)
            args = (node.args[0], other, _overwritable(other, last, order))
        activation = _module(traced, _single_user(last), tuple(ACTIVATIONS))
        name = "none"
        if activation is not None:
            name, last = ACTIVATIONS[type(activation)], _single_user(last)
        target = f"fused_{number}"
        traced.add_submodule(target, FusedConv(conv, name))
        with traced.graph.inserting_before(last):
            replacement = traced.graph.call_module(target, args)
        order[replacement] = order[last]
        last.replace_all_uses_with(replacement)
        while last is not node:  # erase what is now inside the convolution, from its end
            before = next(arg for arg in last.args if isinstance(arg, torch.fx.Node) and _leads_to(node, arg))
            traced.graph.erase_node(last)
            last = before
        traced.graph.erase_node(node)


def _leads_to(start: torch.fx.Node, node: torch.fx.Node) -> bool:
    return node is start or (len(start.users) == 1 and _single_user(start) is node)


def _residual(node: torch.fx.Node | None, branch: torch.fx.Node):
    """(node, other, factor) where node is other + factor * branch, else None."""
    if node is None or node.op != "call_function" or node.target not in (operator.add, operator.iadd, torch.add):
        return None
    tensors = [arg for arg in node.args[:2] if isinstance(arg, torch.fx.Node)]
    factor = node.kwargs.get("alpha", 1)
    if len(node.args) != 2 or len(tensors) != 2 or tensors[0] is tensors[1] or not isinstance(factor, int | float):
        return None
    if tensors[1] is branch:
        return node, tensors[0], factor
    return (node, tensors[1], 1) if factor == 1 else None


def _scaled(conv: nn.Conv2d, factor: float) -> nn.Conv2d:
    """The same convolution times a factor."""
    if factor == 1:
        return conv
    conv = deepcopy(conv)
    with torch.no_grad():
        conv.weight *= factor
        if conv.bias is not None:
            conv.bias *= factor
    return conv


def _overwritable(other: torch.fx.Node, last: torch.fx.Node, order: dict[torch.fx.Node, int]) -> bool:
    """Whether nothing after `last` reads `other`, which is memory of our own."""
    ours = other.op == "call_module" and str(other.target).startswith("fused_")
    return ours and all(order[user] <= order[last] for user in other.users)
