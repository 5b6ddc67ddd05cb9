"""Masker: grid, independence of the batch, cost, initial bias."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from models import build_sr
from models.build_front import shared_stem
from models.masker import Masker, feature_maps
from models.sr_quality import EDSR
from utils.flops_counter import count_macs_at

PATCHES = (4, 5, 7, 8, 12, 16, 31, 32, 64)


@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize("size", [(1, 1), (3, 65), (64, 64), (61, 47)])
def test_one_decision_per_patch_for_any_size(patch, size):
    masker = Masker(patch)
    logits = masker(torch.rand(2, 3, *size))
    assert logits.shape == (2, 2, -(-size[0] // patch), -(-size[1] // patch))
    assert logits.shape[2:] == masker.grid(*size)
    assert logits.isfinite().all()


@pytest.mark.parametrize("patch", [8, 7])
def test_a_batch_gives_what_its_images_give(patch):
    masker, lr = Masker(patch).eval(), torch.rand(4, 3, 45, 37)
    assert torch.allclose(masker(lr), torch.cat([masker(image[None]) for image in lr]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("patch", [8, 7])
def test_gradient_reaches_every_parameter(patch):
    masker = Masker(patch)
    lr = torch.rand(1, 3, 40, 33, requires_grad=True)
    masker(lr)[:, 1].square().sum().backward()
    assert lr.grad.abs().sum() > 0
    assert all(parameter.grad.abs().sum() > 0 for parameter in masker.parameters())


@pytest.mark.parametrize("name", ["espcn", "fsrcnn"])
def test_a_shared_stem_is_seen_instead_of_the_image_and_belongs_to_its_network(name):
    network = build_sr(name, 2)
    stem = shared_stem(network)
    masker = Masker(8, stem=stem)
    maps = stem(torch.zeros(1, 3, 8, 8)).shape[1]
    assert masker.features[0].in_channels == feature_maps(stem) == maps
    lr = torch.rand(2, 3, 29, 41)
    logits = masker(lr)
    assert logits.shape == (2, 2, 4, 6)
    logits[:, 1].square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in stem.parameters())
    own = {id(parameter) for parameter in masker.own_parameters()}
    assert own == {id(p) for p in masker.parameters()} - {id(p) for p in network.parameters()} and own
    with torch.no_grad():
        stem[0].weight.zero_() if name == "espcn" else stem[0][0].weight.zero_()
    assert not torch.allclose(masker(lr), logits)


def test_a_network_without_layers_to_share_is_named():
    with pytest.raises(ValueError, match=r"masker\.shared_stem: bicubic has no layers to share; take espcn or fsrcnn"):
        shared_stem(build_sr("bicubic", 2))


@pytest.mark.parametrize("bias", [0.0, 2.0, 5.0])
def test_the_bias_decides_at_the_start(bias):
    torch.manual_seed(0)
    for lr in (torch.rand(2, 3, 64, 64), torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64)):
        logits = Masker(8, bias=bias).eval()(lr)
        assert (logits[:, 1] - logits[:, 0] - bias).abs().max() < 0.5


def test_sees_the_content():
    torch.manual_seed(0)
    lr = torch.full((1, 3, 64, 64), 0.5)
    lr[..., :32] = torch.rand(1, 3, 64, 32)
    logits = Masker(8)(lr)
    assert (logits[..., 1] - logits[..., 6]).abs().max() > 1e-3


@pytest.mark.parametrize("patch", PATCHES)
def test_costs_at_most_one_percent_of_a_small_sr_quality(patch):
    quality = EDSR(4, n_blocks=8, n_feats=32, tail="single")
    assert count_macs_at(quality, 160, 160) == 171_360 * 160**2
    assert count_macs_at(Masker(patch), 160, 160) <= 0.01 * count_macs_at(quality, 160, 160)


def test_saved_weights_give_the_same_logits(tmp_path):
    masker, twin, lr = Masker(8), Masker(8), torch.rand(1, 3, 20, 20)
    torch.save(masker.state_dict(), tmp_path / "masker.pth")
    twin.load_state_dict(torch.load(tmp_path / "masker.pth", weights_only=True))
    assert torch.equal(masker(lr), twin(lr))


def test_bfloat16_autocast_stays_close_to_float32():
    masker, lr = Masker(8), torch.rand(1, 3, 40, 40)
    with torch.autocast("cpu", torch.bfloat16):
        low = masker(lr)
    assert (low.float() - masker(lr)).abs().max() < 0.05


@pytest.mark.parametrize("patch", [0, 3, 65])
def test_patch_out_of_range_is_refused(patch):
    with pytest.raises(ValueError, match="4 to 64"):
        Masker(patch)


def test_a_push_on_all_patches_alike_moves_the_offset_only():
    masker = Masker(8)
    lr = torch.rand(3, 3, 64, 64) * torch.rand(3, 1, 64, 64).round()  # patches of very different strength
    logits = masker(lr)
    (logits[:, 1] - logits[:, 0]).mean().backward()
    assert masker.offset.grad.abs() > 1
    others = [p.grad.abs().max() for name, p in masker.named_parameters() if name != "offset"]
    assert max(others) < 1e-4


def logits_by_hand(masker, lr):
    """The masker once more, from its description: an image of zero mean and unit variance, its border repeated up to
    whole patches, three convolutions, the mean of every patch, a look at the neighbours, centred features."""
    rows, columns = masker.grid(*lr.shape[-2:])
    down = torch.arange(rows * masker.patch).clamp(max=lr.shape[-2] - 1)
    right = torch.arange(columns * masker.patch).clamp(max=lr.shape[-1] - 1)
    x = ((lr - 0.5) / 0.25)[:, :, down][..., right]
    weights = dict(masker.named_parameters())
    for layer, stride in (("features.0", 2), ("features.2", 2), ("features.4", 1)):
        x = F.relu(F.conv2d(x, weights[f"{layer}.weight"], weights[f"{layer}.bias"], stride, 1))

    def cells(length, count):
        return [slice(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]

    across = cells(x.shape[-1], columns)
    means = [[x[:, :, high, wide].mean((2, 3)) for wide in across] for high in cells(x.shape[-2], rows)]
    x = torch.stack([torch.stack(row, -1) for row in means], -2)  # (B, 2C, rows, columns)
    x = F.relu(F.conv2d(x, weights["context.0.weight"], weights["context.0.bias"], 1, 1))
    centred = (x - masker.norm.running_mean[:, None, None]) / (masker.norm.running_var[:, None, None] + 1e-5).sqrt()
    drop, keep = torch.einsum("kc,bchw->kbhw", weights["logits.weight"][:, :, 0, 0], centred)
    return torch.stack([drop, keep + 10 * masker.offset], 1)


@pytest.mark.parametrize("patch", [8, 7, 5])
@pytest.mark.parametrize("size", [(24, 40), (29, 33)])
def test_logits_of_a_fixed_image_by_hand(patch, size):
    torch.manual_seed(1)
    masker = Masker(patch, channels=6).eval()
    with torch.no_grad():
        masker.logits.weight.normal_()
        for parameter in masker.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        masker.norm.running_mean.normal_()
        masker.norm.running_var.uniform_(0.5, 2)
        y, x = torch.meshgrid(*(torch.linspace(0, 1, side) for side in size), indexing="ij")
        lr = torch.stack([y, x, (y * 9).sin().abs()])[None].repeat(2, 1, 1, 1)
        lr[1] = 1 - lr[1] ** 2
        expected = logits_by_hand(masker, lr)
        assert expected.std() > 0.5
        torch.testing.assert_close(masker(lr), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.9])
def test_calibration_keeps_a_share_of_the_patches(share):
    torch.manual_seed(2)
    masker, lr = Masker(4).eval(), torch.rand(2, 3, 64, 64) * torch.rand(2, 1, 64, 64).round()
    with torch.no_grad():
        masker.logits.weight.normal_()
        logits = masker(lr)
        masker.calibrate(logits[:, 1] - logits[:, 0], share)
        logits = masker(lr)
    assert (logits[:, 1] > logits[:, 0]).float().mean().item() == pytest.approx(share, abs=0.005)
