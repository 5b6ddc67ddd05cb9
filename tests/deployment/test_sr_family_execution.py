"""Every fixed-scale network as SR_Quality: exact on tiles where its reach is finite, else with local semantics."""

from __future__ import annotations

import pytest
import torch

from benchmarks.sr_networks import SKIPPED
from models import SR_NETWORKS, build_sr
from models.conditional_cost import sr_macs
from models.conditional_sr import ConditionalSR
from models.mask_policy import MaskPolicy
from models.masker import Masker
from models.tiling.run_patches import run_on_tiles

SMALL = {
    "bicubic": {},
    "espcn": {"n_feats": 8},
    "fsrcnn": {"d": 8, "s": 4, "m": 1},
    "edsr": {"n_blocks": 2, "n_feats": 8, "div2k_mean": True},
    "srresnet": {"n_blocks": 1, "n_feats": 8},
    "carn": {"n_feats": 8},
    "carn_m": {"n_feats": 16},
    "imdn": {"n_blocks": 1, "n_feats": 16},
    "rfdn": {"n_blocks": 1, "n_feats": 8},
    "span": {"n_feats": 8},
    "rcan": {"n_groups": 1, "n_blocks": 1, "n_feats": 16},
    "rdn": {"n_blocks": 2, "n_layers": 2, "growth": 8, "n_feats": 8},
    "swinir_light": {"dim": 12, "n_groups": 1, "n_blocks": 2, "n_heads": 2},
    "swinir": {"dim": 12, "n_groups": 1, "n_blocks": 2, "n_heads": 2},
}
every_network = pytest.mark.parametrize("name", sorted(SMALL))


def random_network(name: str, scale: int) -> torch.nn.Module:
    torch.manual_seed(0)
    network = build_sr(name, scale, SMALL[name]).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    return network


@every_network
@pytest.mark.parametrize("scale", [2, 3])
@torch.no_grad()
def test_a_tile_is_the_dense_result_or_that_of_its_own_window(name: str, scale: int):
    network, patch = random_network(name, scale), 4
    halo = network.capabilities.halo
    side = 2 * halo + 5 * patch + 1
    lr = torch.rand(1, 3, side, side + 3)
    mask = torch.zeros(1, -(-side // patch), -(-(side + 3) // patch), dtype=torch.bool)
    row = column = -(-halo // patch)  # its window lies inside the image
    mask[0, row, column] = True
    canvas = torch.rand(1, 3, scale * side, scale * (side + 3))
    result = run_on_tiles(network, lr, mask, patch, None, canvas.clone())
    cell = tuple(slice(scale * patch * k, scale * patch * (k + 1)) for k in (row, column))
    if network.capabilities.receptive_radius is not None:
        expected = network(lr)[..., cell[0], cell[1]]
    else:
        top, left = row * patch - halo, column * patch - halo
        window = network(lr[..., top : top + patch + 2 * halo, left : left + patch + 2 * halo])
        inner = slice(scale * halo, scale * (halo + patch))
        expected = window[..., inner, inner]
    assert (result[..., cell[0], cell[1]] - expected).abs().max() <= 1e-5
    result[..., cell[0], cell[1]] = canvas[..., cell[0], cell[1]]
    assert torch.equal(result, canvas)


@every_network
def test_conditional_execution_and_its_macs(name: str):
    system = ConditionalSR(Masker(8), build_sr("bicubic", 2), random_network(name, 2)).eval()
    lr = torch.rand(2, 3, 25, 30)
    for policy in (MaskPolicy("budget", 0.1), MaskPolicy("all_quality"), MaskPolicy("all_fast")):
        output = system.infer(lr, policy)
        assert output.sr.shape == (2, 3, 50, 60) and output.sr.isfinite().all()
    assert sr_macs(system, 25, 30, 1) > 0


def test_every_network_is_tested_here():
    assert SMALL.keys() == {name for name in SR_NETWORKS if not name.startswith("lm_") and name not in SKIPPED}
