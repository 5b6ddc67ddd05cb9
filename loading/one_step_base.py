"""Base weights of one-step diffusion from a folder in diffusers' format; nothing is downloaded."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from models.one_step_diffusion.network import OneStepDiffusion
from models.one_step_diffusion.parts import CELL, TOKENS, Parts
from models.one_step_diffusion.prediction import BETAS, STEPS
from utils.errors import UserError
from utils.extras import require

EXPECTED = (
    "expected is Stable Diffusion 2.1-base in diffusers' format: unet/, vae/, text_encoder/, tokenizer/ and "
    "scheduler/scheduler_config.json"
)
FILES = {
    "unet": "config.json", "vae": "config.json", "text_encoder": "config.json",
    "tokenizer": "vocab.json", "scheduler": "scheduler_config.json",
}  # fmt: skip


def load_base(network: OneStepDiffusion) -> OneStepDiffusion:
    """Give the network the U-Net, autoencoder and prompt embedding of its folder; low-rank additions start anew.

    Raises:
        UserError: a folder without one of the parts, a damaged part, or a model that predicts something else than the
            noise of the schedule that the network assumes.
    """
    folder = Path(network.base)
    check_base(folder)
    diffusers = require("diffusers", "generative")
    unet = _loaded(diffusers.UNet2DConditionModel, folder / "unet")
    vae = _loaded(diffusers.AutoencoderKL, folder / "vae")
    prompt = prompt_embedding(folder, network.prompt_text)
    if 2 ** (len(vae.config.block_out_channels) - 1) != CELL:
        raise UserError(f"{folder / 'vae'}: its cells are not {CELL} pixels a side; {EXPECTED}")
    needed = {"in_channels": vae.config.latent_channels, "cross_attention_dim": prompt.shape[-1]}
    for key, value in needed.items():
        if unet.config[key] != value:
            raise UserError(
                f"{folder / 'unet'}: {key} is {unet.config[key]}, but vae and text_encoder need {value}; {EXPECTED}"
            )
    network.take_parts(Parts(unet, vae, prompt, vae.config.scaling_factor))
    return network


def prompt_embedding(folder: str | Path, text: str) -> Tensor:
    """Embedding (1, TOKENS, width) of a text by the folder's tokenizer and text encoder, for `with_prompt`.

    Raises:
        UserError: see `load_base`.
    """
    folder = Path(folder)
    check_folder(folder)
    transformers = require("transformers", "generative")
    tokenizer = _loaded(transformers.CLIPTokenizer, folder / "tokenizer")
    encoder = _loaded(transformers.CLIPTextModel, folder / "text_encoder")
    ids = tokenizer(text, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        return encoder.eval()(ids)[0]


def check_base(folder: str | Path) -> None:
    """Raises UserError where a part is missing, or the model predicts something else; looks at no weights."""
    folder = Path(folder)
    check_folder(folder)
    check_scheduler(folder / "scheduler" / FILES["scheduler"])


def check_folder(folder: Path) -> None:
    """Raises UserError where a part is missing."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; {EXPECTED}")
    for part, file in FILES.items():
        if not (folder / part / file).is_file():
            raise UserError(f"{folder / part / file}: does not exist; {EXPECTED}")


def check_scheduler(file: Path) -> None:
    """Raises UserError unless the model predicts noise on Stable Diffusion's schedule."""
    config = json.loads(file.read_text(encoding="utf-8"))
    kind = config.get("prediction_type", "epsilon")
    if kind != "epsilon":
        raise UserError(
            f"{file}: prediction_type is {kind!r}, but the network needs a model that predicts noise (epsilon); take "
            "Stable Diffusion 2.1-base, not the model for 768 pixels"
        )
    needed = {
        "beta_schedule": "scaled_linear",
        "beta_start": BETAS[0],
        "beta_end": BETAS[1],
        "num_train_timesteps": STEPS,
    }
    for key, value in needed.items():
        if config.get(key, value) != value:
            raise UserError(f"{file}: {key} is {config[key]!r}, expected {value!r}; {EXPECTED}")


def _loaded(kind: type, folder: Path):
    """`kind.from_pretrained` without network; every failure names the folder."""
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # damaged files fail in any way
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{folder}: cannot be loaded ({type(error).__name__}: {reason}); use another copy; {EXPECTED}"
        ) from error
