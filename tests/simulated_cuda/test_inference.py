"""Prepared systems on the simulated device: what graphs replay is what the CPU computes; how often a call waits."""

from __future__ import annotations

import warnings

import pytest
import torch

from deployment.prepare import prepare_network, prepare_system
from models import build_sr
from models.mask_policy import parse_policy
from tests.simulated_cuda.systems import ARGS, POLICIES, image, tiny_system

CUDA = torch.device("cuda")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("size", [(1, 48, 64), (3, 44, 52)], ids=["even", "partial"])
def test_graphs_give_what_the_cpu_gives(cuda, dtype, size):
    system, tolerance = tiny_system(), 1e-5 if dtype is torch.float32 else 2e-3
    expected = {}
    for policy in POLICIES:
        for seed in (0, 1):
            with torch.no_grad():
                expected[policy, seed] = system.super_resolve(image(*size, seed), parse_policy(policy)).sr
    prepared = prepare_system(system, CUDA, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for (policy, seed), sr in expected.items():
            for _ in range(4):  # seen, seen, captured, replayed
                got = prepared.super_resolve(image(*size, seed).cuda(), parse_policy(policy)).sr
            assert (got.float().cpu() - sr).abs().max() <= tolerance, policy
    assert cuda.captures and cuda.replays > cuda.captures and not cuda.broken


CAPTURED = ("bicubic", "espcn", "fsrcnn", "edsr", "srresnet", "carn", "carn_m", "imdn", "rfdn", "span", "rcan")


@pytest.mark.parametrize("name", CAPTURED)
def test_networks_are_captured(cuda, name):
    network = build_sr(name, 2, ARGS.get(name)).eval()
    with torch.no_grad():
        expected = [network(image(1, 16, 16, seed)) for seed in (0, 1)]
    prepared = prepare_network(network, CUDA, torch.float32)
    images = [image(1, 16, 16, seed).cuda() for seed in (0, 1)]
    with torch.no_grad():
        for _ in range(3):
            prepared(images[0])
        with cuda.no_syncs():
            got = [prepared(lr) for lr in images]  # the second replay may not change what the first one gave
    assert cuda.captures == 1
    assert all((own.cpu() - sr).abs().max() < 1e-5 for own, sr in zip(got, expected, strict=True))
