"""Three-pass tiles: Gaussian weights, coverage, no seams, bounded windows; patches as SR_Quality."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.conditional_sr import ConditionalSR
from models.mask_policy import MaskPolicy
from models.masker import Masker
from models.one_step_diffusion.tiling import blended, gaussian_weights, window_slices
from models.sr_fast import Bicubic
from models.tiling.whole import run_tiles
from tests.extras import needs_generative
from tests.models.one_step_diffusion.small import small_network

pytestmark = needs_generative


def test_weights_are_centred_in_both_axes():
    weights = gaussian_weights(6, 9, torch.empty(0))
    torch.testing.assert_close(weights, weights.flip(0))
    torch.testing.assert_close(weights, weights.flip(1))
    assert weights[0, 4].item() == pytest.approx(math.exp(-(2.5**2) / (2 * 0.01 * 6**2)))
    assert weights[2, 0].item() == pytest.approx(math.exp(-(0.5**2) / (2 * 0.01 * 6**2) - 4**2 / (2 * 0.01 * 9**2)))


@given(length=st.integers(1, 90), window=st.integers(1, 40), data=st.data())
@settings(max_examples=60, deadline=None)
def test_windows_cover_the_axis(length, window, data):
    stride = data.draw(st.integers(1, window))
    slices = window_slices(length, window, stride)
    assert slices[0].start == 0 and slices[-1].stop == length
    assert all(part.stop - part.start == min(window, length) for part in slices)
    assert all(0 < after.start - before.start <= stride for before, after in pairwise(slices))


@given(height=st.integers(8, 30), width=st.integers(8, 30))
@settings(max_examples=20, deadline=None)
def test_windows_of_one_image_join_to_it(height, width):
    image = torch.rand(2, 3, height, width)
    places = [(r, c) for r in window_slices(height, 8, 5) for c in window_slices(width, 8, 5)]
    joined = blended(iter([(place, image[..., place[0], place[1]]) for place in places]), (height, width))
    torch.testing.assert_close(joined, image)
    half = blended(iter([(place, image[..., place[0], place[1]].half()) for place in places]), (height, width))
    assert half.dtype == torch.float32


def test_a_tile_as_large_as_the_image_is_the_image():
    network, lr = small_network(trained=True), torch.rand(2, 3, 18, 23)
    with torch.no_grad():
        assert torch.equal(network.tiled(lr, (72, 92), 24, 8), network(lr))
        assert torch.equal(run_tiles(network, lr, (45, 50), 23, 0), network(lr, (45, 50)))


def jumps(image: torch.Tensor) -> torch.Tensor:
    """Mean difference between neighbouring columns, (W - 1,)."""
    return image.diff(dim=-1).abs().mean((0, 1, 2))


def without_noise(network):
    """What the posterior draws is no seam; without it a constant image is constant in every window."""
    network.noise = lambda latent, origin=None: torch.zeros_like(latent)
    return network


def test_a_constant_image_shows_no_seams():
    network = without_noise(small_network(trained=True))
    lr = torch.full((1, 3, 64, 64), 0.4)
    with torch.no_grad():
        tiled, whole = network.tiled(lr, (256, 256), 16, 8), network(lr)
        calls = [place.start for place in window_slices(32, 16, 8)]
    assert calls == [0, 8, 16]
    inner = tiled[..., 64:-64, 64:-64]
    found = jumps(inner)
    period = found.view(-1)[:120].reshape(-1, 8).amax(0)  # the decoder itself has a pattern of 8 pixels
    assert jumps(whole[..., 64:-64, 64:-64]).max() > 0
    assert found.max() <= 1.5 * period.median().clamp_min(jumps(whole[..., 64:-64, 64:-64]).max())


def test_memory_is_that_of_a_window():
    network, seen = small_network(), []
    for part in (network.vae.encoder, network.unet, network.vae.decoder):
        part.register_forward_pre_hook(lambda module, inputs: seen.append(max(inputs[0].shape[-2:])))
    lr = torch.rand(1, 3, 60, 44)
    with torch.no_grad():
        sr = network.tiled(lr, (240, 176), 16, 4)
    assert sr.shape == (1, 3, 240, 176) and sr.isfinite().all()
    window = math.ceil(16 * 4 / 8) + math.ceil(8 * 4 / 8)  # latent cells
    assert set(seen) == {8 * window, window} and len(seen) == 3 * 4 * 3


# SR_Quality of a conditional system


def conditional(trained: bool = True) -> ConditionalSR:
    torch.manual_seed(1)
    return ConditionalSR(Masker(16), Bicubic(4), small_network(trained=trained)).eval()


def test_the_same_seed_gives_the_same_patch_whatever_the_mask():
    front, lr = conditional(), torch.rand(1, 3, 64, 64)
    base = Bicubic(4)(lr)
    one = torch.zeros(1, 4, 4, dtype=torch.bool)
    one[0, 1, 1] = True
    more = one.clone()
    more[0, 3, 2:] = True
    with torch.no_grad():
        alone, beside = (front.quality_on_patches(lr, mask, base.clone()) for mask in (one, more))
        other = front.with_seed(3).quality_on_patches(lr, one, base.clone())
    inside = (..., slice(64, 128), slice(64, 128))
    torch.testing.assert_close(alone[inside], beside[inside], atol=1e-5, rtol=1e-5)
    assert not torch.equal(alone[inside], base[inside])
    assert (other[inside] - alone[inside]).abs().max() > 1e-4
    torch.testing.assert_close(alone[..., 192:, :], base[..., 192:, :])


def test_all_patches_have_no_seams_and_use_the_noise_of_their_place():
    front, lr = conditional(), torch.rand(1, 3, 8, 8)
    lr = torch.nn.functional.interpolate(lr, size=(64, 64), mode="bicubic").clamp(0, 1)
    with torch.no_grad():
        sr = front.infer(lr, MaskPolicy("all_quality")).sr
    assert sr.shape == (1, 3, 256, 256)
    found = jumps(sr)
    at_borders = found[[63, 127, 191]].mean()
    elsewhere = found[[k for k in range(7, 255, 8) if k not in (63, 127, 191)]].mean()  # borders of latent cells
    assert at_borders < 1.3 * elsewhere


def test_windows_are_never_larger_than_the_base_knows(monkeypatch):
    monkeypatch.setattr("models.one_step_diffusion.tiling.LARGEST", 6)
    network, seen = small_network(), []
    network.unet.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape[-2:])))
    with torch.no_grad():
        assert network.tiled(torch.rand(1, 3, 24, 20), (96, 80), 20, 2).shape == (1, 3, 96, 80)
    assert set(seen) == {(6, 6)} and len(seen) == 3 * 2
