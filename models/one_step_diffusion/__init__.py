"""One-step diffusion restoration: one pass of a latent diffusion U-Net that LoRA has turned into a restorer."""

from models.one_step_diffusion.network import OneStepDiffusion

__all__ = ["OneStepDiffusion"]
