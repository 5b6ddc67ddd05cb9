"""EDSR computed in place on selected patches by a Triton kernel: which and how many patches, the device alone knows.

What deployment/native_execution.py does on CPUs: every layer is computed on the patches and `halo` pixels around them,
nothing twice. One launch a layer serves every mask, so one CUDA graph serves every policy. It is tested in Triton's
interpreter and was not measured on a GPU, so nothing chooses it by itself.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deployment.native_execution import edsr_layers, refuse_other_networks
from models.tiling.run_patches import expand_mask

TILE = 8  # pixels along a side of what one program computes
LEAST_CHANNELS = 16  # of the matrix units


class Layer(NamedTuple):
    """A convolution as the kernel takes it: weight (9, inputs, outputs) and bias (outputs,), filled up with zeros, and
    which maps it reads, writes and adds, -1 for no residual."""

    weight: Tensor
    bias: Tensor
    source: int
    target: int
    residual: int
    relu: bool


class TritonNetwork(nn.Module):
    """A PatchRunner, see models/execution.py, for an EDSR with one PixelShuffle.

    Args:
        network: in evaluation mode, on the CPU.
        device: CUDA, or the CPU under TRITON_INTERPRET=1.
        dtype: of weights and feature maps; sums are fp32.

    Raises:
        NativeError: another network.
    """

    def __init__(self, network: nn.Module, device: torch.device, dtype: torch.dtype):
        super().__init__()
        refuse_other_networks(network)
        self.scale, self.receptive_radius, self.dtype = network.scale, network.capabilities.receptive_radius, dtype
        mean = torch.zeros(3) if network.mean is None else network.mean.flatten()
        self.mean = mean.to(device).view(1, 3, 1, 1)
        self.layers = [_packed(*layer, device, dtype) for layer in edsr_layers(network)]

    @torch.no_grad()
    def run(
        self, lr: Tensor, mask: Tensor, patch: int, halo: int | None, canvas: Tensor, max_pixels: int = 1 << 18
    ) -> Tensor:
        """Replace the selected patches of `canvas`; arguments as `run_on_tiles`. Nothing waits for the device."""
        _, _, height, width = lr.shape
        halo = self.receptive_radius if halo is None else min(halo, self.receptive_radius)
        most = max(1, max_pixels // (height * width))
        parts = zip(lr.split(most), mask.split(most), canvas.split(most), strict=True)
        return torch.cat([self._part(*part, patch, halo) for part in parts])

    def _part(self, lr: Tensor, mask: Tensor, canvas: Tensor, patch: int, halo: int) -> Tensor:
        batch, _, height, width = lr.shape
        wanted = expand_mask(mask, patch, height, width).float()  # (B, 1, h, w)
        active = F.max_pool2d(wanted, 2 * halo + 1, 1, halo)
        tiles, number = active_tiles(active)
        image = ((lr.float() - self.mean) * active).to(self.dtype).permute(0, 2, 3, 1)
        maps = [F.pad(image, (0, self.layers[0].weight.shape[1] - 3)).contiguous()]
        widths = {layer.target: layer.weight.shape[2] for layer in self.layers}
        maps += [maps[0].new_zeros(batch, height, width, widths[number]) for number in (1, 2, 3)]
        maps.append(maps[0].new_zeros(batch, height, width, widths[-1]))  # found at -1
        active = active.to(torch.uint8)
        for layer in self.layers:
            self._convolve(layer, maps, active, tiles, number)
        sr = maps[-1][..., : 3 * self.scale**2].permute(0, 3, 1, 2).float()
        sr = F.pixel_shuffle(sr, self.scale) + self.mean
        cell, sides = patch * self.scale, (height * self.scale, width * self.scale)
        return torch.where(expand_mask(mask, cell, *sides), sr.to(canvas.dtype), canvas[..., : sides[0], : sides[1]])

    def _convolve(self, layer: Layer, maps: list[Tensor], active: Tensor, tiles: Tensor, number: Tensor) -> None:
        from deployment.triton_kernel import convolve_tiles

        height, width = active.shape[2:]
        _, inputs, outputs = layer.weight.shape
        target = maps[layer.target]
        convolve_tiles[(len(tiles),)](
            maps[layer.source], layer.weight, layer.bias, maps[layer.residual] if layer.residual >= 0 else target,
            active, target, tiles, number, height, width, -(-height // TILE), -(-width // TILE),
            INPUTS=inputs, OUTPUTS=outputs, TILE=TILE, RELU=layer.relu, SKIP=layer.residual >= 0,
        )  # fmt: skip


def active_tiles(active: Tensor) -> tuple[Tensor, Tensor]:
    """int32 (N,), the numbers of all tiles of a map (B, 1, h, w), those with anything in them first; and their number
    (1,), int32. See deployment/triton_kernel.py."""
    some = F.max_pool2d(active, TILE, ceil_mode=True).flatten() > 0
    order = some.to(torch.uint8).argsort(descending=True, stable=True)
    return order.to(torch.int32), some.sum(dtype=torch.int32)[None]


def _packed(
    conv: nn.Conv2d, source: int, target: int, residual: int, relu: bool, factor: float, device, dtype: torch.dtype
) -> Layer:
    """A layer as from `edsr_layers`, its weights in the kernel's order."""
    outputs, inputs = conv.weight.shape[:2]
    more = [_channels(count) - count for count in (inputs, outputs)]
    weight = F.pad(conv.weight.detach().float() * factor, (0, 0, 0, 0, 0, more[0], 0, more[1]))
    weight = weight.permute(2, 3, 1, 0).reshape(9, inputs + more[0], outputs + more[1]).contiguous()
    bias = F.pad(conv.bias.detach().float() * factor, (0, more[1]))
    return Layer(weight.to(device, dtype), bias.to(device), source, target, residual, relu)


def _channels(count: int) -> int:
    """The next power of two that the matrix units take."""
    return max(LEAST_CHANNELS, 1 << (count - 1).bit_length())
