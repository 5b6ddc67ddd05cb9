"""LDCSR's parts: published sizes, schedule, paddings, and the decoder that begins as interpolation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import build_sr
from models.arbitrary_scale import BicubicToSize
from models.ldcsr.diffusion import schedule
from models.ldcsr.encoder import at_least_one_cell, latent_size, norm_groups
from models.ldcsr.unet import MULTIPLE, pad_to_multiple
from tests.extras import needs_generative
from tests.models.ldcsr.small import small
from utils.errors import UserError
from utils.flops_counter import count_macs, count_parameters

pytestmark = needs_generative


@pytest.fixture(scope="module")
def published():
    with torch.device("meta"):
        return build_sr("ldcsr", 4)


def test_sizes_are_the_published_ones(published):
    encoder = published.autoencoder.encoder
    assert count_parameters(published.autoencoder.decoder) == 6_807_944
    assert count_parameters(encoder.body) == 6_082_568
    assert count_parameters(encoder.moments) == 8 * 8 + 8
    assert count_parameters(published.condition) == 6_071_620
    assert count_parameters(published.unet) == 18_373_124
    assert count_parameters(published.autoencoder.unpack) == 4 * 4 + 4
    inference = sum(map(count_parameters, (published.autoencoder.decoder, published.condition, published.unet)))
    assert inference == pytest.approx(31.25e6, rel=1e-3)


def test_the_network_without_diffusion_has_condition_network_and_decoder_alone(published):
    with torch.device("meta"):
        network = build_sr("ldcsr_kd", 4)
    assert count_parameters(network) == 6_807_944 + 6_071_620 + 20
    assert {key: value.shape for key, value in network.state_dict().items()}.items() <= {
        key: value.shape for key, value in published.state_dict().items()
    }.items()
    with torch.device("meta"):
        assert build_sr("ldcsr", 4, {"oracle": False}).autoencoder.encoder is None


def test_macs_are_the_published_ones(published):
    """For an output of 256 x 256."""
    meta = {"device": "meta"}
    decoder, up = published.autoencoder.decoder, torch.empty(1, 3, 256, 256, **meta)
    latent = torch.empty(1, 4, 32, 32, **meta)
    for scale, gmacs in ((4, 52.4), (8, 26.6)):
        lr = torch.empty(1, 3, 256 // scale, 256 // scale, **meta)
        assert count_macs(decoder, latent, lr, (256, 256)) / 1e9 == pytest.approx(gmacs, rel=0.01)
    assert count_macs(published.condition, up) / 1e9 == pytest.approx(26.7, rel=0.01)
    assert count_macs(published.unet, latent, latent, 3, 4.0, 256) / 1e9 == pytest.approx(1.61, rel=0.02)


def test_the_schedule_is_the_published_one():
    found = schedule(4)
    assert found.betas == pytest.approx([0.1000, 0.2943, 0.5910, 0.9900], abs=5e-5)
    assert found.alphas_cumprod == pytest.approx([0.9000, 0.6351, 0.2598, 0.0026], abs=5e-5)
    assert found.variances == pytest.approx([0, 0.0807, 0.2913, 0.7347], abs=5e-5)


def test_the_chain_is_that_of_diffusers():
    """Noise of variance as in its "fixed_small", and the means of its posterior, at every step."""
    diffusers = pytest.importorskip("diffusers")
    own = schedule(4)
    theirs = diffusers.DDPMScheduler(
        4, trained_betas=list(own.betas), prediction_type="epsilon", variance_type="fixed_small", clip_sample=False
    )
    theirs.set_timesteps(4)
    assert theirs.timesteps.tolist() == [3, 2, 1, 0]
    z, predicted = torch.randn(2, 4, 5, 5), torch.randn(2, 4, 5, 5)
    for t in (3, 2, 1, 0):
        noise = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(t))
        expected = theirs.step(predicted, t, z, generator=torch.Generator().manual_seed(t)).prev_sample
        assert torch.allclose(own.step_back(z, predicted, t, noise), expected, atol=1e-4, rtol=1e-4)
        if t:
            assert theirs._get_variance(t).item() == pytest.approx(own.variances[t], rel=1e-5)


def test_a_perfect_prediction_ends_at_the_latent():
    own, clean = schedule(4), torch.randn(2, 4, 6, 5).double()
    noises = list(torch.randn(3, 2, 4, 6, 5).double())

    def perfect(z, t):
        left = own.alphas_cumprod[t]
        return (z - left**0.5 * clean) / (1 - left) ** 0.5

    z = own.noised(clean, torch.randn_like(clean))
    assert torch.allclose(own.run(z, perfect, noises), clean)
    assert own.noised(clean, torch.zeros_like(clean)).norm() / clean.norm() == pytest.approx(0.0026**0.5, rel=0.02)


@given(st.integers(1, 40), st.integers(1, 40))
@settings(deadline=None)
def test_latents_are_padded_to_multiples_and_tiny_ones_too(height: int, width: int):
    latent = torch.rand(1, 2, height, width)
    padded = pad_to_multiple(latent)
    assert padded.shape[2] % MULTIPLE == 0 == padded.shape[3] % MULTIPLE
    assert padded.shape[2] - height < MULTIPLE and padded.shape[3] - width < MULTIPLE
    assert torch.equal(padded[..., :height, :width], latent)
    if 1 < height < 2 * MULTIPLE and -height % MULTIPLE < height and height % MULTIPLE:
        assert torch.equal(padded[:, :, height, :width], latent[:, :, height - 2])  # mirrored, not repeated


@pytest.mark.parametrize(("side", "cells"), [(255, 31), (256, 32), (263, 32), (264, 33), (8, 1), (7, 1), (1, 1)])
def test_a_latent_has_an_eighth_of_the_pixels_rounded_down(side: int, cells: int):
    assert latent_size((side, 64)) == (cells, 8)
    condition = small().condition
    assert condition(torch.rand(1, 3, side, 16)).shape[-2:] == (cells, 2)


def test_images_below_one_cell_are_extended():
    assert at_least_one_cell(torch.rand(1, 3, 9, 8)).shape[-2:] == (9, 8)
    assert torch.equal(at_least_one_cell(torch.ones(1, 3, 1, 3)), torch.ones(1, 3, 8, 8))


def test_a_group_has_at_least_two_channels():
    assert [norm_groups(channels) for channels in (2, 8, 64, 256, 200, 70)] == [1, 4, 32, 32, 25, 14]
    with pytest.raises(UserError, match="7 channels cannot be normalised in pairs"):
        norm_groups(7)


@torch.no_grad()
def test_each_embedding_is_told_its_own_number():
    unet, (z, c) = small().unet, torch.randn(2, 1, 4, 8, 8)
    for layer, moves in ((unet.scale, "scale"), (unet.height, "height")):
        weight = layer.linear_2.weight.clone()
        other = unet.height if layer is unet.scale else unet.scale
        kept, other.linear_2.weight.data = other.linear_2.weight.data, torch.zeros_like(weight)
        first = unet(z, c, 1, 2.6, 64)
        assert torch.equal(first, unet(z, c, 1, 3.1, 64)) == (moves != "scale")
        assert torch.equal(first, unet(z, c, 1, 2.6, 70)) == (moves != "height")
        other.linear_2.weight.data = kept


@pytest.mark.parametrize("size", [(20, 26), (21, 30), (10, 13), (37, 17 * 3), (100, 130)])
@torch.no_grad()
def test_without_its_last_convolution_the_decoder_interpolates_exactly(size):
    for name in ("ldcsr", "ldcsr_kd"):
        network = small(name)
        for parameter in network.tail[-1].parameters():
            torch.nn.init.zeros_(parameter)
        lr = torch.rand(1, 3, 10, 13)
        assert torch.equal(network(lr, size), BicubicToSize()(lr, size))


def test_scale_gains_lie_on_the_unit_circle():
    level = small().autoencoder.decoder.levels[0]
    x, deep, scale = torch.rand(1, 8, 3, 3), torch.zeros(1, 8, 1, 1), torch.tensor([2.6])
    level.refine = torch.nn.Identity()
    torch.nn.init.zeros_(level.transfer.weight)
    torch.nn.init.ones_(level.transfer.bias)
    image = level(x, deep, scale)[0]
    a, b = level.image_gain(scale), level.prior_gain(scale)
    angle = torch.atan2(b, a)[:, None, None]
    expected = torch.nn.functional.leaky_relu(angle.cos() * x + angle.sin(), 0.01)
    assert torch.allclose(image, expected, atol=1e-5)
