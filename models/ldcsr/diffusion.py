"""Ancestral diffusion in few steps (Ho et al. 2020, arXiv:2006.11239): schedule, and the chain from noise to a latent.

The four steps are the chain that is trained, gradients and all; other numbers of steps need a training of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

BETA_FIRST, BETA_LAST = 0.1, 0.99


@dataclass(frozen=True)
class Schedule:
    """Numbers of each step t = 0 ... T-1, from little to much noise.

    Args:
        betas: variance of the noise that a step adds.
        alphas_cumprod: share of the latent's variance that is left after step t.
        variances: of the posterior q(z_{t-1} | z_t, z_0), 0 at t = 0.
    """

    betas: tuple[float, ...]
    alphas_cumprod: tuple[float, ...]
    variances: tuple[float, ...]

    @property
    def steps(self) -> int:
        return len(self.betas)

    def before(self, t: int) -> float:
        """Share of the latent's variance before step t."""
        return self.alphas_cumprod[t - 1] if t else 1.0

    def noised(self, clean: Tensor, noise: Tensor) -> Tensor:
        """z_{T-1} of clean latents: sqrt(abar) z_0 + sqrt(1 - abar) noise."""
        left = self.alphas_cumprod[-1]
        return left**0.5 * clean + (1 - left) ** 0.5 * noise

    def step_back(self, z: Tensor, predicted: Tensor, t: int, noise: Tensor | None) -> Tensor:
        """z_{t-1} drawn from the posterior; z_0 itself at t = 0, which takes no noise.

        Args:
            z: z_t.
            predicted: the noise in it, as the network sees it.
            t: step.
            noise: standard normal numbers; not looked at where t is 0.
        """
        left, before, beta = self.alphas_cumprod[t], self.before(t), self.betas[t]
        clean = (z - (1 - left) ** 0.5 * predicted) / left**0.5
        mean = (before**0.5 * beta * clean + (1 - beta) ** 0.5 * (1 - before) * z) / (1 - left)
        if t == 0 or noise is None:
            return mean
        return mean + self.variances[t] ** 0.5 * noise

    def run(self, z: Tensor, predict: Callable[[Tensor, int], Tensor], noises: Sequence[Tensor]) -> Tensor:
        """All steps back, differentiable: z_{T-1} to z_0.

        Args:
            z: z_{T-1}.
            predict: (z_t, t) -> the noise in z_t.
            noises: of the steps T-1 ... 1.
        """
        for t in reversed(range(self.steps)):
            z = self.step_back(z, predict(z, t), t, noises[self.steps - 1 - t] if t else None)
        return z


def schedule(steps: int) -> Schedule:
    """Betas whose roots are equally spaced: linspace(sqrt(0.1), sqrt(0.99), T)^2."""
    betas = np.linspace(BETA_FIRST**0.5, BETA_LAST**0.5, steps) ** 2
    left = np.cumprod(1 - betas)
    before = np.append(1.0, left[:-1])
    variances = betas * (1 - before) / (1 - left)
    return Schedule(*(tuple(numbers.tolist()) for numbers in (betas, left, variances)))
