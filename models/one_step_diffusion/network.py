"""One-step diffusion restoration: SR by a single pass of a latent diffusion U-Net with LoRA.

The image is enlarged, encoded to a latent z by the autoencoder of a latent diffusion model (Rombach et al. 2022,
arXiv:2112.10752) and taken for a noisy latent of timestep 200, though no noise is added. The U-Net, frozen but for its
low-rank additions, predicts the noise eps, and x0 = a z - b eps is decoded. Low frequencies come from the input.
"""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.arbitrary_scale import BicubicToSize
from models.capabilities import AnyScale, Capabilities, checked_scale
from models.noise import normal_field
from models.one_step_diffusion.colour_fix import fix_colours
from models.one_step_diffusion.parts import CELL, TOKENS, Parts, add_lora, is_lora, sd2_parts, small_parts
from models.one_step_diffusion.prediction import STEPS, clean_coefficients
from models.one_step_diffusion.tiling import restore_tiled
from models.sr_network import SRNetwork
from utils.errors import UserError

SCALES = AnyScale(1, 8)
PRESETS = ("small", "sd2")
HALO = 16  # LR pixels of neighbours around a patch
BLEND = 8  # LR pixels over which neighbouring patches fade into each other
ENCODER = ("vae.encoder.", "vae.quant_conv.")


