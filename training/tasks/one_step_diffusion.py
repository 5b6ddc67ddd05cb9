"""How one-step diffusion restoration is trained: autoencoder, degradation pre-removal, LoRA against a discriminator."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.generative_schema import OneStepConfig
from configs.schema import OptimConfig, Stage2Config
from loading.load_backbone import load_backbone
from loading.load_lpips import load_lpips
from models.one_step_diffusion.discriminator import MultiLevelDiscriminator, discriminator_loss, level_loss
from models.one_step_diffusion.network import OneStepDiffusion
from models.one_step_diffusion.parts import is_lora
from training.sample_noise import sample_noise
from training.sr_phases import Phase
from training.task import MAIN, OptimizerSpec, Progress, Task
from utils.errors import UserError
from utils.optimizer_utils import decay_groups

GENERATOR, DISCRIMINATOR = "generator", "discriminator"
BETAS = (0.9, 0.999)
KL = 1e-6  # weight of the autoencoder's divergence from a normal distribution, as of latent diffusion
MEASURED = 8  # batches from which the scale of the latents is measured
STREAM = 0x0E5  # tells the posterior's noise from other random numbers of a sample
LEARNING = {"autoencoder": ("vae.",), "encoder": ("vae.encoder.", "vae.quant_conv.")}


def phases(network: OneStepDiffusion, config: Stage2Config, optim: OptimConfig, device: torch.device) -> list[Phase]:
    """Those that `config.one_step` gives epochs, and the adversarial one.

    Raises:
        UserError: a phase that does not fit the network's weights; see also `load_lpips` and `load_backbone`.
    """
    own, seed, found = config.one_step, config.run.seed, []
    check_phases(network, own)
    gentle = replace(optim, lr=own.autoencoder_lr)

    def autoencoder(numbers: dict) -> Task:
        return AutoencoderTask(network, seed)

    def pre_removal(numbers: dict) -> Task:
        take_numbers(network, numbers)
        return PreRemovalTask(network, seed)

    def adversarial(numbers: dict) -> Task:
        take_numbers(network, numbers)
        perceptual = load_lpips(config.loss.perceptual_weights).to(device) if own.lpips > 0 else None
        discriminator = None
        if own.adversarial > 0:
            backbone = load_backbone(own.backbone, own.backbone_weights).to(device)
            discriminator = MultiLevelDiscriminator(backbone)
        return AdversarialTask(network, own, discriminator, perceptual, seed)

    if own.autoencoder_epochs:
        found.append(Phase("autoencoder", replace(gentle, epochs=own.autoencoder_epochs), autoencoder))
    if own.pre_removal_epochs:
        found.append(Phase("pre_removal", replace(gentle, epochs=own.pre_removal_epochs), pre_removal))
    return [*found, Phase("adversarial", optim, adversarial, turns=True)]


def check_phases(network: OneStepDiffusion, own: OneStepConfig) -> None:
    """Raises UserError where a phase would train what the network's checkpoint does not hold."""
    if network.preset == "small":
        return
    if own.autoencoder_epochs:
        raise UserError("one_step.autoencoder_epochs: preset sd2 has a trained autoencoder; set it to 0")
    if own.pre_removal_epochs and not network.own_encoder:
        raise UserError(
            "one_step.pre_removal_epochs: the encoder would be trained, but is not in the checkpoint; add own_encoder: "
            "true to sr_quality.args, or set it to 0"
        )


def take_numbers(network: OneStepDiffusion, numbers: dict) -> None:
    """Give the network the scale of the latents that an autoencoder phase has measured."""
    if "latent_scale" in numbers:
        network.latent_scale.fill_(numbers["latent_scale"])


