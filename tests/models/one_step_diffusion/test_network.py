"""The generator: published sizes, its formula, what learns, seeds, places, prompts, sizes and state."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from models import build_sr
from models.one_step_diffusion.parts import is_lora, small_parts
from models.one_step_diffusion.prediction import alpha_bar, clean_coefficients
from tests.extras import needs_generative
from tests.models.one_step_diffusion.small import small_network
from utils.errors import UserError
from utils.flops_counter import count_macs_at, count_parameters

pytestmark = needs_generative


# Published sizes


@pytest.fixture(scope="module")
def full():
    """The full size, as shapes."""
    with torch.device("meta"):
        return build_sr("one_step_diffusion", 4, {"preset": "sd2", "rank": 256})


def test_sizes_of_stable_diffusion_2_and_its_low_rank_additions(full):
    added = {name: p for name, p in full.named_parameters() if is_lora(name)}
    assert len(added) == 514 and sum(p.numel() for p in added.values()) == 259_474_432
    assert count_parameters(full.unet) == 865_910_724 + 259_474_432
    assert not any(name.startswith(("unet.conv_in.", "unet.time_embedding.")) for name in added)
    assert {name for name, p in full.named_parameters() if p.requires_grad} == set(added) == set(full.state_dict())


def test_sizes_of_the_small_parts():
    network = small_network()
    added = [p for name, p in network.named_parameters() if is_lora(name)]
    assert len(added) == 144 and sum(p.numel() for p in added) == 68_240
    assert count_parameters(network.unet) == 792_964 + 68_240
    assert count_parameters(network.vae) == 261_079
    assert count_macs_at(network, 32, 32) > 1e8


# Formula


def test_the_clean_latent_is_that_of_the_scheduler():
    from diffusers import DDPMScheduler

    assert alpha_bar(200) == pytest.approx(0.75369, abs=1e-5)
    a, b = clean_coefficients(200)
    assert (a, b) == (pytest.approx(1.15187, abs=1e-5), pytest.approx(0.57167, abs=1e-5))
    scheduler = DDPMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
    )
    z, eps = 3 * torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    expected = scheduler.step(eps, 200, z).pred_original_sample
    torch.testing.assert_close(a * z - b * eps, expected, atol=1e-5, rtol=1e-5)
    assert expected.abs().max() > 1, "a scheduler that clips would differ"


def test_it_is_encode_predict_and_decode():
    network, lr = small_network(trained=True), torch.rand(1, 3, 16, 24)
    reference = network.enlarged(lr, (64, 96))
    with torch.no_grad():
        found = network(lr)
        posterior = network.vae.encode(2 * reference - 1).latent_dist
        z = network.latent_scale * (posterior.mean + posterior.std * network.noise(posterior.mean))
        eps = network.unet(z, 200, network.prompt).sample
        image = (network.vae.decode((1.15187 * z - 0.57167 * eps) / network.latent_scale).sample + 1) / 2
        expected = network.finished(2 * image - 1, reference)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


# What learns


def test_untrained_it_is_the_network_without_additions():
    network, lr = small_network(), torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        adapted = network(lr)
        network.unet.disable_adapters()
        torch.testing.assert_close(adapted, network(lr), atol=1e-6, rtol=0)
        network.unet.enable_adapters()
        assert not torch.equal(adapted, small_network(trained=True)(lr))


def test_gradients_at_the_first_step_reach_half_of_the_additions_and_nothing_else():
    """B begins at zero, so A has no gradient yet."""
    network = small_network().train()
    network(torch.rand(1, 3, 16, 16)).square().mean().backward()
    reached = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert len(reached) == 72 and all(".lora_B." in name for name in reached)
    assert all(is_lora(name) for name, p in network.named_parameters() if p.requires_grad)
    network = small_network(trained=True)
    network(torch.rand(1, 3, 16, 16)).square().mean().backward()
    reached = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert len(reached) == 144


# Seeds, places, prompts


def test_the_same_seed_gives_the_same_image_and_another_one_another():
    network, lr = small_network(trained=True), torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        first = network(lr)
        torch.rand(5)
        assert torch.equal(network(lr), first)
        other = network.with_seed(7)
        assert other.unet is network.unet and network.seed == 0 and other.seed == 7
        assert not torch.equal(other(lr), first) and torch.equal(other.with_seed(0)(lr), first)
        torch.testing.assert_close(network(lr[1:]), first[1:], atol=1e-5, rtol=1e-5)


def test_a_window_has_the_noise_of_its_place():
    network = small_network()
    whole = network.noise(torch.empty(1, 4, 12, 16))
    part = network.noise(torch.empty(1, 4, 5, 6), torch.tensor([[3, 7]]))
    assert torch.equal(part, whole[..., 3:8, 7:13])
    lr, seen = torch.rand(1, 3, 16, 16), []
    network.noise = lambda latent, origin=None: seen.append(origin) or torch.zeros_like(latent)
    with torch.no_grad():
        network(lr, origin=torch.tensor([[10, 4]]))
        network(lr, (40, 40), origin=torch.tensor([[10, 4]]))
        network(lr)
    assert [None if place is None else place.tolist() for place in seen] == [[[5, 2]], [[3, 1]], None]


def test_prompts_as_embeddings_and_as_token_ids():
    from transformers import CLIPTextConfig, CLIPTextModel

    network, lr = small_network(trained=True), torch.rand(1, 3, 16, 16)
    embedding = torch.randn(1, 77, 32)
    with torch.no_grad():
        plain = network(lr)
        other = network.with_prompt(embedding)
        assert not torch.equal(other(lr), plain) and torch.equal(network(lr), plain)
        assert torch.equal(other.prompt, embedding) and other.unet is network.unet
    with pytest.raises(UserError, match=r"embedding is \(1, 76, 32\), expected \(1, 77, 32\)"):
        network.with_prompt(embedding[:, 1:])
    with pytest.raises(UserError, match="no text encoder"):
        network.with_prompt(torch.tensor([[1, 2]]))
    config = CLIPTextConfig(
        vocab_size=100, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    )
    encoder = CLIPTextModel(config).eval()
    network.take_parts(replace(small_parts(32, 32, 16, 4), text_encoder=encoder))
    found = network.with_prompt(torch.tensor([[98, 5, 99]])).prompt
    ids = torch.full((1, 77), 99)
    ids[0, :2] = torch.tensor([98, 5])
    with torch.no_grad():
        torch.testing.assert_close(found, encoder(ids).last_hidden_state)
    assert found.shape == (1, 77, 32) and not found.requires_grad
    with pytest.raises(UserError, match=r"token ids are \(1, 78\)"):
        network.with_prompt(torch.ones(1, 78, dtype=torch.long))


# Sizes and state


@pytest.mark.parametrize("size", [(1, 1), (7, 13)])
@pytest.mark.parametrize(("scale", "target"), [(1, None), (3, None), (4, (30, 50)), (2.5, None)])
def test_any_size_comes_out(size, scale, target):
    sr = small_network(scale)(torch.rand(2, 3, *size), target)
    assert sr.shape == (2, 3, *(target or (round(scale * size[0]), round(scale * size[1]))))
    assert sr.isfinite().all()


def test_low_frequencies_are_those_of_the_input():
    from models.one_step_diffusion.colour_fix import low_pass

    network, lr = small_network(trained=True), torch.rand(1, 3, 24, 24)
    with torch.no_grad():
        found = low_pass(network(lr)) - low_pass(network.enlarged(lr, (96, 96)))
    assert found.abs().max() < 0.1, "the filter applied twice is not quite the filter applied once"


def test_saved_weights_give_the_same_image(tmp_path):
    network, lr = small_network(trained=True), torch.rand(1, 3, 9, 8)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    torch.manual_seed(9)
    twin = build_sr(network.spec["name"], 4, network.spec["args"]).eval()
    twin.load_state_dict(torch.load(tmp_path / "weights.pth", weights_only=True))
    with torch.no_grad():
        assert torch.equal(twin(lr), network(lr))
        assert torch.equal(copy.deepcopy(network)(lr), network(lr))


def test_bfloat16_autocast_stays_close_to_float32():
    network, lr = small_network(), torch.rand(1, 3, 12, 10)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        low = network(lr)
    with torch.no_grad():
        assert (low.float() - network(lr)).abs().mean() < 0.03
    assert low.dtype == torch.float32


def test_without_its_base_weights_it_says_what_is_missing(full):
    with pytest.raises(UserError, match="base weights of preset sd2 are not loaded; give args base"):
        full(torch.rand(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"preset": "sd3"}, "preset is 'sd3'; use one of small, sd2"),
        ({"base": "folder"}, "base, prompt and own_encoder belong to preset sd2"),
        ({"own_encoder": True}, "base, prompt and own_encoder belong to preset sd2"),
        ({"channels": 24}, "channels is 24 and vae_channels 16, but they must be multiples of 16 and 8"),
        ({"rank": 0}, "rank is 0, but must be a positive integer"),
        ({"timestep": 1000}, "timestep is 1000; use 1 to 999"),
    ],
)
def test_a_wrong_request_is_explained(args, message):
    with pytest.raises(UserError, match=message):
        build_sr("one_step_diffusion", 4, args)
    with pytest.raises(UserError, match="scale is 9; use a number from 1 to 8"):
        build_sr("one_step_diffusion", 9)


def test_a_network_with_another_seed_outlives_the_one_that_it_was_made_of():
    network, lr = small_network().with_seed(3), torch.rand(1, 3, 8, 8)  # nothing holds the first one any more
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(network)(lr), network(lr))
