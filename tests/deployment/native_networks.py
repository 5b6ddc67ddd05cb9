"""Small EDSRs with random weights, their native networks, and what both must give."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F

import deployment.native_execution as native_execution
from deployment.native_execution import NativeNetwork
from models import build_sr
from models.tiling.run_patches import expand_mask

PATCH = 8


@functools.cache
def random_edsr(scale=4, maps=16, blocks=1, res_scale=1.0, tail="single", mean=False):
    torch.manual_seed(0)
    args = {"n_blocks": blocks, "n_feats": maps, "res_scale": res_scale, "tail": tail, "div2k_mean": mean}
    network = build_sr("edsr", scale, args).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.requires_grad_(False)


@functools.cache
def native_of(network, dtype):
    """One object for all cases: whatever it keeps between calls must not matter."""
    if dtype == torch.bfloat16 and "avx512_bf16" not in native_execution.cpu_flags():
        pytest.skip("this CPU has no bfloat16 instructions")
    return NativeNetwork(network, dtype)


def definition(network, lr, mask, patch, halo, canvas):
    """Every layer is computed everywhere and kept on the dilated patches only."""
    pixels = expand_mask(mask, patch, *lr.shape[-2:]).float()
    region = F.max_pool2d(pixels, 2 * halo + 1, 1, halo)
    mean = 0 if network.mean is None else network.mean
    first = x = network.head((lr - mean) * region) * region
    for block in network.body[:-1]:
        inner = F.relu(block.body[0](x)) * region
        x = torch.add(x, block.body[2](inner), alpha=block.res_scale) * region
    sr = network.tail((first + network.body[-1](x)) * region) + mean
    return torch.where(expand_mask(mask, patch * network.scale, *canvas.shape[-2:]), sr, canvas)


def close(result, expected, tolerance):
    assert (result - expected).abs().max() <= tolerance * max(1.0, expected.abs().max())


def call_of(lr=(2, 3, 16, 24), mask=(2, 2, 3), canvas=(2, 3, 64, 96), **others):
    """Arguments of `run`; shapes stand for tensors."""
    tensors = {
        "lr": torch.rand(lr) if isinstance(lr, tuple) else lr,
        "mask": torch.ones(mask, dtype=torch.bool) if isinstance(mask, tuple) else mask,
        "canvas": torch.rand(canvas) if isinstance(canvas, tuple) else canvas,
    }
    return tensors | {"patch": PATCH, "halo": 1} | others
