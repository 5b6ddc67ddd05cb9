"""Loss terms: Charbonnier of SR training; sparsity, smoothness and reconstruction of joint training."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def charbonnier(sr: torch.Tensor, hr: torch.Tensor, epsilon: float = 1e-3) -> torch.Tensor:
    """Mean of sqrt(d^2 + epsilon^2), a smooth absolute difference (Lai et al. 2017, arXiv:1704.03915).

    Args:
        sr: (B, 3, H, W) in [0, 1].
        hr: the same shape.
        epsilon: where it bends, in the same units.
    """
    return ((sr - hr).square() + epsilon**2).sqrt().mean()


def sparsity_mean(mask: torch.Tensor) -> torch.Tensor:
    """Share of patches (B, 1, gh, gw) that SR_Quality computes, in [0, 1]; pushes towards none."""
    return mask.mean()


def sparsity_flops(mask: torch.Tensor, target: float, fast_share: float = 0.0) -> torch.Tensor:
    """(F / F_full - F_target / F_full)^2, the form of LAUDNet (Han et al. 2023, arXiv:2308.15949); about 10 x L_det.

    SR costs F(k) = F_fixed + k * F_quality when the share k of patches is kept; F_fixed is what always runs (masker and
    SR_Fast) and F_full = F(1). The target is a kept share, F_target = F(target), so the loss vanishes at k = target
    whatever the fixed part is. Halos do not count: they belong to the execution, not to the network.

    Args:
        mask: patches (B, 1, gh, gw), 1 where SR_Quality runs; k is its mean over the batch.
        target: kept share to reach, in [0, 1].
        fast_share: F_fixed / F_full, in [0, 1).
    """
    cost = fast_share + (1 - fast_share) * mask.mean()
    return (cost - (fast_share + (1 - fast_share) * target)).square()


def smoothness(probability: torch.Tensor) -> torch.Tensor:
    """Total variation of the mask probabilities (B, 1, gh, gw): mean absolute difference of neighbouring patches."""
    rows, columns = probability.diff(dim=2).abs(), probability.diff(dim=3).abs()
    return (rows.sum() + columns.sum()) / max(rows.numel() + columns.numel(), 1)  # a single patch has no neighbours


def reconstruction(sr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of SR and HR images (B, 3, H, W) in [0, 1].

    Raises:
        ValueError: the shapes differ.
    """
    if sr.shape != hr.shape:
        raise ValueError(f"reconstruction loss: SR is {tuple(sr.shape)} but HR is {tuple(hr.shape)}")
    return F.l1_loss(sr, hr)
