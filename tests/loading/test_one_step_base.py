"""Base weights of one-step diffusion from a folder in diffusers' format, tiny ones; what is missing is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from configs.schema import NetworkConfig
from loading.load_sr import build_or_load_sr, load_sr
from loading.one_step_base import prompt_embedding
from models.one_step_diffusion.parts import is_lora
from models.one_step_diffusion.prediction import BETAS
from tests.extras import needs_generative
from utils.checkpoint import save_network
from utils.errors import UserError

pytestmark = needs_generative
SCHEDULER = {
    "_class_name": "PNDMScheduler", "beta_schedule": "scaled_linear", "beta_start": BETAS[0], "beta_end": BETAS[1],
    "num_train_timesteps": 1000, "prediction_type": "epsilon",
}  # fmt: skip


def save_base(folder: Path) -> Path:
    """A model of the layout of Stable Diffusion 2.1-base, of tiny random parts."""
    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel

    from models.one_step_diffusion.parts import small_parts

    torch.manual_seed(5)
    parts = small_parts(16, 32, 8, 4)
    parts.unet.save_pretrained(folder / "unet")
    assert isinstance(parts.vae, AutoencoderKL)
    parts.vae.save_pretrained(folder / "vae")
    words = ["<|startoftext|>", "<|endoftext|>", "a</w>", "b</w>", "a", "b"]
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (tokenizer / "merges.txt").write_text("#version: 0.2\n")
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "<|endoftext|>"}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_base(tmp_path_factory.mktemp("base"))


def config(base: Path, **more) -> NetworkConfig:
    return NetworkConfig("one_step_diffusion", {"preset": "sd2", "rank": 2, "base": str(base)} | more)


def test_the_base_comes_from_the_folder_and_only_the_additions_are_in_the_checkpoint(base, tmp_path):
    torch.manual_seed(0)
    network = build_or_load_sr(config(base), 4)
    lr = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.1)
        expected = network.eval()(lr)
    state = network.state_dict()
    assert state and all(is_lora(name) for name in state)
    assert network.latent_scale.item() == pytest.approx(0.18215)
    save_network(tmp_path / "lora.pth", "sr", network.spec["name"], network.spec["args"], state, {})
    assert (tmp_path / "lora.pth").stat().st_size < 400_000
    with torch.no_grad():
        again = load_sr(tmp_path / "lora.pth")
        assert torch.equal(again(lr), expected)
        other = build_or_load_sr(config(base, prompt="a b"), 4).prompt
        assert not torch.equal(other, network.prompt)
        torch.testing.assert_close(other, prompt_embedding(base, "a b"))
        torch.testing.assert_close(network.prompt, prompt_embedding(base, ""))
    assert other.shape == (1, 77, 32)


def test_an_encoder_of_its_own_is_in_the_checkpoint_too(base):
    state = build_or_load_sr(config(base, own_encoder=True), 4).state_dict()
    rest = {name for name in state if not is_lora(name)}
    assert rest and all(name.startswith(("vae.encoder.", "vae.quant_conv.")) for name in rest)


def without(base: Path, folder: Path, part: str) -> Path:
    """The same folder, a part left out."""
    folder.mkdir()
    for entry in base.iterdir():
        if entry.name != part:
            (folder / entry.name).symlink_to(entry)
    return folder


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_part_is_named(base, tmp_path, part):
    with pytest.raises(UserError, match=rf"{part}/\w+\.json: does not exist; expected is Stable Diffusion 2\.1-base"):
        build_or_load_sr(config(without(base, tmp_path / "folder", part)), 4)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nothing: no such folder; expected is Stable Diffusion 2\.1-base"):
        build_or_load_sr(config(tmp_path / "nothing"), 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction_type": "v_prediction"}, "prediction_type is 'v_prediction', but .* predicts noise"),
        ({"beta_end": 0.02}, "beta_end is 0.02, expected 0.012"),
    ],
)
def test_a_model_that_predicts_something_else_is_refused(base, tmp_path, change, message):
    folder = without(base, tmp_path / "folder", "scheduler")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER | change))
    with pytest.raises(UserError, match=message):
        build_or_load_sr(config(folder), 4)


def test_damaged_weights_are_named(base, tmp_path):
    folder = without(base, tmp_path / "folder", "unet")
    (folder / "unet").mkdir()
    (folder / "unet" / "config.json").write_text((base / "unet" / "config.json").read_text())
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"unet: cannot be loaded \("):
        build_or_load_sr(config(folder), 4)


def test_parts_that_do_not_fit_each_other_are_refused(base, tmp_path):
    from models.one_step_diffusion.parts import small_parts

    folder = without(base, tmp_path / "folder", "unet")
    small_parts(16, 16, 8, 4).unet.save_pretrained(folder / "unet")
    with pytest.raises(UserError, match="cross_attention_dim is 16, but vae and text_encoder need 32"):
        build_or_load_sr(config(folder), 4)