def learn(network: OneStepDiffusion, part: str) -> None:
    """Let one part of the network learn, "autoencoder", "encoder" or "lora", and fix all others."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(is_lora(name) if part == "lora" else name.startswith(LEARNING[part]))


def posterior_noise(like: Tensor, batch, seed: int) -> Tensor:
    """Normal numbers like `like` (B, C, h, w), each row a pure function of (seed, epoch, sample index)."""
    return sample_noise(batch.keys, seed, STREAM, like.shape[1:], like.device)


class AutoencoderTask(Task):
    """Encoder and decoder reproduce HR images (Rombach et al. 2022, arXiv:2112.10752, without its discriminator).

    Its number is `latent_scale`, with which latents have a deviation of one.

    Args:
        network: one-step network.
        seed: seed of the run.
    """

    def __init__(self, network: OneStepDiffusion, seed: int):
        super().__init__()
        self.network, self.seed = network, seed
        learn(network, "autoencoder")

    def keeps(self, name: str) -> bool:
        return name.startswith("network.vae.")

    def optimizers(self, optim: OptimConfig) -> dict[str, OptimizerSpec]:
        return {MAIN: OptimizerSpec(decay_groups("autoencoder", self.parameters(), optim.lr, 0.0), optim)}

    def losses(self, batch, progress: Progress) -> dict[str, Tensor]:
        posterior = self.network.vae.encode(2 * batch.hr - 1).latent_dist
        z = posterior.mean + posterior.std * posterior_noise(posterior.mean, batch, self.seed)
        image = (self.network.vae.decode(z).sample + 1) / 2
        pixel, divergence = F.l1_loss(image.float(), batch.hr), posterior.kl().mean()
        return {"total": pixel + KL * divergence, "l1": pixel.detach(), "kl": divergence.detach()}

    def numbers(self, batches: Iterable) -> dict[str, float]:
        means = [self.network.vae.encode(2 * batch.hr - 1).latent_dist.mean for batch in islice(batches, MEASURED)]
        return {"latent_scale": 1 / torch.cat(means).std().item()}


class PreRemovalTask(Task):
    """The encoder learns to give the clean image of a degraded one: mean squared error of Dec(Enc(LQ)) and HQ.

    Args:
        network: one-step network; its decoder stays.
        seed: seed of the run.
    """

    def __init__(self, network: OneStepDiffusion, seed: int):
        super().__init__()
        self.network, self.seed = network, seed
        learn(network, "encoder")

    def keeps(self, name: str) -> bool:
        return name.removeprefix("network.").startswith(LEARNING["encoder"])

    def optimizers(self, optim: OptimConfig) -> dict[str, OptimizerSpec]:
        return {MAIN: OptimizerSpec(decay_groups("encoder", self.parameters(), optim.lr, 0.0), optim)}

    def losses(self, batch, progress: Progress) -> dict[str, Tensor]:
        latent = encoded(self.network, batch, self.seed)
        loss = F.mse_loss(cut(self.network.decoded(latent), batch.hr), 2 * batch.hr - 1)
        return {"total": loss, "mse": loss.detach()}


class AdversarialTask(Task):
    """The low-rank additions learn to restore, against a discriminator that learns in every second step.

    L_G = mse * MSE + lpips * LPIPS + adversarial * BCE, of decoded images in [-1, 1] before their colours are fixed.
    Only the additions and the discriminator's heads are kept, only the additions averaged.

    Args:
        network: one-step network.
        weights: of the losses, and targets.
        discriminator: None trains without one, the generator in every step.
        perceptual: LPIPS on the device, of images in [0, 1]; None leaves it out.
        seed: seed of the run.
    """

    def __init__(
        self,
        network: OneStepDiffusion,
        weights: OneStepConfig,
        discriminator: MultiLevelDiscriminator | None,
        perceptual: nn.Module | None,
        seed: int,
    ):
        super().__init__()
        self.network, self.weights, self.seed = network, weights, seed
        self.discriminator = discriminator
        self.perceptual = (perceptual,)  # in a tuple: fixed, and no part of the state
        learn(network, "lora")

    def optimizers(self, optim: OptimConfig) -> dict[str, OptimizerSpec]:
        found = {}
        for name, part in ((GENERATOR, self.network), (DISCRIMINATOR, self.discriminator)):
            if part is not None:
                groups = decay_groups(name, part.parameters(), optim.lr, optim.weight_decay)
                found[name] = OptimizerSpec([{**group, "betas": BETAS} for group in groups], optim)
        return found

    def turns(self, step: int) -> tuple[str, ...]:
        """One after the other, each on a batch of its own."""
        return (GENERATOR,) if self.discriminator is None or step % 2 == 0 else (DISCRIMINATOR,)

    def keeps(self, name: str) -> bool:
        return is_lora(name) or name.startswith("discriminator.")

    def averages(self, name: str) -> bool:
        return is_lora(name)

    def losses(self, batch, progress: Progress) -> dict[str, Tensor]:
        if self.discriminator is not None:
            # In evaluation mode spectral normalisation makes no power iteration: nothing of it moves in G's steps.
            self.discriminator.train(progress.turn == DISCRIMINATOR)
        if progress.turn == GENERATOR:
            return self.generator_losses(self.restored(batch), batch)
        assert self.discriminator is not None
        with torch.no_grad():
            made = self.restored(batch)
        real = self.discriminator(2 * batch.hr - 1)
        loss = discriminator_loss(real, self.discriminator(made), self.weights.real_target)
        return {"total": loss, "real": mean_logit(real)}

    def generator_losses(self, image: Tensor, batch) -> dict[str, Tensor]:
        weights, image = self.weights, image.float()
        mse = F.mse_loss(image, 2 * batch.hr - 1)
        total, terms = weights.mse * mse, {"mse": mse.detach()}
        if self.perceptual[0] is not None:
            distance = self.perceptual[0]((image + 1) / 2, batch.hr).mean()
            total, terms["lpips"] = total + weights.lpips * distance, distance.detach()
        if self.discriminator is not None:
            logits = self.discriminator(image)
            fooled = level_loss(logits, weights.g_target)
            total, terms["adversarial"] = total + weights.adversarial * fooled, fooled.detach()
            terms["made"] = mean_logit(logits)
        return {"total": total} | terms

    def restored(self, batch) -> Tensor:
        """Decoded images (B, 3, H, W) in about [-1, 1]."""
        latent = encoded(self.network, batch, self.seed)
        return cut(self.network.decoded(self.network.denoised(latent)), batch.hr)


def encoded(network: OneStepDiffusion, batch, seed: int) -> Tensor:
    """Scaled latent of the enlarged LR images, drawn from the posterior."""
    height, width = batch.hr.shape[-2:]
    mean, deviation = network.posterior(network.padded(network.enlarged(batch.lr, (height, width))))
    return network.sampled(mean, deviation, posterior_noise(mean, batch, seed))


def cut(image: Tensor, hr: Tensor) -> Tensor:
    """The part of decoded images that is no padding."""
    return image[..., : hr.shape[-2], : hr.shape[-1]]


def mean_logit(levels: list[Tensor]) -> Tensor:
    """Mean logit over levels, for the log."""
    return torch.stack([level.detach().float().mean() for level in levels]).mean()
