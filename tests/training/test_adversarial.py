"""training/adversarial.py: the patch discriminator, the hinge loss and the weight that balances two losses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.adversarial import PatchGAN, adaptive_weight, hinge_loss
from utils.flops_counter import count_parameters


def test_the_discriminator_is_the_published_one():
    network = PatchGAN()
    convolutions = [layer for layer in network if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [64, 128, 256, 512, 1]
    assert [layer.stride[0] for layer in convolutions] == [2, 2, 2, 1, 1]
    weights = sum(a * b * 16 for a, b in ((3, 64), (64, 128), (128, 256), (256, 512), (512, 1)))
    assert count_parameters(network) == weights + 64 + 1 + 2 * (128 + 256 + 512)
    assert network(torch.rand(1, 3, 256, 256)).shape == (1, 1, 30, 30)


def test_a_logit_sees_70_pixels():
    network = PatchGAN(8).eval().double()
    image = torch.rand(1, 3, 128, 128, dtype=torch.double, requires_grad=True)
    network(image)[0, 0, 7, 7].backward()
    rows = image.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert rows.max() - rows.min() + 1 == 70


def test_the_smallest_image_has_one_logit():
    assert PatchGAN(8)(torch.rand(2, 3, 24, 24)).shape == (2, 1, 1, 1)


def test_hinge_loss():
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0])
    assert hinge_loss(real, fake) == pytest.approx((0.25 + 0.5) / 2)
    assert hinge_loss(torch.tensor([1.0]), torch.tensor([-1.0])) == 0


def test_both_losses_move_the_last_layer_equally():
    last = nn.Parameter(torch.tensor([1.0, -2.0]))
    loss, other = (10 * last.square()).sum(), (last - 3).square().sum()
    weight = adaptive_weight(loss, other, last)
    gradients = [torch.autograd.grad(value, last, retain_graph=True)[0].norm() for value in (loss, weight * other)]
    assert gradients[0] == pytest.approx(gradients[1].item(), rel=1e-4) and not weight.requires_grad


def test_a_loss_without_gradient_gets_no_unbounded_weight():
    last = nn.Parameter(torch.tensor([1.0]))
    assert adaptive_weight(1e6 * last.sum(), 1e-9 * last.sum(), last) == 1e4
    assert last.grad is None
