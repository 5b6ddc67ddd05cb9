"""prediction/sr_inference.py: tiles and symmetries against the plain run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models import build_sr
from models.capabilities import AnyScale
from prediction.sr_inference import SRInference, dihedral, hr_size, inverse
from tests.drawn import AnySize
from utils.errors import UserError

CPU = torch.device("cpu")


def random_network(name: str, scale: int, args: dict) -> nn.Module:
    network = build_sr(name, scale, args).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


@given(st.integers(9, 30), st.integers(9, 30), st.floats(1, 7), st.floats(1, 7), st.sampled_from([None, 9]))
@settings(max_examples=20)
@torch.no_grad()
def test_tiles_of_arbitrary_scale_networks_fit_every_size(height, width, down, across, halo):
    """Other networks need whole HR pixels at the borders of tiles."""
    network = random_network("lm_lte", 4, {"n_blocks": 1, "n_feats": 4})
    lr, size = torch.rand(1, 3, height, width), (int(down * height), int(across * width))
    tiled = SRInference(CPU, tile=8, halo=halo)(network, lr, size)
    torch.testing.assert_close(tiled, network(lr, size), atol=1e-5, rtol=0)


def test_small_images_are_not_cut():
    network, lr = AnySize(), torch.rand(1, 3, 31, 16)
    out = SRInference(CPU, tile=31)(network, lr, (107, 61))
    torch.testing.assert_close(out, network(lr, (107, 61)).detach())


def test_symmetries_and_their_inverses():
    image = torch.rand(1, 3, 4, 6)
    turned = [dihedral(image, k) for k in range(8)]
    assert len({x.contiguous().numpy().tobytes() for x in turned}) == 8
    for k, x in enumerate(turned):
        assert torch.equal(inverse(x, k), image)


def test_self_ensemble_averages_eight_runs():
    network, lr = random_network("espcn", 2, {}), torch.rand(1, 3, 7, 9)
    with torch.no_grad():
        runs = [inverse(network(dihedral(lr, k)), k) for k in range(8)]
    mean = SRInference(CPU, ensemble=True)(network, lr, (14, 18))
    torch.testing.assert_close(mean, torch.stack(runs).mean(0))
    assert (mean - runs[0]).abs().max() > 1e-3
    flipped = SRInference(CPU, ensemble=True)(network, lr.flip(-1), (14, 18)).flip(-1)
    torch.testing.assert_close(flipped, mean, atol=1e-5, rtol=0)
    both = SRInference(CPU, ensemble=True, tile=4)(network, lr, (14, 18))
    torch.testing.assert_close(both, mean, atol=1e-5, rtol=0)
    assert SRInference(CPU, ensemble=True)(AnySize(), lr, (20, 31)).shape == (1, 3, 20, 31)


def test_bf16_stays_close():
    network, lr = build_sr("edsr", 2, {"n_blocks": 2, "n_feats": 8}).eval(), torch.rand(1, 3, 12, 12)
    out = SRInference(CPU, "bf16")(network, lr, (24, 24))
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, SRInference(CPU)(network, lr, (24, 24)), atol=0.03, rtol=0)


def test_size():
    fixed, free = build_sr("espcn", 3), AnySize()
    assert hr_size(fixed, 5, 7, None) == hr_size(fixed, 5, 7, 3.0) == (15, 21)
    assert hr_size(free, 10, 7, 2.5) == (25, 18)
    with pytest.raises(ValueError, match=r"it is for x3, not x2\.5"):
        hr_size(fixed, 5, 7, 2.5)
    assert hr_size(free, 10, 7, None) == (20, 14)
    free.capabilities = replace(free.capabilities, scales=AnyScale(1, 8))
    assert hr_size(free, 10, 7, 8) == hr_size(free, 10, 7, np.float64(8)) == (80, 56)
    for scale in (8.5, 0.5):
        with pytest.raises(UserError, match=rf"it is for a number from 1 to 8, not x{scale}"):
            hr_size(free, 10, 7, scale)


def test_a_precision_that_the_network_does_not_have_is_refused():
    network = build_sr("espcn", 2)
    network.capabilities = replace(network.capabilities, dtypes=(torch.float32,))
    with pytest.raises(UserError, match="ESPCN does not compute in bf16; use fp32"):
        SRInference(CPU, "bf16")(network, torch.rand(1, 3, 8, 8), (16, 16))
