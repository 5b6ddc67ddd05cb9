"""Gumbel-Softmax with two classes, hard and straight-through (Jang et al. 2017, arXiv:1611.01144)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch


def gumbel_noise(indices: torch.Tensor | Iterable[int], epoch: int, seed: int, grid: tuple[int, int]) -> torch.Tensor:
    """Standard Gumbel noise (B, 2, gh, gw) in float32 on the CPU, a pure function of (seed, epoch, sample index).

    Batch composition, process and device have no influence, so a resumed or distributed run draws the same noise.

    Args:
        indices: sample indices (B,) in the data set, not negative.
        epoch: epoch, not negative.
        seed: seed of the run, not negative.
        grid: rows and columns of patches.
    """
    return torch.stack([_sample_noise(int(index), epoch, seed, grid) for index in indices])


def _sample_noise(index: int, epoch: int, seed: int, grid: tuple[int, int]) -> torch.Tensor:
    state = int(np.random.SeedSequence((seed, epoch, index)).generate_state(1, np.uint64)[0])
    uniform = torch.rand((2, *grid), generator=torch.Generator().manual_seed(state))
    return -(-uniform.clamp_min(1e-20).log()).log()


def random_shares(
    indices: torch.Tensor | Iterable[int], epoch: int, seed: int, bounds: tuple[float, float]
) -> torch.Tensor:
    """One kept share an image, (B,) in float64 on the CPU, uniform in `bounds`, from (seed, epoch, sample index) alone.

    Args:
        indices, epoch, seed: as in `gumbel_noise`.
        bounds: lowest and highest share, in [0, 1].
    """
    # The fourth number keeps these draws apart from the noise of the same sample.
    draws = [np.random.default_rng((seed, epoch, int(index), 1)).uniform(*bounds) for index in indices]
    return torch.tensor(draws, dtype=torch.float64)


def gumbel_softmax(
    logits: torch.Tensor,
    tau: float,
    noise: torch.Tensor | None = None,
    shares: torch.Tensor | None = None,
    image: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mask (B, 1, gh, gw) of exact zeros and ones whose gradient is that of the soft probability of class 1.

    The temperature divides the logits but not the noise, so the probability of a one is `keep_probability`: a high
    temperature tosses coins, a low one gives the masks that will be executed. The coins matter. Where a patch shows the
    image that the networks were tuned to, the gradient of the loss along (quality - fast) vanishes; only both states
    together tell which one is better (the trapezoid rule between them).

    Args:
        logits: (B, 2, gh, gw).
        tau: temperature, > 0.
        noise: Gumbel noise of the logits' shape in training; None decides without chance (argmax).
        shares: (B,) float64; the ones are then the round(share * n) of the n patches of an image whose perturbed logits
            speak most for class 1, whatever their sign. The gradient stays that of the soft probability.
        image: bool (B, 1, gh, gw), true at the n patches that hold image; the others are zero and have no gradient.
            None: all hold image.
    """
    scaled = logits.float() / tau
    if noise is not None:
        scaled = scaled + noise.to(logits.device)
    soft = scaled.softmax(dim=1)[:, 1:]
    if shares is None:
        hard = (scaled[:, 1:] > scaled[:, :1]).to(soft.dtype)
    else:
        hard = _best(scaled[:, 1:] - scaled[:, :1], shares, image).to(soft.dtype)
    if image is not None:
        hard, soft = hard * image, soft * image
    return hard + (soft - soft.detach())  # the bracket is exactly zero, so the mask stays exactly binary


def _best(score: torch.Tensor, shares: torch.Tensor, image: torch.Tensor | None) -> torch.Tensor:
    """Bool of the score's shape: the round(share * n) highest scores of every image, ties by index."""
    flat = score.flatten(1)
    patches: int | torch.Tensor = flat.shape[1]  # of every image
    if image is not None:
        flat = flat.masked_fill(~image.flatten(1), -torch.inf)
        shares, patches = shares.to(flat.device, non_blocking=True), image.flatten(1).sum(1)
    rank = flat.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    count = (shares * patches).round().to(flat.device)
    return (rank < count[:, None]).view_as(score)


def keep_probability(logits: torch.Tensor, tau: float = 1.0) -> torch.Tensor:
    """Probability (B, 1, gh, gw) that `gumbel_softmax` with noise gives a one; tends to the argmax as tau falls."""
    return (logits.float() / tau).softmax(dim=1)[:, 1:]


def temperature(step: int, total: int, start: float = 5.0, end: float = 0.1) -> float:
    """Exponential schedule: `start` at step 0, `end` at step total - 1 and later."""
    progress = min(step / max(total - 1, 1), 1.0)
    return start * (end / start) ** progress
