"""DifIISR-DWT as an SR network: starts as bicubic, seeds, places, sizes, steps and samplers."""

from __future__ import annotations

import pytest
import torch

from models import build_sr
from models.conditional_sr import ConditionalSR
from models.difiisr_dwt.codecs import CODECS
from models.difiisr_dwt.network import parse_mult
from models.mask_policy import GivenMask
from models.masker import Masker
from models.noise import normal_field
from models.sr_fast import Bicubic
from utils.errors import UserError

SMALL = {"channels": 8, "mult": "1-2", "n_blocks": 1, "swin_depth": 2, "swin_dim": 32, "window": 2, "steps": 2}


def small(scale: int = 4, **args):
    torch.manual_seed(0)
    return build_sr("difiisr_dwt", scale, SMALL | args).eval()


def trained(network):
    """As after a training: statistics of bands, and no weight as the initialisation set it."""
    torch.manual_seed(0)
    bands = network.codec.channels
    network.set_statistics(0.1 * torch.randn(bands), torch.rand(bands) + 0.2, torch.rand(bands) + 0.1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("cond", ["raw", "encoded"])
def test_an_untrained_residual_network_is_bicubic(codec, cond):
    network, lr = small(codec=codec, cond=cond, predict="residual"), torch.rand(2, 3, 16, 8)
    expected, got = Bicubic(4)(lr), network(lr)
    assert not network.has_statistics
    difference = (got - expected).abs()
    assert difference.max() < (1e-5 if codec in ("v1", "v2", "v5") else 0.2)  # resized bands lose detail


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("cond", ["raw", "encoded"])
def test_any_size_at_any_scale(scale, levels, cond):
    network = trained(small(scale, levels=levels, cond=cond, codec="v2"))
    assert network(torch.rand(2, 3, 7, 11)).shape == (2, 3, 7 * scale, 11 * scale)
    side = network.capabilities.size_multiple
    assert network.encode_lr(torch.rand(1, 3, side, side)).y.shape[-1] * 2**levels == scale * side


def test_the_seed_decides_and_copies_share_the_weights():
    network, lr = trained(small()), torch.rand(1, 3, 8, 8)
    other = network.with_seed(5)
    assert torch.equal(network(lr), network(lr)) and torch.equal(other(lr), network.with_seed(5)(lr))
    assert not torch.equal(network(lr), other(lr)) and network.seed == 0
    assert all(a is b for a, b in zip(network.parameters(), other.parameters()))


def test_a_window_gets_the_noise_of_the_whole(monkeypatch):
    """With a denoiser that returns what it sees, the image shows LR code plus noise."""
    network = small(steps=1)
    monkeypatch.setattr(network, "denoise", lambda x_t, t, code: x_t)
    lr, place = torch.rand(1, 3, 32, 24), torch.tensor([[12, 4]])
    whole = network(lr)[..., 48:112, 16:80]
    window = network(lr[..., 12:28, 4:20], place)
    inner = (..., slice(8, -8), slice(8, -8))  # bicubic interpolation sees two LR pixels
    assert (window - whole)[inner].abs().max() < 1e-4
    assert (network(lr[..., 12:28, 4:20]) - whole)[inner].abs().max() > 0.5


def test_origins_count_cells_of_the_code(monkeypatch):
    asked = []

    def record(seed, draw, channels, origin, size, device):
        asked.append((seed, draw, channels, origin.tolist(), size))
        return normal_field(seed, draw, channels, origin, size, device)

    monkeypatch.setattr("models.difiisr_dwt.network.normal_field", record)
    network = small(2, codec="v1", steps=3).with_seed(9)
    network(torch.rand(1, 3, 8, 16), torch.tensor([[6, 20]]))
    assert asked == [(9, draw, 3, [[3, 10]], (4, 8)) for draw in range(3)]


@pytest.mark.parametrize("sampler", ["ancestral", "deterministic"])
@pytest.mark.parametrize("steps", [1, 4, 15])
def test_every_sampler_takes_its_steps(sampler, steps, monkeypatch):
    network, seen = trained(small(sampler=sampler, steps=steps, codec="v1")), []
    denoise = network.denoise

    def noted(x_t, t, code):
        seen.append(t.tolist())
        return denoise(x_t, t, code)

    monkeypatch.setattr(network, "denoise", noted)
    network(torch.rand(2, 3, 8, 8))
    assert seen == [[t, t] for t in network.schedule.timesteps(steps)] and network.capabilities.steps == steps


def test_the_two_samplers_agree_in_one_step_and_differ_in_two():
    lr, networks = torch.rand(1, 3, 8, 8), {}
    for steps in (1, 2):
        one, other = (trained(small(sampler=s, steps=steps)) for s in ("ancestral", "deterministic"))
        networks[steps] = torch.equal(one(lr), other(lr))
    assert networks == {1: True, 2: False}


def test_a_trained_network_samples_in_other_ways():
    network, lr = trained(small(codec="v1")), torch.rand(1, 3, 8, 8)
    one = network.with_sampling(1, "deterministic")
    assert (network.steps, network.capabilities.steps, network.sampler) == (2, 2, "ancestral")
    again = build_sr(one.spec["name"], 4, one.spec["args"]).eval()
    again.load_state_dict(network.state_dict())
    assert one.capabilities.steps == 1 and torch.equal(one(lr), again(lr)) and not torch.equal(one(lr), network(lr))
    with pytest.raises(UserError, match="sampler is 'ddim'"):
        network.with_sampling(1, "ddim")
    with pytest.raises(UserError, match="16 sampling steps"):
        network.with_sampling(16)


def test_gradients_reach_the_denoiser_and_what_decodes():
    network = trained(small(codec="v4"))
    network(torch.rand(1, 3, 8, 8)).square().mean().backward()
    for parameter in (network.unet.leave.weight, network.unet.entry.weight, network.codec.resize.up[0].weight):
        assert parameter.grad.abs().sum() > 0


def test_inputs_of_the_denoiser_have_the_published_widths():
    inputs = {("v1", "raw"): 6, ("v2", "encoded"): 24, ("v4", "encoded"): 42, ("v5", "encoded"): 96, ("v5", "raw"): 51}
    for (codec, cond), channels in inputs.items():
        assert small(codec=codec, cond=cond).unet.entry.in_channels == channels


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types_give_nearly_the_same(dtype):
    network, lr = trained(small(codec="v4", steps=1, predict="residual")), torch.rand(1, 3, 8, 8)
    expected = network(lr)
    with torch.no_grad():
        got = trained(small(codec="v4", steps=1, predict="residual")).to(dtype)(lr.to(dtype))
    assert (got.float() - expected).abs().max() < (0.15 if dtype == torch.bfloat16 else 1e-4)


def test_wrong_arguments_are_refused():
    for args, message in (
        ({"sampler": "ddim"}, "sampler is 'ddim'; use ancestral or deterministic"),
        ({"cond": "lq"}, "cond is 'lq'; use encoded or raw"),
        ({"predict": "noise"}, "predict is 'noise'; use x0 or residual"),
        ({"codec": "vq"}, "codec 'vq' is unknown"),
        ({"wavelet": "coif1"}, "wavelet 'coif1' is unknown"),
        ({"steps": 16}, "16 sampling steps of a diffusion with T = 15"),
        ({"mult": "1,2"}, "mult is '1,2'; use positive whole numbers"),
    ):
        with pytest.raises(UserError, match=message):
            small(**args)
    with pytest.raises(UserError, match="scale is 5"):
        small(5)
    assert parse_mult("1-2-2-4") == (1, 2, 2, 4)


def test_as_sr_quality_a_patch_is_the_same_whatever_the_mask():
    network = trained(small(steps=2, predict="residual", channels=4))
    system = ConditionalSR(Masker(patch=16, channels=4), Bicubic(4), network).eval()
    lr = 0.4 + 0.2 * torch.rand(1, 3, 32, 48)
    one, other = torch.zeros(2, 1, 2, 3, dtype=torch.bool)
    one[0, 1, 1] = other[0, 0, 2] = other[0, 1, 2] = True
    fast, first, second, both = (system.infer(lr, GivenMask(m)).sr for m in (one & other, one, other, one | other))
    assert torch.equal(system.infer(lr, GivenMask(one)).sr, first)
    assert (first - fast).abs().max() > 1e-2 and first.min() > 0 and second.max() < 1  # nothing was clamped
    assert (both - (first + second - fast)).abs().max() < 1e-5


@torch.no_grad()
def test_codes_are_not_rounded_by_mixed_precision():
    network, lr = small(), torch.rand(1, 3, 9, 7)
    expected = network.encode_lr(lr).y
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network.encode_lr(lr).y, expected)