class OneStepDiffusion(SRNetwork):
    """Maps LR images (B, 3, h, w) in [0, 1] to SR images of any size from x1 to x8; the output is not clamped.

    The latent is drawn from the encoder's posterior by noise that is a function of `seed` and of the place alone.

    Args:
        scale: factor where no size is given; may be fractional.
        preset: "small": random parts of the sizes that follow, all of them in the state dict; "sd2": the shapes of
            Stable Diffusion 2.1-base, whose weights come from the folder `base` and are not in the state dict.
        channels, cross, vae_channels, latent: of "small", see `small_parts`.
        rank: of the low-rank additions.
        timestep: at which the U-Net is run.
        base: folder of the base weights in diffusers' format, for "sd2"; see loading/one_step_base.py.
        prompt: text for the encoder in `base`.
        own_encoder: with `base`, the autoencoder's encoder is trained and in the state dict too.

    Attributes:
        seed: of the posterior's noise.

    Raises:
        UserError: arguments that do not fit each other, or diffusers or peft are not installed.
    """

    scale: float  # type: ignore[assignment]  # it may be fractional
    vae: Any  # diffusers' modules, whose methods a type checker cannot see
    unet: Any
    prompt: Tensor
    latent_scale: Tensor

    def __init__(
        self,
        scale: float,
        preset: str = "small",
        channels: int = 32,
        cross: int = 32,
        vae_channels: int = 16,
        latent: int = 4,
        rank: int = 4,
        timestep: int = 200,
        base: str = "",
        prompt: str = "",
        own_encoder: bool = False,
    ):
        super().__init__()
        self.scale = checked_scale(self, scale, SCALES)
        check_arguments(preset, channels, vae_channels, base, prompt, own_encoder)
        if timestep >= STEPS:
            raise UserError(f"one_step_diffusion: timestep is {timestep}; use 1 to {STEPS - 1}")
        whole = float(scale).is_integer()
        self.capabilities = Capabilities(
            receptive_radius=None,
            local_receptive_radius=HALO,
            scales=SCALES,
            tiling="own",
            blend=BLEND,
            size_multiple=CELL // math.gcd(CELL, int(scale)) if whole else CELL,
            stochastic=True,
            dtypes=(torch.float32, torch.bfloat16),
        )
        self.preset, self.rank, self.base, self.own_encoder = preset, rank, base, own_encoder
        self.prompt_text, self.timestep, self.seed = prompt, timestep, 0
        self.enlarge = BicubicToSize()
        parts = sd2_parts() if preset == "sd2" else small_parts(channels, cross, vae_channels, latent)
        self.take_parts(parts)
        self.register_state_dict_post_hook(_without_base)

    # ------------------------------------------------------------------------------------------------------ its parts

    def take_parts(self, parts: Parts) -> None:
        """Replace U-Net, autoencoder and prompt; the low-rank additions start anew."""
        self.vae, self.unet = parts.vae, parts.unet
        self.vae.requires_grad_(False)
        if self.own_encoder:
            for name, parameter in self.named_parameters():
                parameter.requires_grad_(name.startswith(ENCODER))
        add_lora(self.unet, self.rank)
        self.text_encoder = (parts.text_encoder,)  # in a tuple: fixed, and no part of the state dict
        self.register_buffer("prompt", parts.prompt)
        scale = torch.tensor(parts.latent_scale, device=parts.prompt.device)
        self.register_buffer("latent_scale", scale)

    @property
    def tail(self) -> nn.Module:
        return self.unet.conv_out

    def keeps(self, name: str) -> bool:
        """Whether a tensor is in the state dict: all of them, or with base weights from a folder what is trained."""
        if self.preset == "small" or is_lora(name):
            return True
        return self.own_encoder and name.startswith(ENCODER)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *more) -> None:
        """The state dict with what it leaves out filled in, see `keeps`. No hook: that would keep to the original of a
        copy, which could not be copied once the original is gone."""
        own = dict(self.named_parameters()) | dict(self.named_buffers())
        state_dict |= {prefix + name: tensor.detach() for name, tensor in own.items() if not self.keeps(name)}
        super()._load_from_state_dict(state_dict, prefix, *more)

    def with_seed(self, seed: int) -> OneStepDiffusion:
        """The network, its tensors shared, with other noise."""
        network = copy.copy(self)
        network.seed = seed
        return network

    def with_prompt(self, prompt: Tensor) -> OneStepDiffusion:
        """The network, its other tensors shared, with another prompt.

        Args:
            prompt: embedding (1, TOKENS, width), or int64 token ids (1, n), n up to TOKENS, padded with the last one.

        Raises:
            UserError: token ids without a text encoder, or another shape.
        """
        if not prompt.is_floating_point():
            prompt = self.embedded(prompt)
        if prompt.shape != self.prompt.shape:
            raise UserError(f"prompt: the embedding is {tuple(prompt.shape)}, expected {tuple(self.prompt.shape)}")
        network = copy.copy(self)
        network._buffers = self._buffers | {"prompt": prompt.to(self.prompt)}
        return network

    @torch.no_grad()
    def embedded(self, ids: Tensor) -> Tensor:
        """Last hidden state (1, TOKENS, width) of the text encoder for token ids (1, n)."""
        (encoder,) = self.text_encoder
        if encoder is None:
            raise UserError("prompt: this network has no text encoder for token ids; give an embedding")
        if ids.ndim != 2 or len(ids) != 1 or not 1 <= ids.shape[1] <= TOKENS:
            raise UserError(f"prompt: token ids are {tuple(ids.shape)}, expected (1, n) with n from 1 to {TOKENS}")
        ids = F.pad(ids, (0, TOKENS - ids.shape[1]), value=int(ids[0, -1]))
        return encoder(ids.to(next(encoder.parameters()).device))[0]

    # ------------------------------------------------------------------------------------------------------ its steps

    def forward(self, lr: Tensor, size: tuple[int, int] | None = None, origin: Tensor | None = None) -> Tensor:
        """SR images (B, 3, H, W).

        Args:
            lr: LR images (B, 3, h, w) in [0, 1].
            size: (H, W); None is (round(scale * h), round(scale * w)).
            origin: int64 (B, 2), row and column of each image within a larger one, in LR pixels; None: zeros.

        Raises:
            UserError: the base weights were not loaded.
        """
        size = self.target_size(lr, size)
        reference = self.enlarged(lr, size)
        mean, deviation = self.posterior(self.padded(reference))
        if origin is not None:
            factors = torch.tensor(size, device=origin.device) / torch.tensor(lr.shape[-2:], device=origin.device)
            origin = (origin * factors / CELL).floor().long()
        latent = self.sampled(mean, deviation, self.noise(mean, origin))
        return self.finished(self.decoded(self.denoised(latent)), reference)

    def tiled(self, lr: Tensor, size: tuple[int, int] | None, tile: int, halo: int) -> Tensor:
        """SR images (B, 3, H, W) in windows; see `restore_tiled`."""
        return restore_tiled(self, lr, self.target_size(lr, size), tile, halo)

    def target_size(self, lr: Tensor, size: tuple[int, int] | None) -> tuple[int, int]:
        height, width = lr.shape[-2:]
        return (round(self.scale * height), round(self.scale * width)) if size is None else (size[0], size[1])

    def enlarged(self, lr: Tensor, size: tuple[int, int]) -> Tensor:
        """The bicubic image (B, 3, H, W), float32 whatever the network computes in: its colours are the result's."""
        if tuple(lr.shape[-2:]) == tuple(size):
            return lr.float()
        with nullcontext() if lr.is_meta else torch.autocast(lr.device.type, enabled=False):
            return self.enlarge(lr.float(), size)

    def padded(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] made whole cells below and on the right by reflection, in [-1, 1]."""
        height, width = image.shape[-2:]
        below, right = -height % CELL, -width % CELL
        if below or right:
            mode = "reflect" if below < height and right < width else "replicate"
            image = F.pad(image, (0, right, 0, below), mode=mode)
        return 2 * image - 1

    def posterior(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation (B, C, H / 8, W / 8) of the latent of an image in [-1, 1].

        Raises:
            UserError: the base weights were not loaded.
        """
        weight = next(self.vae.parameters())
        if weight.is_meta and not image.is_meta:
            raise UserError(
                "one_step_diffusion: the base weights of preset sd2 are not loaded; give args base, a folder of "
                "Stable Diffusion 2.1-base in diffusers' format"
            )
        found = self.vae.encode(image.to(weight.dtype)).latent_dist
        return found.mean, found.std

    def noise(self, latent: Tensor, origin: Tensor | None = None) -> Tensor:
        """Normal numbers like `latent` (B, C, h, w), whose first cells lie at `origin` (B, 2), None: zeros."""
        batch, channels, height, width = latent.shape
        if origin is None:
            origin = torch.zeros(batch, 2, dtype=torch.long, device=latent.device)
        return normal_field(self.seed, 0, channels, origin, (height, width), latent.device)

    def sampled(self, mean: Tensor, deviation: Tensor, noise: Tensor) -> Tensor:
        """Scaled latent drawn from the posterior."""
        return self.latent_scale * (mean + deviation * noise.to(mean.dtype))

    def denoised(self, latent: Tensor) -> Tensor:
        """Clean latent x0 = a z - b eps(z); both scaled, (B, C, h, w)."""
        a, b = clean_coefficients(self.timestep)
        prompt = self.prompt.to(latent.dtype).expand(len(latent), -1, -1)
        return a * latent - b * self.unet(latent, self.timestep, prompt).sample

    def decoded(self, latent: Tensor) -> Tensor:
        """Image (B, 3, 8 h, 8 w) in about [-1, 1] of a scaled latent (B, C, h, w)."""
        return self.vae.decode(latent / self.latent_scale).sample

    def finished(self, image: Tensor, reference: Tensor) -> Tensor:
        """Decoded images, cut to the reference's size, in [0, 1], with its colours."""
        height, width = reference.shape[-2:]
        return fix_colours((image[..., :height, :width].float() + 1) / 2, reference)


def check_arguments(preset: str, channels: int, vae_channels: int, base: str, prompt: str, own_encoder: bool) -> None:
    """Raises UserError where arguments do not fit each other."""
    if preset not in PRESETS:
        raise UserError(f"one_step_diffusion: preset is {preset!r}; use one of {', '.join(PRESETS)}")
    if preset == "small":
        if base or prompt or own_encoder:
            raise UserError("one_step_diffusion: base, prompt and own_encoder belong to preset sd2; leave them out")
        if channels % 16 or vae_channels % 8:
            raise UserError(
                f"one_step_diffusion: channels is {channels} and vae_channels {vae_channels}, but they must be "
                "multiples of 16 and 8"
            )


def _without_base(network: OneStepDiffusion, state: dict, prefix: str, metadata: dict) -> None:
    for key in [key for key in state if key.startswith(prefix) and not network.keeps(key.removeprefix(prefix))]:
        del state[key]
