"""models/arbitrary_scale.py, and the objective with networks of both kinds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from data.sr_batch import SRBatch
from models import build_sr
from models.arbitrary_scale import BicubicToSize, super_resolve
from tests.drawn import AnySize
from training.task import Progress
from training.tasks.pixel import PixelTask
from utils.losses import charbonnier
from utils.resize import resize

PROGRESS = Progress(0, 1)


def make_batch(height: int, width: int) -> SRBatch:
    return SRBatch(torch.rand(2, 3, 6, 8), torch.rand(2, 3, height, width), ["a", "b"])


def test_both_kinds_are_told_apart_and_called_alike():
    fixed, free, lr = build_sr("espcn", 2), AnySize(), torch.rand(1, 3, 6, 8)
    assert torch.equal(super_resolve(fixed, lr, (12, 16)), fixed(lr))
    assert super_resolve(free, lr, (15, 17)).shape == (1, 3, 15, 17)
    with pytest.raises(ValueError, match="for x2 cannot make 6x8 -> 15x17; take scale 2,"):
        super_resolve(fixed, lr, (15, 17))


@pytest.mark.parametrize("size", [(24, 32), (15, 17), (6, 8)])
def test_bicubic_to_size_is_resize(size: tuple[int, int]):
    lr = torch.rand(1, 3, 6, 8)
    expected = resize(lr[0].permute(1, 2, 0).numpy(), *size)
    np.testing.assert_allclose(BicubicToSize()(lr, size)[0].permute(1, 2, 0).numpy(), expected, atol=1e-5)


def test_objective_asks_for_the_size_of_hr():
    batch, network = make_batch(17, 23), AnySize()
    losses = PixelTask(network)(batch, PROGRESS)
    assert losses["total"].item() == pytest.approx(F.l1_loss(network(batch.lr, (17, 23)), batch.hr).item())


def test_charbonnier_is_a_smooth_absolute_difference():
    sr, hr = torch.tensor([0.0, 0.3, 1.0]), torch.tensor([0.0, 0.0, 0.0])
    assert charbonnier(sr, hr, 0.4).item() == pytest.approx((0.4 + 0.5 + 1.16**0.5) / 3)
    batch, network = make_batch(12, 16), build_sr("espcn", 2)
    losses = PixelTask(network, "charbonnier", 0.1)(batch, PROGRESS)
    assert losses["total"].item() == pytest.approx(charbonnier(network(batch.lr), batch.hr, 0.1).item())
    assert set(losses) == {"total", "charbonnier"}


class Distance(nn.Module):
    """Ten times the difference of the means, one weight of its own."""

    def __init__(self):
        super().__init__()
        self.ten = nn.Parameter(torch.tensor(10.0), requires_grad=False)

    def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return self.ten * (one.mean((1, 2, 3)) - other.mean((1, 2, 3))).abs()


def test_perceptual_term_is_added_and_stays_out_of_checkpoints():
    batch, network = make_batch(12, 16), build_sr("espcn", 2)
    objective = PixelTask(network, perceptual=Distance(), weight=0.5)
    losses = objective(batch, PROGRESS)
    distance = Distance()(network(batch.lr), batch.hr).mean().item()
    assert losses["perceptual"].item() == pytest.approx(distance) and distance > 0
    assert losses["total"].item() == pytest.approx(losses["l1"].item() + 0.5 * distance)
    assert all(name.startswith("network.") for name in objective.state_dict())
