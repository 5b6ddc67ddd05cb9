"""From predicted noise to the clean latent in closed form (Ho et al. 2020, arXiv:2006.11239, equation 15)."""

from __future__ import annotations

import math

import torch

STEPS = 1000
BETAS = (0.00085, 0.012)  # of Stable Diffusion, "scaled linear": linear in their square roots


def alpha_bar(timestep: int) -> float:
    """Share of the signal's variance that is left at a timestep, 0 ... STEPS - 1."""
    first, last = (math.sqrt(beta) for beta in BETAS)
    betas = torch.linspace(first, last, STEPS, dtype=torch.float64).square()
    return float((1 - betas).cumprod(0)[timestep])


def clean_coefficients(timestep: int) -> tuple[float, float]:
    """(a, b) of x0 = a z - b eps, that is x0 = (z - sqrt(1 - alpha_bar) eps) / sqrt(alpha_bar)."""
    kept = alpha_bar(timestep)
    return 1 / math.sqrt(kept), math.sqrt((1 - kept) / kept)
