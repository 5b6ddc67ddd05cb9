"""Windows that fade into each other: exact where they agree, no seam where they do not, the same whatever the mask."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.capabilities import AnyScale, Capabilities
from models.conditional_sr import ConditionalSR
from models.execution import Execution
from models.mask_policy import GivenMask
from models.masker import Masker
from models.noise import normal_field
from models.single_sr import SingleSR
from models.sr_fast import Bicubic
from models.sr_network import SRNetwork
from models.tiling.blended import fading_tiles, grown, run_blended
from models.tiling.run_patches import TileOptions
from models.tiling.whole import run_tiles, run_whole

SCALE = 2


class Noisy(SRNetwork):
    """Nearest neighbour, plus noise by place, plus a level that every window makes of its own mean."""

    tail = None

    def __init__(self, level=0.0, noise=0.5, blend=4, any_scale=False):
        super().__init__()
        self.scale, self.level, self.noise, self.seed, self.calls = SCALE, level, noise, 0, []
        scales = AnyScale(1, 8) if any_scale else (SCALE,)
        self.capabilities = Capabilities(
            None, local_receptive_radius=8, tiling="overlap", blend=blend, stochastic=True, scales=scales
        )
        self.weight = nn.Parameter(torch.ones(1))

    def with_seed(self, seed):
        network = copy.copy(self)
        network.seed = seed
        return network

    def forward(self, lr, size=None, origin=None):
        size = size or (SCALE * lr.shape[-2], SCALE * lr.shape[-1])
        self.calls.append(tuple(lr.shape))
        origin = torch.zeros(len(lr), 2, dtype=torch.long) if origin is None else origin
        field = normal_field(self.seed, 0, 3, origin, (lr.shape[-2], lr.shape[-1]))
        x = self.weight * lr + self.noise * field + self.level * lr.mean((1, 2, 3), keepdim=True)
        return nn.functional.interpolate(x, size)


def images(height=40, width=56, batch=1):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


@settings(deadline=None, max_examples=150)
@given(st.integers(1, 90), st.sampled_from([(1, 1), (2, 1), (4, 1), (3, 2), (13, 5)]), st.integers(5, 24), st.data())
def test_weights_add_up_to_one_everywhere(length, scale, tile, data):
    length *= scale[1]
    halo, blend = data.draw(st.integers(0, 9)), data.draw(st.integers(0, 9))
    hr_length = length * scale[0] // scale[1]
    total = torch.zeros(hr_length)
    for t in fading_tiles(length, hr_length, tile, halo, blend):
        assert 0 <= t.inside.start < t.inside.stop <= t.length
        assert t.inside.stop - t.inside.start == t.target.stop - t.target.start == len(t.weight)
        assert t.start == t.window.start and (t.weight > 0).all()
        # The part that is used lies where the window's pixels lie.
        assert t.target.start * scale[1] == t.window.start * scale[0] + t.inside.start * scale[1]
        total[t.target] += t.weight
    assert (total - 1).abs().max() < 1e-5


@settings(deadline=None, max_examples=60)
@given(st.integers(5, 50), st.integers(5, 50), st.sampled_from([8, 12, 16]), st.sampled_from([1, 300, 10**6]))
def test_windows_that_agree_give_the_whole_exactly(height, width, tile, max_pixels):
    network, lr = Noisy(), images(height, width, 2)
    whole = network(lr)
    windows = run_blended(network, lr, whole.shape[-2:], tile, 6, max_pixels)
    assert (windows - whole).abs().max() < 1e-5
    assert (run_tiles(network, lr, whole.shape[-2:], tile) - whole).abs().max() < 1e-5


def test_fractional_scales_are_blended_too():
    network, lr = (
        Noisy(noise=0, any_scale=True),
        torch.rand(1, 3, 4, 4).repeat_interleave(10, 2).repeat_interleave(10, 3),
    )
    size = (60, 60)
    assert (run_tiles(network, lr, size, 10) - network(lr, size)).abs().max() < 1e-5


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 700), st.sampled_from([1.1, 2.6, 3, 3.75, 8]), st.integers(16, 64))
def test_an_axis_of_a_fractional_scale_grows_until_tiles_fit(length, scale, tile):
    hr_length = round(length * scale)
    longer, hr_longer = grown(length, hr_length, tile)
    assert longer >= length and hr_longer >= hr_length
    if length <= tile or scale == int(scale):
        assert (longer, hr_longer) == (length, hr_length)
    else:
        assert longer - length < 20 and abs(hr_longer / longer * length - hr_length) <= 0.5
    assert fading_tiles(longer, hr_longer, tile, 8, 4)[-1].target.stop == hr_longer


def test_sizes_without_a_common_pixel_are_computed_in_tiles():
    network, (rows, columns) = (
        Noisy(noise=0, any_scale=True),
        torch.meshgrid(torch.arange(97), torch.arange(131), indexing="ij"),
    )
    lr = torch.stack([rows / 97, columns / 131, 0 * rows])[None]
    size = (252, 341)  # x2.6
    assert (run_tiles(network, lr, size, 24) - network(lr, size)).abs().max() < 0.02


def seam(image, cell):
    """Mean step across borders between patches, divided by the mean step elsewhere."""
    image = image[..., ::SCALE]  # of pixels that are copies of each other only one
    step = (image[..., 1:] - image[..., :-1]).abs().mean((0, 1, 2))
    border = torch.zeros(len(step), dtype=torch.bool)
    border[cell - 1 :: cell] = True
    return (step[border].mean() / step[~border].mean()).item()


def test_windows_that_do_not_agree_leave_no_seam():
    lr = images(48, 64) * torch.linspace(1, 0, 64)  # so that windows have very different means
    edge, faded = (Noisy(level=3.0, noise=0, blend=blend) for blend in (0, 6))
    size = (96, 128)
    assert seam(run_blended(edge, lr, size, 16, 8, 10**6), 16) > 1.5
    assert seam(run_blended(faded, lr, size, 16, 8, 10**6), 16) < 1.15


def front(network, **execution):
    return ConditionalSR(Masker(patch=16, channels=4), Bicubic(SCALE), network, Execution(**execution)).eval()


def infer(system, lr, mask):
    return system.infer(lr, GivenMask(mask)).sr


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**12 - 1), st.integers(0, 2**12 - 1))
def test_what_a_patch_adds_does_not_depend_on_the_mask(first, second):
    lr, network = images(40, 56), Noisy(level=0.3, noise=0.02)
    lr = 0.4 + 0.1 * lr  # nothing is clamped
    system = front(network)
    a, b = (
        torch.tensor([[n >> i & 1 for i in range(12)]], dtype=torch.bool).view(1, 3, 4)
        for n in (first, second & ~first)
    )
    fast = infer(system, lr, torch.zeros_like(a))
    added = infer(system, lr, a) + infer(system, lr, b) - fast
    assert (infer(system, lr, a | b) - added).abs().max() < 1e-5


def test_only_selected_patches_are_computed_each_in_its_own_window():
    network, lr = Noisy(), images(64, 64, 2)
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[0, 1, 1] = mask[0, 1, 2] = mask[1, 3, 3] = True
    sr = infer(front(network, halo=8), lr, mask)
    assert network.calls == [(3, 3, 32, 32)]
    fast = Bicubic(SCALE)(lr).clamp(0, 1)
    changed = ((sr - fast).abs().amax(1) > 1e-6).view(2, 128, 128)
    assert not changed[0, :, : 32 - 8].any() and not changed[0, 64 + 8 :].any()  # a patch fades out over 4 LR pixels
    assert changed[0, 32:64, 32:96].float().mean() > 0.99 and not changed[1, :88].any()


def test_all_patches_need_no_fast_network_and_equal_the_masked_ones():
    lr, network = 0.4 + 0.1 * images(40, 56), Noisy(level=0.2, noise=0.02)
    system = front(network)
    everything = infer(system, lr, torch.ones(1, 3, 4, dtype=torch.bool))
    assert (everything - run_blended(network, lr, (80, 112), 16, None, 10**6)).abs().max() < 1e-5


def test_seeds_change_the_noise_and_the_weights_are_shared():
    lr, system = images(), front(Noisy(noise=0.1))
    mask = torch.ones(1, 3, 4, dtype=torch.bool)
    other = system.with_seed(5)
    assert not torch.equal(infer(system, lr, mask), infer(other, lr, mask))
    assert torch.equal(infer(system.with_seed(5), lr, mask), infer(other, lr, mask))
    assert other.sr_quality.weight is system.sr_quality.weight
    alone = SingleSR(Noisy(noise=0.1))
    assert not torch.equal(alone.infer(lr, None).sr, alone.with_seed(5).infer(lr, None).sr)


def test_large_images_are_computed_in_parts_of_bounded_size():
    network, lr = Noisy(), images(120, 100)
    sr = run_whole(network, lr, 40 * 40)
    assert (sr - network(lr)).abs().max() < 1e-5
    assert max(n * h * w for n, _, h, w in network.calls[:-1]) <= 40 * 40


def test_an_image_that_every_window_would_hold_is_computed_once():
    network, lr = Noisy(), images(40, 31)
    assert torch.equal(run_tiles(network, lr, (80, 62), 24, 8), network(lr)) and network.calls == [(1, 3, 40, 31)] * 2
    run_tiles(network, lr, (80, 62), 23, 8)
    assert network.calls[2:] == [(1, 3, 39, 31)] * 4


def test_tiles_in_training_carry_the_gradient():
    network = Noisy(noise=0)
    system = front(network, train_tiles=True, tiles=TileOptions())
    system.train()
    system(images()).sr.sum().backward()
    assert network.weight.grad.abs() > 0


def test_a_fade_longer_than_the_halo_is_refused():
    with pytest.raises(ValueError, match="blend <= local_receptive_radius"):
        Capabilities(None, local_receptive_radius=2, tiling="overlap", blend=3)
