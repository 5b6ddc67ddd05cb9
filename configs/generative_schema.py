"""Training settings of the diffusion systems, which the networks' own arguments do not hold (stage 2)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LDCSRConfig:
    """LDCSR: autoencoder, then diffusion."""


@dataclass(frozen=True)
class DifIISRConfig:
    """DifIISR-DWT: statistics of the bands, then diffusion."""


@dataclass(frozen=True)
class OneStepConfig:
    """One-step diffusion restoration: degradation pre-removal, then LoRA with an adversarial loss."""
