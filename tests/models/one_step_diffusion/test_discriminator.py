"""The multi-level discriminator: shapes and sizes of its heads, its loss, what of it is frozen."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from models.one_step_diffusion.discriminator import (
    Blur,
    MultiLevelDiscriminator,
    discriminator_loss,
    level_loss,
    map_head,
    timm_backbone,
)
from tests.extras import needs_generative
from utils.errors import UserError
from utils.flops_counter import count_parameters

pytestmark = needs_generative


class Maps(torch.nn.Module):
    """A backbone of the widths of CLIP's largest ConvNeXt that pools the image."""

    map_channels, vector_width = (384, 768, 1536), 1024

    def forward(self, images):
        return [F.adaptive_avg_pool2d(images.mean(1, keepdim=True), images.shape[-1] // step).expand(-1, width, -1, -1)
                for width, step in zip(self.map_channels, (4, 8, 16))] + [images.flatten(1)[:, :1024]]  # fmt: skip


@pytest.fixture(scope="module")
def atto():
    torch.manual_seed(0)
    return timm_backbone("convnext_atto")


def test_heads_of_the_full_size():
    with torch.device("meta"):
        heads = MultiLevelDiscriminator(Maps()).heads
    # 3x3 convolutions of all widths to 512, 1x1 to one logit, and the two linear layers of the vector
    expected = sum(512 * 9 * width + 512 + 512 + 1 for width in Maps.map_channels) + 1024 * 512 + 512 + 512 + 1
    assert count_parameters(heads) == expected == 12_914_692


def test_maps_of_a_512_image_give_logits_of_32_16_and_8():
    for width, side in zip(Maps.map_channels, (128, 64, 32)):
        with torch.device("meta"):
            logits = map_head(width)(torch.empty(1, width, side, side))
        assert logits.shape == (1, 1, side // 4, side // 4)


def test_the_blur_is_binomial_and_keeps_its_sum():
    point = torch.zeros(1, 2, 9, 9)
    point[0, 1, 4, 4] = 1
    out = Blur(2)(point)
    assert out.shape == (1, 2, 10, 10) and out[0, 0].abs().max() == 0 and out.sum().item() == pytest.approx(1)
    line = torch.tensor([1.0, 3, 3, 1]) / 8
    torch.testing.assert_close(out[0, 1, 3:7, 3:7], line[:, None] * line)


def test_it_looks_at_all_stages_but_the_last_and_at_the_pooled_vector(atto):
    images = 2 * torch.rand(2, 3, 64, 64) - 1
    assert list(atto.map_channels) == [40, 80, 160] and atto.vector_width == 320
    levels = atto(images)
    assert [tuple(level.shape[1:]) for level in levels] == [(40, 16, 16), (80, 8, 8), (160, 4, 4), (320,)]
    torch.testing.assert_close(levels[-1], atto.network(((images + 1) / 2 - atto.mean) / atto.std))
    torch.testing.assert_close(atto.mean.flatten(), torch.tensor([0.48145466, 0.4578275, 0.40821073]))
    logits = MultiLevelDiscriminator(atto)(images)
    assert [tuple(level.shape) for level in logits] == [(2, 1, 4, 4), (2, 1, 2, 2), (2, 1, 1, 1), (2, 1)]


def test_small_images_are_refused(atto):
    MultiLevelDiscriminator(atto)(torch.rand(1, 3, 64, 64))
    with pytest.raises(UserError, match="images of 64x48 have a map of 3 cells a side, but 4 are needed"):
        MultiLevelDiscriminator(atto)(torch.rand(1, 3, 64, 48))


def test_a_projection_makes_the_vector():
    backbone = timm_backbone("convnext_atto", embedding=24)
    assert backbone.vector_width == 24 and backbone(torch.rand(1, 3, 64, 64))[-1].shape == (1, 24)


def test_loss_is_cross_entropy_summed_over_levels():
    logits = [torch.randn(2, 1, 4, 4), torch.randn(2, 1)]
    expected = sum(-(0.8 * F.logsigmoid(level) + 0.2 * F.logsigmoid(-level)).mean() for level in logits)
    torch.testing.assert_close(level_loss(logits, 0.8), expected)
    made = [torch.randn(2, 1, 4, 4), torch.randn(2, 1)]
    torch.testing.assert_close(discriminator_loss(logits, made), expected + level_loss(made, 0.0))


@pytest.mark.parametrize(("target", "turns"), [(0.8, True), (1.0, False)])
def test_a_target_below_one_turns_the_gradient_round(target, turns):
    beyond = torch.tensor([[math.log(0.8 / 0.2) + 0.5]], requires_grad=True)
    level_loss([beyond], target).backward()
    assert (beyond.grad > 0).item() == turns
    below = torch.tensor([[math.log(0.8 / 0.2) - 0.5]], requires_grad=True)
    level_loss([below], target).backward()
    assert below.grad < 0


def test_only_the_heads_learn_and_change_mode(atto):
    discriminator = MultiLevelDiscriminator(atto).train()
    assert not atto.training and not atto.network.training
    assert all(name.startswith("heads.") for name in discriminator.state_dict())
    images = torch.rand(2, 3, 64, 64, requires_grad=True)
    level_loss(discriminator(images), 1.0).backward()
    assert images.grad.abs().sum() > 0, "gradients pass the backbone"
    assert all(p.grad is None for p in atto.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in discriminator.parameters())


def test_in_evaluation_mode_spectral_normalisation_stands_still(atto):
    discriminator, images = MultiLevelDiscriminator(atto), torch.rand(1, 3, 64, 64)
    for mode, same in ((False, True), (True, False)):
        discriminator.train(mode)
        before = {name: value.clone() for name, value in discriminator.state_dict().items()}
        discriminator(images)
        after = discriminator.state_dict()
        assert all(torch.equal(value, after[name]) for name, value in before.items()) == same


def test_weights_are_normalised(atto):
    discriminator = MultiLevelDiscriminator(atto).train()
    for _ in range(30):
        discriminator(torch.rand(1, 3, 64, 64))
    for head in discriminator.heads:
        for layer in head:
            if hasattr(layer, "parametrizations"):
                assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)
