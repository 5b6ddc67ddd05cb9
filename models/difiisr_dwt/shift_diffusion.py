"""Residual-shifting diffusion (ResShift: Yue et al. 2023, arXiv:2307.12348; 2024, arXiv:2403.07319).

Codes x0 (HR) and y (LR) have the same shape. Over T steps x0 moves to y while noise grows, t = 0 ... T - 1:

    forward    x_t = x0 + eta_t (y - x0) + kappa sqrt(eta_t) e,    e ~ N(0, 1)
    start      x_T = y + kappa sqrt(eta_{T-1}) e

A network estimates x0 from x_t, and a sampler goes back by that estimate. A sampler may leave steps out: everything
depends on the pair (eta, eta_prev) of a step and its successor alone, and the last successor has eta_prev = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from utils.errors import UserError

SAMPLERS = ("ancestral", "deterministic")
LEAST = math.sqrt(0.001)  # upper bound of the first sqrt(eta)


@dataclass(frozen=True)
class ShiftSchedule:
    """sqrt(eta_i) = s (e / s)^((i / (T - 1))^p), from s = min(m / kappa, m, sqrt(0.001)) to e.

    Args:
        steps: T.
        kappa: standard deviation of the noise where eta is 1.
        power: p; below 1, most of the way is made early.
        end: e, the last sqrt(eta); so the last eta is e^2.
        least: m.
    """

    steps: int = 15
    kappa: float = 2.0
    power: float = 0.3
    end: float = 0.99
    least: float = 0.04

    def __post_init__(self):
        positive = 0 < self.kappa < math.inf and 0 < self.least < math.inf
        if self.steps < 1 or not positive or not 0 < self.end <= 1:
            raise UserError(
                f"no such schedule: {self}; T is at least 1, kappa and the least above 0, the end above 0, at most 1"
            )

    def sqrt_etas(self) -> Tensor:
        """sqrt(eta), float64 (T,), rising."""
        if self.steps == 1:
            return torch.tensor([self.end], dtype=torch.float64)
        first = min(self.least / self.kappa, self.least, LEAST)
        place = torch.arange(self.steps, dtype=torch.float64) / (self.steps - 1)
        return first * (self.end / first) ** (place**self.power)

    def etas(self) -> list[float]:
        """eta of every t."""
        return [float(eta) for eta in self.sqrt_etas().square()]

    def timesteps(self, count: int) -> list[int]:
        """`count` of the T steps, spread evenly, from T - 1 down.

        Raises:
            UserError: not 1 to T.
        """
        if not 1 <= count <= self.steps:
            raise UserError(f"{count} sampling steps of a diffusion with T = {self.steps}; use 1 to {self.steps}")
        return [(self.steps * left + count - 1) // count - 1 for left in range(count, 0, -1)]

    def input_scales(self) -> Tensor:
        """1 / sqrt(1 + kappa^2 eta) of every t, float64 (T,): x_t gets a deviation of about 1 where x0 has 1."""
        return (1 + self.kappa**2 * self.sqrt_etas().square()).rsqrt()


def forward_sample(x0: Tensor, y: Tensor, eta: Tensor, noise: Tensor, kappa: float) -> Tensor:
    """x_t.

    Args:
        x0, y: HR and LR codes (B, C, h, w).
        eta: of each code's step, (B, 1, 1, 1).
        noise: standard normal numbers (B, C, h, w).
        kappa: of the schedule.
    """
    return x0 + eta * (y - x0) + kappa * eta.sqrt() * noise


def start(y: Tensor, eta: float, noise: Tensor, kappa: float) -> Tensor:
    """x_T: the LR code with the noise of the last step."""
    return y + kappa * math.sqrt(eta) * noise


def posterior(x_t: Tensor, x0: Tensor, eta: float, eta_prev: float, kappa: float) -> tuple[Tensor, float]:
    """Mean and variance of the step before, given x_t and x0; at the last one (eta_prev = 0) x0 itself."""
    alpha = eta - eta_prev
    mean = (eta_prev / eta) * x_t + (alpha / eta) * x0
    return mean, kappa**2 * eta_prev * alpha / eta


def deterministic_weights(eta: float, eta_prev: float) -> tuple[float, float, float]:
    """(k, m, j) of x_{t-1} = k x0 + m x_t + j y without new noise (SinSR, arXiv:2311.14760); their sum is 1."""
    root = math.sqrt(eta_prev * eta)
    m, j = math.sqrt(eta_prev / eta), eta_prev - root
    return 1 - eta_prev + root - m, m, j


def ancestral_step(x_t: Tensor, x0: Tensor, eta: float, eta_prev: float, noise: Tensor, kappa: float) -> Tensor:
    """A draw from the posterior."""
    mean, variance = posterior(x_t, x0, eta, eta_prev, kappa)
    return mean + math.sqrt(variance) * noise


def deterministic_step(x_t: Tensor, x0: Tensor, y: Tensor, eta: float, eta_prev: float) -> Tensor:
    """The step that keeps the noise of x_t, only less of it."""
    k, m, j = deterministic_weights(eta, eta_prev)
    return k * x0 + m * x_t + j * y


def sample(
    denoise: Callable[[Tensor, int], Tensor],
    y: Tensor,
    schedule: ShiftSchedule,
    count: int,
    sampler: str,
    noise: Callable[[int], Tensor],
) -> Tensor:
    """From an LR code to an HR code.

    Args:
        denoise: (x_t, t) -> estimate of x0.
        y: LR code (B, C, h, w).
        schedule: of the diffusion that the denoiser was trained with.
        count: sampling steps, 1 to T.
        sampler: "ancestral" or "deterministic"; with one step they are the same.
        noise: number of the draw -> standard normal numbers of the shape of `y`; 0 is that of the start.

    Returns:
        x0 (B, C, h, w): the last estimate.
    """
    etas, steps = schedule.etas(), schedule.timesteps(count)
    x = start(y, etas[steps[0]], noise(0), schedule.kappa)
    for number, (t, following) in enumerate(pairwise(steps), 1):
        x0, eta, eta_prev = denoise(x, t), etas[t], etas[following]
        if sampler == "ancestral":
            x = ancestral_step(x, x0, eta, eta_prev, noise(number), schedule.kappa)
        else:
            x = deterministic_step(x, x0, y, eta, eta_prev)
    return denoise(x, steps[-1])  # there eta_prev is 0, and both steps end at the estimate
