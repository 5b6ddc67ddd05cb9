"""Gumbel-Softmax: noise is a pure function, masks are exact, gradients are soft, the schedule is exponential."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.mask_policy import top_share
from utils.gumbel import gumbel_noise, gumbel_softmax, keep_probability, random_shares, temperature


def test_noise_depends_on_seed_epoch_and_sample_only():
    noise = gumbel_noise(torch.tensor([3, 10**9, 3]), epoch=1, seed=7, grid=(4, 5))
    torch.rand(3)
    assert noise.shape == (3, 2, 4, 5) and noise.dtype == torch.float32 and noise.device.type == "cpu"
    assert torch.equal(noise[0], noise[2])
    assert torch.equal(gumbel_noise([10**9], 1, 7, (4, 5))[0], noise[1])
    for other in (gumbel_noise([4], 1, 7, (4, 5)), gumbel_noise([3], 2, 7, (4, 5)), gumbel_noise([3], 1, 8, (4, 5))):
        assert not torch.equal(other[0], noise[0])


def test_noise_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    gumbel_noise([0], 0, 0, (2, 2))
    assert torch.equal(torch.get_rng_state(), state)


def test_noise_is_standard_gumbel():
    noise = gumbel_noise(range(20), 0, 0, (40, 40))
    assert noise.isfinite().all()
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.02)
    assert noise.std().item() == pytest.approx(1.2825, abs=0.02)


def test_classes_are_drawn_with_their_probability():
    logits = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).expand(20, 2, 40, 40)
    mask = gumbel_softmax(logits, 1.0, gumbel_noise(range(20), 0, 0, (40, 40)))
    assert mask.mean().item() == pytest.approx(torch.sigmoid(torch.tensor(1.0)).item(), abs=0.01)


@pytest.mark.parametrize("tau", [5.0, 1.0, 0.1])
def test_mask_is_exactly_binary_and_its_gradient_is_soft(tau):
    torch.manual_seed(0)
    logits = torch.randn(2, 2, 5, 5, requires_grad=True)
    noise = gumbel_noise([0, 1], 0, 0, (5, 5))
    mask = gumbel_softmax(logits, tau, noise)
    assert mask.shape == (2, 1, 5, 5) and set(mask.unique().tolist()) == {0.0, 1.0}
    (hard,) = torch.autograd.grad(mask.sum(), logits)
    (soft,) = torch.autograd.grad((logits / tau + noise).softmax(1)[:, 1].sum(), logits)
    assert torch.equal(hard, soft)


@pytest.mark.parametrize("tau", [5.0, 1.0, 0.2])
def test_ones_are_as_frequent_as_said(tau):
    logits = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 100, 100)
    share = gumbel_softmax(logits, tau, gumbel_noise([0], 0, 0, (100, 100))).mean()
    assert abs(share - keep_probability(logits, tau).mean()) < 0.02


def test_shares_depend_on_seed_epoch_and_sample_only():
    shares = random_shares(torch.tensor([3, 10**9, 3]), epoch=1, seed=7, bounds=(0.1, 0.9))
    assert shares.shape == (3,) and shares.dtype == torch.float64 and shares[0] == shares[2]
    assert random_shares([10**9], 1, 7, (0.1, 0.9))[0] == shares[1]
    others = (random_shares([3], 2, 7, (0.1, 0.9)), random_shares([3], 1, 8, (0.1, 0.9)), shares[1:2])
    assert all(other[0] != shares[0] for other in others)


def test_shares_are_uniform_between_their_bounds():
    shares = random_shares(range(4000), 0, 0, (0.1, 0.6))
    assert shares.min() >= 0.1 and shares.max() <= 0.6
    assert shares.mean().item() == pytest.approx(0.35, abs=0.01)
    assert shares.std().item() == pytest.approx(0.5 / 12**0.5, abs=0.005)
    assert (random_shares(range(9), 0, 0, (0.25, 0.25)) == 0.25).all()


@given(
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=4),
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    tau=st.floats(0.1, 5),
    seed=st.integers(0, 99),
)
def test_budget_keeps_exactly_the_share_and_its_best_patches(shares, rows, columns, tau, seed):
    torch.manual_seed(seed)
    logits = torch.randn(len(shares), 2, rows, columns).round(decimals=1)  # ties happen
    noise = gumbel_noise(range(len(shares)), 0, seed, (rows, columns))
    for perturbation in (noise, None):
        mask = gumbel_softmax(logits, tau, perturbation, torch.tensor(shares, dtype=torch.float64))
        assert set(mask.unique().tolist()) <= {0.0, 1.0}
        score = logits / tau + (0 if perturbation is None else perturbation)
        score = score[:, 1] - score[:, 0]
        for row, share in enumerate(shares):
            assert mask[row].sum() == round(share * rows * columns)
            assert torch.equal(mask[row, 0].bool(), top_share(score[row : row + 1], share)[0]), "as `budget` selects"


def test_gradient_of_a_budget_is_soft():
    logits = torch.randn(2, 2, 5, 5, requires_grad=True)
    noise = gumbel_noise([0, 1], 0, 0, (5, 5))
    mask = gumbel_softmax(logits, 2.0, noise, torch.tensor([0.2, 0.9], dtype=torch.float64))
    (hard,) = torch.autograd.grad((mask * noise[:, :1]).sum(), logits)
    soft = (logits / 2.0 + noise).softmax(1)[:, 1:]
    assert torch.equal(hard, torch.autograd.grad((soft * noise[:, :1]).sum(), logits)[0])


def test_without_noise_the_larger_logit_wins():
    logits = torch.randn(3, 2, 4, 4)
    assert torch.equal(gumbel_softmax(logits, 5.0), logits.argmax(1, keepdim=True).float())
    assert gumbel_softmax(torch.zeros(1, 2, 1, 1), 1.0) == 0


def test_bfloat16_logits_are_computed_in_float32():
    assert gumbel_softmax(torch.randn(1, 2, 3, 3).bfloat16(), 1.0).dtype == torch.float32


def test_temperature_is_exponential_from_start_to_end():
    values = [temperature(step, 101) for step in range(101)]
    assert values[0] == 5.0 and values[100] == pytest.approx(0.1)
    assert values[50] == pytest.approx((5.0 * 0.1) ** 0.5)
    assert temperature(500, 101) == pytest.approx(0.1)
    assert temperature(0, 1) == 5.0


@given(step=st.integers(0, 1000), total=st.integers(1, 1000))
def test_temperature_never_leaves_its_range_and_never_rises(step, total):
    assert 0.0999 <= temperature(step + 1, total) <= temperature(step, total) <= 5.0
