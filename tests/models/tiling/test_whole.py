"""models/tiling/whole.py and windows.py: tiles of whole images against the plain run."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models import build_sr
from models.arbitrary_scale import BicubicToSize
from models.capabilities import Capabilities
from models.tiling.whole import run_tiles, run_whole
from models.tiling.windows import axis_tiles, axis_windows

NETWORKS = {"espcn": {"n_feats": 8}, "fsrcnn": {"d": 8, "s": 4, "m": 1}, "edsr": {"n_blocks": 2, "n_feats": 4}}


def random_network(name: str, scale: int, args: dict) -> nn.Module:
    torch.manual_seed(0)
    network = build_sr(name, scale, args).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


class Recorder(nn.Module):
    """Passes images on to a network and notes their shapes."""

    def __init__(self, network):
        super().__init__()
        self.network, self.scale, self.shapes = network, network.scale, []
        self.capabilities = network.capabilities

    def forward(self, lr):
        self.shapes.append(tuple(lr.shape))
        return self.network(lr)


@torch.no_grad()
@pytest.mark.parametrize("network", ["espcn", "fsrcnn", "edsr"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_tiles_with_the_receptive_field_are_exact(network: str, scale: int):
    args = {"edsr": {"n_blocks": 2, "n_feats": 4}}.get(network, {})
    network = random_network(network, scale, args)
    lr = torch.rand(1, 3, 33, 41)
    size = (33 * scale, 41 * scale)
    tiled = run_tiles(network, lr, size, 9)
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


@given(
    height=st.integers(1, 60), width=st.integers(1, 60), batch=st.integers(1, 3),
    name=st.sampled_from(sorted(NETWORKS)), max_pixels=st.sampled_from([1, 400, 1500]),
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_large_images_in_parts_give_the_same(height, width, batch, name, max_pixels):
    network, lr = Recorder(random_network(name, 2, NETWORKS[name])), torch.rand(batch, 3, height, width)
    with torch.no_grad():
        parts = run_whole(network, lr, max_pixels)
        largest = max(shape[0] * shape[2] * shape[3] for shape in network.shapes)
        assert (parts - network.network(lr)).abs().max() <= 1e-5
    receptive_radius = network.capabilities.receptive_radius
    # A window holds at least its halos and as much again.
    assert largest <= max(max_pixels, (2 * receptive_radius + max(2 * receptive_radius, 16)) ** 2)


def test_parts_of_a_large_image_have_one_size_and_the_result_room_for_whole_patches():
    network = Recorder(random_network("edsr", 2, NETWORKS["edsr"]))
    with torch.no_grad():
        sr = run_whole(network, torch.rand(2, 3, 70, 90), 1000, patch=32)
    assert len({shape[2:] for shape in network.shapes}) == 1
    assert sr.shape == (2, 3, 2 * 96, 2 * 96)


def test_a_network_tiles_large_images_itself_where_it_can():
    network, lr = random_network("lm_ciaosr", 2, {"n_blocks": 1, "n_feats": 4}), torch.rand(2, 3, 40, 41)
    with torch.no_grad():
        sr = run_whole(network, lr, 300)
        halo = network.capabilities.halo
        assert torch.equal(sr[1:], network.tiled(lr[1:], (80, 82), 2 * halo, halo))


def test_a_network_without_finite_reach_runs_as_a_whole():
    network = Recorder(random_network("bicubic", 2, {}))
    network.capabilities = Capabilities(None, local_receptive_radius=4, tiling="overlap")
    run_whole(network, torch.rand(1, 3, 40, 40), 100)
    assert network.shapes == [(1, 3, 40, 40)]


@given(st.integers(1, 60), st.integers(1, 30), st.integers(0, 9), st.booleans())
def test_windows_hold_their_tiles_and_neighbours(length: int, tile: int, halo: int, equal: bool):
    windows = axis_windows(length, tile, halo, equal)
    assert [w.start for w in windows] == [0, *(w.end for w in windows[:-1])] and windows[-1].end == length
    for w in windows:
        assert 0 <= w.first <= max(0, w.start - halo) and min(length, w.end + halo) <= w.last <= length
    if equal:
        assert {w.last - w.first for w in windows} == {min(length, tile + 2 * halo)}
