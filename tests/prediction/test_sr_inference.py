"""prediction/sr_inference.py: tiles and symmetries against the plain run."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models import build_sr
from models.arbitrary_scale import BicubicToSize
from prediction.sr_inference import (
    HALO_OF_UNKNOWN,
    Upscaler,
    axis_tiles,
    dihedral,
    halo_of,
    inverse,
    run_tiles,
    target_size,
)
from tests.drawn import AnySize

CPU = torch.device("cpu")


def random_network(name: str, scale: int, args: dict) -> nn.Module:
    network = build_sr(name, scale, args).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


@torch.no_grad()
@pytest.mark.parametrize("network", ["espcn", "fsrcnn", "edsr"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_tiles_with_the_receptive_field_are_exact(network: str, scale: int):
    args = {"edsr": {"n_blocks": 2, "n_feats": 4}}.get(network, {})
    network = random_network(network, scale, args)
    lr = torch.rand(1, 3, 33, 41)
    size = (33 * scale, 41 * scale)
    tiled = run_tiles(network, lr, size, 9, halo_of(network))
    torch.testing.assert_close(tiled, network(lr), atol=1e-5, rtol=1e-4)
    assert (run_tiles(network, lr, size, 9, 0) - network(lr)).abs().max() > 1e-3, "the halo does nothing"


@given(st.integers(5, 40), st.integers(5, 40), st.integers(4, 20), st.sampled_from([(2, 1), (3, 2), (5, 4), (7, 2)]))
@settings(max_examples=40)
@torch.no_grad()
def test_fractional_scales_are_exact_too(height: int, width: int, tile: int, factor: tuple[int, int]):
    up, down = factor
    height, width = height * down, width * down
    lr, size = torch.rand(1, 3, height, width), (height // down * up, width // down * up)
    network = BicubicToSize()
    torch.testing.assert_close(run_tiles(network, lr, size, tile, 2), network(lr, size), atol=1e-5, rtol=0)


@given(st.integers(9, 30), st.integers(9, 30), st.floats(1, 7), st.floats(1, 7), st.sampled_from([None, 9]))
@settings(max_examples=20)
@torch.no_grad()
def test_tiles_of_arbitrary_scale_networks_fit_every_size(height, width, down, across, halo):
    """Other networks need whole HR pixels at the borders of tiles."""
    network = random_network("lm_lte", 4, {"n_blocks": 1, "n_feats": 4})
    lr, size = torch.rand(1, 3, height, width), (int(down * height), int(across * width))
    tiled = Upscaler(CPU, tile=8, halo=halo)(network, lr, size)
    torch.testing.assert_close(tiled, network(lr, size), atol=1e-5, rtol=0)


@given(st.integers(1, 60), st.integers(1, 30), st.integers(0, 9))
def test_tiles_cover_an_axis_once(length: int, tile: int, halo: int):
    spans = axis_tiles(length, 3 * length, tile, halo)
    covered = list(itertools.chain.from_iterable(range(s.target.start, s.target.stop) for s in spans))
    assert covered == list(range(3 * length))
    for span in spans:
        assert span.length == 3 * (span.window.stop - span.window.start) >= span.inside.stop
        assert 3 * span.window.start + span.inside.start == span.target.start
        assert span.window.stop - span.window.start <= tile + 2 * halo


def test_scales_without_tiles_are_refused():
    with pytest.raises(ValueError, match="tiles of 16 LR pixels do not fit 31 -> 107 pixels"):
        run_tiles(BicubicToSize(), torch.rand(1, 3, 31, 31), (107, 107), 16, 2)


def test_small_images_are_not_cut():
    network, lr = AnySize(), torch.rand(1, 3, 31, 16)
    out = Upscaler(CPU, tile=31)(network, lr, (107, 61))
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
    mean = Upscaler(CPU, ensemble=True)(network, lr, (14, 18))
    torch.testing.assert_close(mean, torch.stack(runs).mean(0))
    assert (mean - runs[0]).abs().max() > 1e-3
    flipped = Upscaler(CPU, ensemble=True)(network, lr.flip(-1), (14, 18)).flip(-1)
    torch.testing.assert_close(flipped, mean, atol=1e-5, rtol=0)
    both = Upscaler(CPU, ensemble=True, tile=4)(network, lr, (14, 18))
    torch.testing.assert_close(both, mean, atol=1e-5, rtol=0)
    assert Upscaler(CPU, ensemble=True)(AnySize(), lr, (20, 31)).shape == (1, 3, 20, 31)


def test_bf16_stays_close():
    network, lr = build_sr("edsr", 2, {"n_blocks": 2, "n_feats": 8}).eval(), torch.rand(1, 3, 12, 12)
    out = Upscaler(CPU, "bf16")(network, lr, (24, 24))
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, Upscaler(CPU)(network, lr, (24, 24)), atol=0.03, rtol=0)


def test_halo_and_size():
    assert halo_of(build_sr("espcn", 2)) == 4 and halo_of(nn.Identity()) == HALO_OF_UNKNOWN
    fixed, free = build_sr("espcn", 3), AnySize()
    assert target_size(fixed, 5, 7, None) == target_size(fixed, 5, 7, 3.0) == (15, 21)
    assert target_size(free, 10, 7, 2.5) == (25, 18)
    with pytest.raises(ValueError, match=r"it is for x3, not x2\.5"):
        target_size(fixed, 5, 7, 2.5)
    assert target_size(free, 10, 7, None) == (20, 14)
