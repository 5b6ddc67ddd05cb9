"""The Swin U-Net: published sizes, sides, windows, and what the time step and the attention do."""

from __future__ import annotations

import pytest
import torch

from models.difiisr_dwt.swin import WindowAttention, from_windows, group_norm, shift_mask, to_windows
from models.difiisr_dwt.unet import ResBlock, SwinUNet, time_waves
from utils.errors import UserError
from utils.flops_counter import count_macs

SMALL = {"channels": 8, "mult": (1, 2), "n_blocks": 1, "swin_depth": 2, "swin_dim": 32, "window": 4}


@pytest.mark.parametrize(("inputs", "outputs", "millions"), [(6, 3, 118.594), (24, 12, 118.632), (42, 21, 118.671)])
def test_published_parameter_counts(inputs, outputs, millions):
    with torch.device("meta"):
        network = SwinUNet(inputs, outputs)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 3) == millions
    assert network.multiple == 64


@pytest.mark.slow
def test_published_cost():
    with torch.device("meta"):
        network, x, t = SwinUNet(6, 3), torch.empty(1, 6, 64, 64), torch.zeros(1, dtype=torch.long)
    assert count_macs(network, x, t) / 1e9 == pytest.approx(50.7, abs=0.3)


@pytest.mark.parametrize("size", [(8, 8), (8, 24), (16, 16)])
def test_sides_stay(size):
    network = SwinUNet(5, 3, **SMALL)
    assert network.multiple == 8
    assert network(torch.rand(2, 5, *size), torch.tensor([0, 14])).shape == (2, 3, *size)


def test_an_untrained_one_gives_nothing():
    assert SwinUNet(5, 3, **SMALL)(torch.rand(1, 5, 8, 8), torch.tensor([3])).abs().max() == 0


def moved(network: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def test_every_parameter_gets_a_gradient_and_samples_have_their_own_time():
    network = moved(SwinUNet(5, 3, **SMALL))
    x = torch.rand(1, 5, 16, 16)
    both = network(x.expand(2, -1, -1, -1), torch.tensor([1, 12]))
    assert torch.allclose(both[1:], network(x, torch.tensor([12])), atol=1e-5) and not torch.allclose(both[0], both[1])
    both.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_time_waves_of_whole_numbers():
    waves = time_waves(torch.tensor([0, 3]), 8)
    assert waves[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert waves[1, 0].item() == pytest.approx(torch.cos(torch.tensor(3.0)).item())
    assert waves[1, 5].item() == pytest.approx(torch.sin(torch.tensor(0.3)).item(), abs=1e-6)


def test_residual_blocks_begin_as_the_identity():
    x = torch.rand(1, 8, 4, 4)
    assert torch.equal(ResBlock(8, 8, 16)(x, torch.rand(1, 16)), x)


def test_windows_come_back():
    x = torch.rand(2, 8, 12, 3)
    assert torch.equal(from_windows(to_windows(x, 4), 4, 8, 12), x)
    assert torch.equal(to_windows(x, 4)[1], x[0, :4, 4:8].reshape(16, 3))


def test_pixels_that_only_the_shift_brings_together_are_apart():
    mask = shift_mask(8, 8, 4, 2, torch.device("cpu"))
    assert mask.shape == (4, 1, 16, 16) and mask[0].abs().max() == 0
    places = torch.arange(8).roll(-2)  # rows and columns after the shift
    rows, columns = torch.meshgrid(places, places, indexing="ij")
    ids = to_windows(torch.stack([rows, columns], -1)[None].float(), 4)
    far = (ids[:, :, None] - ids[:, None]).abs().amax(-1) > 3  # more than a window apart in the image
    assert torch.equal(mask[:, 0] < 0, far)


def test_attention_is_that_of_the_formula():
    attention, x = moved(WindowAttention(32, 1, 2)), torch.rand(3, 4, 32)
    q, k, v = attention.qkv(x).chunk(3, -1)
    bias = torch.empty(4, 4)
    for one in range(4):
        for other in range(4):
            row, column = one // 2 - other // 2 + 1, one % 2 - other % 2 + 1
            bias[one, other] = attention.bias[3 * row + column, 0]
    weights = (q @ k.mT / 32**0.5 + bias).softmax(-1)
    assert torch.allclose(attention(x, None), attention.proj(weights @ v), atol=1e-6)


def test_groups_divide_and_are_published_ones_where_wide():
    assert [group_norm(width).num_groups for width in (160, 192, 320, 640)] == [32] * 4
    assert [group_norm(width).num_groups for width in (2, 8, 32, 44)] == [1, 2, 8, 11]


def test_widths_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="channels is 7, swin_dim 32"):
        SwinUNet(5, 3, **(SMALL | {"channels": 7}))
