"""Loss terms: reference values, where they vanish, where their gradient points."""

from __future__ import annotations

import pytest
import torch

from utils.losses import reconstruction, smoothness, sparsity_flops, sparsity_mean


def mask_of(share, patches=20):
    return (torch.arange(patches) < share * patches).float().view(1, 1, 4, patches // 4).requires_grad_()


def test_sparsity_mean_is_the_kept_share():
    assert sparsity_mean(mask_of(0.25)).item() == pytest.approx(0.25)


@pytest.mark.parametrize("fast_share", [0.0, 0.02, 0.2])
@pytest.mark.parametrize("target", [0.1, 0.25, 0.5])
def test_sparsity_flops_vanishes_at_the_target_share_only(target, fast_share):
    assert sparsity_flops(mask_of(target), target, fast_share).item() == pytest.approx(0, abs=1e-12)
    for share in (0.0, 0.75, 1.0):
        mask = mask_of(share)
        loss = sparsity_flops(mask, target, fast_share)
        assert loss.item() == pytest.approx(((1 - fast_share) * (share - target)) ** 2, rel=1e-5)
        loss.backward()
        assert ((mask.grad > 0) == (share > target)).all()


def test_sparsity_flops_leads_to_the_target():
    logits = torch.full((1, 1, 8, 8), 2.0, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        (10 * sparsity_flops(logits.sigmoid(), 0.25, 0.2)).backward()
        optimizer.step()
    assert logits.sigmoid().mean().item() == pytest.approx(0.25, abs=0.02)


def test_smoothness_is_the_mean_difference_of_neighbours():
    probability = torch.tensor([[0.0, 1.0, 0.5], [0.0, 0.0, 0.5]])[None, None]
    assert smoothness(probability).item() == pytest.approx((1 + 0.5 + 0 + 0.5 + 0 + 1 + 0) / 7)
    assert smoothness(torch.full((2, 1, 5, 5), 0.3)) == 0


@pytest.mark.parametrize("grid", [(1, 1), (1, 4), (4, 1)])
def test_smoothness_of_a_thin_grid_is_finite(grid):
    probability = torch.rand(2, 1, *grid, requires_grad=True)
    loss = smoothness(probability)
    loss.backward()
    assert loss.isfinite() and probability.grad.isfinite().all()


def test_reconstruction_is_l1_and_refuses_other_shapes():
    assert reconstruction(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.25)).item() == pytest.approx(0.25)
    with pytest.raises(ValueError, match=r"SR is \(1, 3, 4, 4\) but HR is \(1, 1, 4, 4\)"):
        reconstruction(torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4))
