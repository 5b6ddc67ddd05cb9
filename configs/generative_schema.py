"""Training settings of the diffusion systems, which the networks' own arguments do not hold (stage 2)."""

from __future__ import annotations

from dataclasses import dataclass, field

from configs.bounds import NonNegativeFloat, PositiveInt, UnitInterval


@dataclass(frozen=True)
class LDCSRConfig:
    """LDCSR: autoencoder, then diffusion."""


@dataclass(frozen=True)
class DifIISRConfig:
    """DifIISR-DWT: statistics of the bands, then diffusion.

    Args:
        measured_patches: HR patches over which mean and deviation of the bands are measured before training.
        band_power: weights of the bands in the error, deviation^(2 * power): 0 counts all bands alike, 1 counts pixels.
        perceptual: weight of LPIPS at the first and at the last step; used where loss.perceptual_weights names files.
        perceptual_steps: factors of LPIPS for the first, second and last third of the diffusion's steps.
        reconstruction: weight of the codec's reconstruction error, where its layers learn (v4).
    """

    measured_patches: PositiveInt = 512
    band_power: UnitInterval = 0.0
    perceptual: list[NonNegativeFloat] = field(default_factory=lambda: [0.01, 0.15])
    perceptual_steps: list[NonNegativeFloat] = field(default_factory=lambda: [1.0, 0.1, 0.001])
    reconstruction: NonNegativeFloat = 1.0


@dataclass(frozen=True)
class OneStepConfig:
    """One-step diffusion restoration: degradation pre-removal, then LoRA with an adversarial loss."""
