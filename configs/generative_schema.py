"""Training settings of the diffusion systems, which the networks' own arguments do not hold (stage 2)."""

from __future__ import annotations

from dataclasses import dataclass, field

from configs.bounds import NonNegativeFloat, NonNegativeInt, PositiveInt, UnitInterval


@dataclass(frozen=True)
class LDCSRConfig:
    """LDCSR: autoencoder, then condition network and diffusion; `optim_*` is that of the second phase.

    LPIPS of the autoencoder comes from `loss.perceptual` and `loss.perceptual_weights`; 1.0 in the paper, with VGG16.

    Args:
        epochs: of the autoencoder.
        samples_per_epoch: training patches per epoch of the autoencoder, which have `data.patch` LR pixels.
        batch: images per optimiser step of the autoencoder.
        micro_batch: of them per forward pass, with one factor and one ratio of gradients each; 0: batch / processes.
        lr: highest learning rate of autoencoder and discriminator; it falls as `optim_*` says, without milestones.
        warmup: optimiser steps of linear warm-up of the autoencoder.
        clip_norm: largest gradient norm of the autoencoder, whose loss is a sum over pixels; 0 switches clipping off.
        kl: weight of the KL divergence; the larger, the less the decoder relies on what LR cannot tell.
        latent_dropout: probability that an image is decoded from the latent 0, so that the decoder super-resolves well
            without knowing it; 0 in the paper.
        gan: weight of the hinge loss, times a ratio of gradients; 0: no discriminator.
        gan_start: step from which the discriminator takes part.
        discriminator_channels: maps of its first layer.
        hr_patch: side in pixels of the HR patches of the second phase, LR is hr_patch / factor; 0: as in the first.
        condition: weight of the distance between the condition network's latent and the encoder's.
        pixel: weight of L1 between HR and the decoded latent of the condition network; 0 in the paper.
    """

    epochs: PositiveInt = 1000
    samples_per_epoch: PositiveInt = 4000
    batch: PositiveInt = 4
    micro_batch: NonNegativeInt = 0
    lr: UnitInterval = 1.8e-5
    warmup: NonNegativeInt = 0
    clip_norm: NonNegativeFloat = 0.0
    kl: NonNegativeFloat = 1e-6
    latent_dropout: UnitInterval = 0.0
    gan: NonNegativeFloat = 0.5
    gan_start: NonNegativeInt = 50_001
    discriminator_channels: PositiveInt = 64
    hr_patch: NonNegativeInt = 256
    condition: NonNegativeFloat = 1.0
    pixel: NonNegativeFloat = 0.0


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
    """One-step diffusion restoration: degradation pre-removal, then LoRA with an adversarial loss.

    The generator learns in every second step, the discriminator in the others; optim_quality counts both.

    Args:
        autoencoder_epochs: epochs at the start in which a random autoencoder (preset small) learns HR images; 0: none.
        pre_removal_epochs: epochs in which its encoder then learns to give clean images of degraded ones; 0: none.
        autoencoder_lr: learning rate of these two phases; all else is that of optim_quality.
        mse: weight of the mean squared error, of images in [-1, 1].
        lpips: weight of LPIPS, whose weight files loss.perceptual_weights names; 0 leaves it out.
        adversarial: weight of the adversarial loss; 0 trains without a discriminator.
        real_target: what the discriminator shall say of real images, where 1 is certainty.
        g_target: what the generator wants it to say of its own; below 1, it holds back where it does better than that.
        backbone: ConvNeXt by timm's name that the discriminator looks through, such as convnext_xxlarge.
        backbone_weights: its weight file, of timm or open_clip (CLIP); null leaves it random.
    """

    autoencoder_epochs: NonNegativeInt = 0
    pre_removal_epochs: NonNegativeInt = 0
    autoencoder_lr: UnitInterval = 1e-4
    mse: NonNegativeFloat = 1.0
    lpips: NonNegativeFloat = 5.0
    adversarial: NonNegativeFloat = 0.5
    real_target: UnitInterval = 0.8
    g_target: UnitInterval = 0.8
    backbone: str = "convnext_xxlarge"
    backbone_weights: str | None = None
