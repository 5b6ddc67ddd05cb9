"""LDCSR in two phases: the autoencoder, then condition network and diffusion on its frozen latents.

Wu et al. 2025, arXiv:2410.22830. `ldcsr_kd` is made of what `ldcsr` has learnt (tools/ldcsr_kd.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.generative_schema import LDCSRConfig
from configs.schema import OptimConfig, Stage2Config
from loading.load_lpips import load_lpips
from models.ldcsr import LDCSR
from training.adversarial import PatchGAN, adaptive_weight, hinge_loss
from training.sample_noise import sample_noise
from training.sr_phases import Phase
from training.task import MAIN, OptimizerSpec, Progress, Task
from utils.errors import UserError
from utils.optimizer_utils import decay_groups

DISCRIMINATOR = "discriminator"
BETAS = (0.5, 0.9)  # of both optimisers of a GAN
POSTERIOR, DIFFUSION, DROPOUT = 2, 3, 4  # streams of noise, other ones than those that chose the patch
LEAST_SIDE = 24  # pixels of what the discriminator sees
MEASURED = 32  # batches whose latents tell the scale


def phases(network: LDCSR, config: Stage2Config, optim: OptimConfig, device: torch.device) -> list[Phase]:
    """The autoencoder by the settings of `config.ldcsr`, then the diffusion by `optim`.

    Raises:
        UserError: the network has no encoder, or patches are too small for the discriminator.
    """
    own, data, seed = config.ldcsr, config.data, config.run.seed
    if network.autoencoder.encoder is None:
        raise UserError("ldcsr: training needs the encoder; leave out args.oracle, or set it to true")
    side = round(min(data.scales or [config.scale]) * data.patch)
    if own.gan > 0 and side < LEAST_SIDE:
        raise UserError(
            f"ldcsr.gan: HR patches of {side} pixels are too small for the discriminator; enlarge data.patch, so that "
            f"data.scales gives at least {LEAST_SIDE} pixels, or set ldcsr.gan to 0"
        )
    perceptual = None
    if config.loss.perceptual > 0:
        perceptual = load_lpips(config.loss.perceptual_weights).to(device)
    first = replace(optim, epochs=own.epochs, batch=own.batch, micro_batch=own.micro_batch, lr=own.lr)
    first = replace(first, warmup=own.warmup, milestones=[], weight_decay=0.0, clip_norm=own.clip_norm, ema=0.0)
    return [
        Phase(
            "autoencoder",
            first,
            lambda numbers: AutoencoderTask(network, own, seed, perceptual, config.loss.perceptual),
            replace(data, samples_per_epoch=own.samples_per_epoch),
            turns=own.gan > 0,
        ),
        Phase(
            "diffusion",
            optim,
            lambda numbers: DiffusionTask(network, own, seed, numbers["latent_scale"]),
            replace(data, hr_patch=own.hr_patch),
        ),
    ]


class AutoencoderTask(Task):
    """Phase 1: L1 + LPIPS per pixel, summed; KL divergence; a hinge GAN whose weight adapts, from a step on.

    Args:
        network: its autoencoder, encoder included, learns.
        settings: weights.
        seed: of the run; of the noise and of the discriminator's first weights.
        perceptual: distance of images (B, 3, H, W) in [0, 1] -> (B,), on the device; None leaves the term out.
        perceptual_weight: of that term.
    """

    def __init__(
        self,
        network: LDCSR,
        settings: LDCSRConfig,
        seed: int,
        perceptual: nn.Module | None = None,
        perceptual_weight: float = 1.0,
    ):
        super().__init__()
        self.autoencoder, self.interpolate = network.autoencoder, network.interpolate
        self.settings, self.seed, self.perceptual_weight = settings, seed, perceptual_weight
        self.perceptual = None if perceptual is None else (perceptual,)  # not a part of the state
        self.discriminator = None
        if settings.gan > 0:
            with torch.random.fork_rng(devices=()):
                torch.manual_seed(seed)
                self.discriminator = PatchGAN(settings.discriminator_channels)

    def optimizers(self, optim: OptimConfig) -> dict[str, OptimizerSpec]:
        def spec(name: str, module: nn.Module) -> OptimizerSpec:
            groups = decay_groups(name, module.parameters(), optim.lr, optim.weight_decay)
            more = {} if self.discriminator is None else {"betas": BETAS}
            return OptimizerSpec([group | more for group in groups], optim)

        specs = {MAIN: spec("autoencoder", self.autoencoder)}
        if self.discriminator is not None:
            specs[DISCRIMINATOR] = spec(DISCRIMINATOR, self.discriminator)
        return specs

    def turns(self, step: int) -> tuple[str, ...]:
        return (MAIN, DISCRIMINATOR) if self.adversarial(step) else (MAIN,)

    def adversarial(self, step: int) -> bool:
        """Whether the discriminator takes part in this step."""
        return self.discriminator is not None and step >= self.settings.gan_start

    def losses(self, batch, progress: Progress) -> dict[str, Tensor]:
        up = self.interpolate(batch.lr, tuple(batch.hr.shape[-2:]))
        if progress.turn == DISCRIMINATOR:
            with torch.no_grad():
                fake = self.reconstruct(batch, up)[0]
            loss = hinge_loss(self.judge(batch.hr), self.judge(fake))
            return {"total": loss}
        sr, posterior = self.reconstruct(batch, up)
        reconstruction, losses = self.distance(sr, batch.hr)
        kl = posterior.kl().mean()
        losses["kl"] = kl.detach()
        total = reconstruction + self.settings.kl * kl
        if self.adversarial(progress.step):
            deceived = -self.judge(sr).mean()
            weight = adaptive_weight(reconstruction, deceived, self.autoencoder.decoder.upsampler.last.weight)
            total = total + self.settings.gan * weight * deceived
            losses |= {"gan": deceived.detach(), "gan_weight": weight}
        return {"total": total} | losses

    def reconstruct(self, batch, up: Tensor) -> tuple[Tensor, Any]:
        """SR images from latents drawn from the posterior, and the posterior."""
        posterior = self.autoencoder.encode(batch.hr, up)
        latent = drawn(posterior, batch, self.seed)
        if self.settings.latent_dropout > 0:
            latent = latent * self.kept(batch).to(latent.device)
        return self.autoencoder.decode(latent, batch.lr, up), posterior

    def kept(self, batch) -> Tensor:
        """1 where an image keeps its latent, else 0; (B, 1, 1, 1)."""
        draws = [np.random.default_rng((self.seed, *key, DROPOUT)).random() for key in batch.keys]
        return (torch.tensor(draws) >= self.settings.latent_dropout).float()[:, None, None, None]

    def distance(self, sr: Tensor, hr: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """L1 of images in [-1, 1] plus LPIPS at every pixel and colour, summed over the image, mean over the batch."""
        l1 = 2 * (sr - hr).abs()  # images in [-1, 1] differ twice as much
        losses = {"l1": l1.detach().mean() / 2}
        loss = l1.flatten(1).sum(1)
        if self.perceptual is not None:
            distance = self.perceptual[0](sr, hr)
            losses["perceptual"] = distance.detach().mean()
            loss = loss + self.perceptual_weight * l1[0].numel() * distance
        return loss.mean(), losses

    def judge(self, images: Tensor) -> Tensor:
        assert self.discriminator is not None
        return self.discriminator(2 * images - 1)

    def numbers(self, batches: Iterable[Any]) -> dict[str, Any]:
        """`latent_scale`, which gives the latents of training images unit variance."""
        latents = []
        for batch in islice(batches, MEASURED):
            up = self.interpolate(batch.lr, tuple(batch.hr.shape[-2:]))
            latents.append(drawn(self.autoencoder.encode(batch.hr, up), batch, self.seed).flatten())
        return {"latent_scale": 1 / torch.cat(latents).std().item()}


class DiffusionTask(Task):
    """Phase 2: the whole chain from noise ends at the latent, and the condition network guesses it.

    MSE(chain, z_0) + condition * MSE(c, z_0) [+ pixel * L1 of the decoded guess]. The autoencoder is frozen; only the
    U-Net is averaged.

    Args:
        network: with a trained autoencoder.
        settings: weights.
        seed: of the run.
        latent_scale: of the autoencoder's phase.
    """

    def __init__(self, network: LDCSR, settings: LDCSRConfig, seed: int, latent_scale: float):
        super().__init__()
        self.network, self.settings, self.seed = network, settings, seed
        network.latent_scale.fill_(latent_scale)
        network.autoencoder.requires_grad_(False)

    def optimizers(self, optim: OptimConfig) -> dict[str, OptimizerSpec]:
        parts = ("unet", self.network.unet), ("condition", self.network.condition)
        groups = [
            group
            for name, part in parts
            for group in decay_groups(name, part.parameters(), optim.lr, optim.weight_decay)
        ]
        return {MAIN: OptimizerSpec(groups, optim)}

    def losses(self, batch, progress: Progress) -> dict[str, Tensor]:
        network, size = self.network, tuple(batch.hr.shape[-2:])
        up = network.interpolate(batch.lr, size)
        with torch.no_grad():
            clean = network.latent_scale * drawn(network.autoencoder.encode(batch.hr, up), batch, self.seed)
        condition = network.condition(2 * up - 1)
        shape = (network.schedule.steps, *clean.shape[1:])
        first, *others = sample_noise(batch.keys, self.seed, DIFFUSION, shape, clean.device).unbind(1)
        noisy = network.schedule.noised(clean, first)
        latent = network.denoise(noisy, condition, batch.lr.shape[-2], size[0], others)
        diffusion, guess = F.mse_loss(latent, clean), F.mse_loss(condition, clean)
        total = diffusion + self.settings.condition * guess
        losses = {"diffusion": diffusion.detach(), "condition": guess.detach()}
        if self.settings.pixel > 0:
            sr = network.autoencoder.decode(condition / network.latent_scale, batch.lr, up)
            l1 = F.l1_loss(sr, batch.hr)
            losses["pixel"] = l1.detach()
            total = total + self.settings.pixel * l1
        return {"total": total} | losses

    def keeps(self, name: str) -> bool:
        return not name.startswith("network.autoencoder.")

    def averages(self, name: str) -> bool:
        return name.startswith("network.unet.")


def drawn(posterior: Any, batch, seed: int) -> Tensor:
    """Latents (B, L, h, w) of the posterior, with noise of each sample's own."""
    noise = sample_noise(batch.keys, seed, POSTERIOR, posterior.mean.shape[1:], posterior.mean.device)
    return posterior.mean + posterior.std * noise
