"""Tiled inference gives the image of the whole."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import build_sr
from models.lmf import LMF, LTEDecoder, SwinIREncoder
from models.lmf.tiled import super_resolve_tiled


def tiled(network, lr, size=None, tile=128, halo=None):
    return super_resolve_tiled(network, lr, size, tile, network.capabilities.halo if halo is None else halo)


def random_network(name, **args):
    torch.manual_seed(0)
    network = build_sr(name, 2, {"n_blocks": 1, "n_feats": 8} | args).eval().double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("name", ["lm_liif", "lm_lte"])
@given(st.integers(1, 20), st.integers(1, 20), st.floats(1, 4), st.floats(1, 4), st.integers(1, 17))
@settings(max_examples=15)
def test_tiles_with_the_whole_reach_around_them_are_exact(name, height, width, down, across, tile):
    network, lr = random_network(name), torch.rand(1, 3, height, width, dtype=torch.double)
    size = max(height, int(down * height)), max(width, int(across * width))
    with torch.no_grad():
        assert (tiled(network, lr, size, tile) - network(lr, size)).abs().max() < 1e-12


def test_single_precision_stays_within_1e_5():
    network, lr = random_network("lm_lte").float(), torch.rand(2, 3, 40, 33)
    with torch.no_grad():
        assert (tiled(network, lr, tile=16) - network(lr)).abs().max() < 1e-5


def test_a_shorter_halo_is_close():
    network, lr = random_network("lm_lte"), torch.rand(1, 3, 30, 30, dtype=torch.double)
    with torch.no_grad():
        whole = network(lr)
        errors = [(tiled(network, lr, tile=10, halo=halo) - whole).abs().mean() for halo in (0, 2, 6)]
    assert errors[0] > errors[1] > 1e-9 and errors[2] < 1e-12


@pytest.mark.parametrize("name", ["lm_ciaosr", "lm_hybrid"])
def test_an_unbounded_reach_has_a_halo_by_default(name):
    network, lr = random_network(name), torch.rand(1, 3, 20, 20, dtype=torch.double)
    assert network.capabilities.receptive_radius is None and network.capabilities.halo == 32
    assert tiled(network, lr, (33, 50), tile=8, halo=4).shape == (1, 3, 33, 50)
    with torch.no_grad():
        assert (tiled(network, lr, (33, 50), tile=20, halo=0) - network(lr, (33, 50))).abs().max() < 1e-12


def test_windows_of_swinir_stay_in_place():
    torch.manual_seed(0)
    network = LMF(SwinIREncoder(12, (2,), 2, 8), LTEDecoder(8), 2).eval().double()
    torch.nn.init.normal_(network.tail.rgb.weight)
    lr = torch.rand(1, 3, 40, 37, dtype=torch.double)
    with torch.no_grad():
        whole = network(lr)
        # One pair of blocks, the convolutions and the decoder reach 17 pixels; one tile needs 24 of them.
        assert (tiled(network, lr, tile=9, halo=24) - whole).abs().max() < 1e-12
