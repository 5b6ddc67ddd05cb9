"""Residual shifting: published schedule, start, posterior, and samplers that end at what an oracle tells them."""

from __future__ import annotations

import math

import pytest
import torch

from models.difiisr_dwt.shift_diffusion import (
    SAMPLERS,
    ShiftSchedule,
    ancestral_step,
    deterministic_step,
    deterministic_weights,
    forward_sample,
    posterior,
    sample,
    start,
)
from utils.errors import UserError

ROOTS = (.0200, .1172, .1763, .2336, .2916, .3510, .4124, .4759, .5417, .6099, .6807, .7540, .8300, .9086,
         .9900)  # fmt: skip
SCHEDULE = ShiftSchedule()
STEPS = (1, 2, 4, 5, 10, 14, 15)


def test_published_schedule():
    assert SCHEDULE.sqrt_etas().tolist() == pytest.approx(ROOTS, abs=5e-5)
    assert SCHEDULE.etas()[-1] == pytest.approx(0.9801)
    assert SCHEDULE.input_scales()[-1] == pytest.approx(1 / math.sqrt(1 + 4 * 0.9801))


@pytest.mark.parametrize(("kappa", "least", "first"), [(2, 0.04, 0.02), (0.5, 0.01, 0.01), (1, 0.9, math.sqrt(0.001))])
def test_first_step_takes_the_least_of_three_bounds(kappa, least, first):
    assert ShiftSchedule(4, kappa, least=least).sqrt_etas()[0] == pytest.approx(first)


def test_timesteps_are_spread_evenly_and_begin_at_the_last():
    assert SCHEDULE.timesteps(1) == [14] and SCHEDULE.timesteps(15) == list(range(14, -1, -1))
    assert SCHEDULE.timesteps(5) == [14, 11, 8, 5, 2]
    assert SCHEDULE.timesteps(4) == [14, 11, 7, 3] and SCHEDULE.timesteps(2) == [14, 7]  # the last of each share
    for count in range(1, 16):
        steps = SCHEDULE.timesteps(count)
        assert len(set(steps)) == count and steps == sorted(steps, reverse=True) and steps[0] == 14


def test_what_makes_no_schedule_is_refused():
    for wrong in ({"steps": 0}, {"kappa": 0.0}, {"kappa": math.nan}, {"least": 0.0}, {"least": -1.0}, {"end": 1.1}):
        with pytest.raises(UserError, match="no such schedule"):
            ShiftSchedule(**wrong)
    with pytest.raises(UserError, match="16 sampling steps of a diffusion with T = 15; use 1 to 15"):
        SCHEDULE.timesteps(16)
    assert ShiftSchedule(1).etas() == [pytest.approx(0.9801)]


def test_start_is_the_lr_code_with_noise_of_1_98():
    y, noise = torch.rand(1, 2, 3, 3), torch.randn(1, 2, 3, 3)
    assert torch.allclose(start(y, SCHEDULE.etas()[-1], noise, 2.0), y + 1.98 * noise)


def test_forward_moves_from_hr_to_lr():
    x0, y, none = torch.rand(2, 1, 2, 2), torch.rand(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    x = forward_sample(x0, y, torch.tensor([0.0, 0.25])[:, None, None, None], none, 2.0)
    assert torch.equal(x[0], x0[0]) and torch.allclose(x[1], 0.75 * x0[1] + 0.25 * y[1])
    noise = forward_sample(none, none, torch.tensor([0.0, 0.25])[:, None, None, None], torch.ones(2, 1, 2, 2), 2.0)
    assert noise[0].abs().max() == 0 and torch.equal(noise[1], torch.ones(1, 2, 2))


def test_posterior_by_hand():
    mean, variance = posterior(torch.tensor(3.0), torch.tensor(1.0), eta=0.5, eta_prev=0.2, kappa=2.0)
    assert mean.item() == pytest.approx(0.4 * 3 + 0.6 * 1) and variance == pytest.approx(4 * 0.2 * 0.3 / 0.5)
    mean, variance = posterior(torch.tensor(3.0), torch.tensor(1.0), eta=0.5, eta_prev=0.0, kappa=2.0)
    assert (mean.item(), variance) == (1.0, 0.0)


def test_deterministic_weights_sum_to_one():
    etas = SCHEDULE.etas()
    for eta, eta_prev in [*zip(etas[1:], etas), *zip(etas[2:], etas), (etas[0], 0.0)]:
        assert sum(deterministic_weights(eta, eta_prev)) == pytest.approx(1, abs=1e-12)
    assert deterministic_weights(etas[-1], 0.0) == (1, 0, 0)


def field(draw: int) -> torch.Tensor:
    return torch.randn(4, 2, 5, 5, dtype=torch.double, generator=torch.Generator().manual_seed(draw))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("count", STEPS)
def test_an_oracle_is_followed_to_the_end(sampler, count):
    x0, y = field(100), field(101)
    asked = []

    def oracle(x_t, t):
        asked.append(t)
        return x0

    assert torch.equal(sample(oracle, y, SCHEDULE, count, sampler, field), x0)
    assert asked == SCHEDULE.timesteps(count)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("count", [3, 15])
def test_marginals_of_both_samplers_are_those_of_the_forward_process(sampler, count):
    """With an oracle, what the denoiser sees at t has the mean and the deviation that it was trained with."""
    x0, y, seen = torch.full((1, 1, 300, 300), 0.3), torch.full((1, 1, 300, 300), -0.9), {}

    def oracle(x_t, t):
        seen[t] = (x_t.mean().item(), x_t.std().item())
        return x0

    def noise(draw):
        return torch.randn(x0.shape, generator=torch.Generator().manual_seed(draw))

    sample(oracle, y, SCHEDULE, count, sampler, noise)
    for t, (mean, std) in seen.items():
        eta = SCHEDULE.etas()[t]
        assert mean == pytest.approx(0.3 - 1.2 * eta, abs=6 * 2 * math.sqrt(eta) / 300)
        assert std == pytest.approx(2 * math.sqrt(eta), rel=0.015)


def test_ancestral_steps_draw_and_deterministic_ones_do_not():
    drawn = []

    def noise(draw):
        drawn.append(draw)
        return field(draw)

    for sampler, expected in (("ancestral", [0, 1, 2]), ("deterministic", [0])):
        drawn.clear()
        sample(lambda x_t, t: 0.9 * x_t, field(1), SCHEDULE, 3, sampler, noise)
        assert drawn == expected


def test_single_steps_end_at_the_estimate_where_nothing_is_left():
    x, x0, y, noise = (field(number) for number in range(4))
    assert torch.equal(ancestral_step(x, x0, 0.0004, 0.0, noise, 2.0), x0)
    assert torch.equal(deterministic_step(x, x0, y, 0.0004, 0.0), x0)
