"""The Fréchet distance against its formula, computed another way."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from evaluation.fid import frechet_distance, inception_features
from tests.extras import needs

pytestmark = needs("torch_fidelity")


def sets(shift: float = 0.0, stretch: float = 1.0) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    one = torch.randn(40, 6)
    return list(one), list(stretch * one + shift)


def test_equal_sets_have_none():
    assert frechet_distance(*sets()) == pytest.approx(0, abs=1e-5)


def test_a_shift_counts_by_its_square():
    assert frechet_distance(*sets(shift=0.5)) == pytest.approx(6 * 0.25, rel=1e-4)


def test_two_different_sets():
    one, other = torch.randn(60, 5) @ torch.randn(5, 5), torch.randn(60, 5) @ torch.randn(5, 5) + 1
    s1, s2 = (np.cov(x.double().numpy(), rowvar=False) for x in (one, other))
    mean = (one.mean(0) - other.mean(0)).square().sum().item()
    expected = mean + np.trace(s1 + s2 - 2 * scipy.linalg.sqrtm(s1 @ s2).real)
    assert frechet_distance(list(one), list(other)) == pytest.approx(expected, rel=1e-4)


def test_images_are_given_whole_and_as_they_are():
    class Sees(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.seen = nn.Parameter(torch.zeros(1)), []

        def forward(self, x):
            self.seen.append(x)
            return (x.float().mean((2, 3)),)

    image, network = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3), Sees()
    features = inception_features(network, image)
    assert network.seen[0].dtype == torch.uint8 and (network.seen[0][0].permute(1, 2, 0).numpy() == image).all()
    assert features.tolist() == pytest.approx(image.mean((0, 1)).tolist())
