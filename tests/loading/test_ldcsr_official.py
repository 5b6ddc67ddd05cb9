"""Weights of the authors' LDCSR repository: Lightning files of the real layout, synthesised from a network of ours."""

from __future__ import annotations

import pytest
import torch

from loading.ldcsr_official import FIRST_STAGE, UNET, layer_names
from loading.load_sr import load_sr
from models import build_sr
from models.ldcsr.unet import HEAD
from tests.extras import needs_generative
from tests.models.ldcsr.small import small
from utils.checkpoint import CheckpointError
from utils.flops_counter import count_parameters

pytestmark = needs_generative
# Names of tensors in the authors' files, one of every kind, with the shapes of the published network.
PUBLISHED = {
    "first_stage_model.encoder.conv_in.weight": (64, 6, 3, 3),
    "first_stage_model.encoder.down.1.block.0.nin_shortcut.weight": (128, 64, 1, 1),
    "first_stage_model.encoder.down.3.block.1.norm2.bias": (256,),
    "first_stage_model.encoder.down.2.downsample.conv.weight": (128, 128, 3, 3),
    "first_stage_model.encoder.mid.block_2.conv1.weight": (256, 256, 3, 3),
    "first_stage_model.encoder.norm_out.weight": (256,),
    "first_stage_model.encoder.conv_out.weight": (8, 256, 3, 3),
    "first_stage_model.quant_conv.weight": (8, 8, 1, 1),
    "first_stage_model.post_quant_conv.weight": (4, 4, 1, 1),
    "first_stage_model.decoder.style.weight": (1,),
    "first_stage_model.decoder.head.weight": (64, 3, 3, 3),
    "first_stage_model.decoder.conv_in.weight": (64, 4, 3, 3),
    "first_stage_model.decoder.mid.block_1.norm1.weight": (64,),
    "first_stage_model.decoder.up.3.block.1.conv2.weight": (64, 64, 3, 3),
    "first_stage_model.decoder.up.0.transfer.weight": (64, 64, 1, 1),
    "first_stage_model.decoder.up.2.condition_scale1.weight": (64, 1),
    "first_stage_model.decoder.up.2.condition_scale2.bias": (64,),
    "first_stage_model.decoder.FRUList.3.IMDB.11.c4.weight": (16, 48, 3, 3),
    "first_stage_model.decoder.FRUList.3.IMDB.11.cca.conv_du.0.weight": (4, 64, 1, 1),
    "first_stage_model.decoder.FRUList.0.c.0.weight": (64, 768, 1, 1),
    "first_stage_model.decoder.FRUList.0.LR_conv.weight": (64, 64, 3, 3),
    "first_stage_model.decoder.upsampler.UPNet_x2_list.2.0.weight": (256, 64, 3, 3),
    "first_stage_model.decoder.upsampler.scale_aware_layer.2.weight": (4, 64),
    "first_stage_model.decoder.upsampler.fuse.8.weight": (3, 256, 1, 1),
    "cond_stage_model.conv_in.weight": (64, 3, 3, 3),
    "cond_stage_model.conv_out.weight": (4, 256, 3, 3),
    "model.diffusion_model.time_embed.2.weight": (256, 256),
    "model.diffusion_model.osize_embed.0.weight": (256, 64),
    "model.diffusion_model.input_blocks.0.0.weight": (64, 8, 3, 3),
    "model.diffusion_model.input_blocks.3.0.op.weight": (64, 64, 3, 3),
    "model.diffusion_model.input_blocks.4.0.skip_connection.weight": (128, 64, 1, 1),
    "model.diffusion_model.input_blocks.11.1.qkv.weight": (768, 256, 1),
    "model.diffusion_model.input_blocks.10.0.emb_layers.1.weight": (256, 256),
    "model.diffusion_model.middle_block.1.proj_out.weight": (256, 256, 1),
    "model.diffusion_model.output_blocks.2.2.conv.weight": (256, 256, 3, 3),
    "model.diffusion_model.output_blocks.5.1.conv.weight": (128, 128, 3, 3),
    "model.diffusion_model.output_blocks.11.0.in_layers.0.weight": (128,),
    "model.diffusion_model.out.2.weight": (4, 64, 3, 3),
}


def as_published(network) -> dict[str, torch.Tensor]:
    """State dict of the second stage by the authors' names: the key map, read backwards."""
    known = {ours: theirs for theirs, ours in layer_names(network.spec["args"].get("n_modules", 12)).items()}
    own, found = network.state_dict(), {}
    for key, value in own.items():
        layer, _, kind = key.rpartition(".")
        if key == "latent_scale":
            found["scale_factor"] = value
        elif key == "autoencoder.decoder.unused":
            found[f"{FIRST_STAGE}decoder.style.weight"] = value
        elif layer.endswith(".to_q"):
            block = layer.removesuffix(".to_q")
            parts = [own[f"{block}.to_{part}.{kind}"].unflatten(0, (-1, HEAD)) for part in "qkv"]
            tensor = torch.stack(parts, 1).flatten(0, 2)  # (heads, 3, HEAD): head after head
            found[f"{known[block]}.qkv.{kind}"] = tensor[..., None] if kind == "weight" else tensor
        elif layer.endswith((".to_k", ".to_v")):
            continue
        elif layer.endswith(".to_out.0"):
            name = f"{known[layer.removesuffix('.to_out.0')]}.proj_out.{kind}"
            found[name] = value[..., None] if kind == "weight" else value
        else:
            found[f"{known[layer]}.{kind}"] = value
    return found


def lightning_file(tensors: dict, path, averaged: bool = True):
    """With the schedule, losses and the moving average that such files hold; the U-Net itself is noise then."""
    state = dict(tensors)
    if averaged:
        for key, value in tensors.items():
            if key.startswith(UNET):
                state["model_ema." + key.removeprefix("model.").replace(".", "")] = value
                state[key] = torch.randn_like(value)
        state |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7)}
    state |= {"betas": torch.zeros(4), "logvar": torch.zeros(4), "sqrt_recipm1_alphas_cumprod": torch.zeros(4)}
    state |= {"posterior_mean_coef1": torch.zeros(4), "alphas_cumprod_prev": torch.zeros(4)}
    torch.save({"state_dict": state, "epoch": 779, "global_step": 5}, path)
    return path


def test_names_and_shapes_are_the_published_ones():
    with torch.device("meta"):
        network = build_sr("ldcsr", 4)
    found = as_published(network)
    assert {key: tuple(found[key].shape) for key in PUBLISHED} == PUBLISHED
    assert sum(value.numel() for value in found.values()) == count_parameters(network) + 1  # and the latent scale
    decoder = [value for key, value in found.items() if key.startswith(f"{FIRST_STAGE}decoder.")]
    assert sum(value.numel() for value in decoder) == 6_807_944


@pytest.mark.parametrize("averaged", [True, False])
def test_a_file_of_the_second_stage_is_the_network(tmp_path, averaged: bool, capsys):
    network = small(weight_compat=True)
    network.latent_scale.fill_(0.7)
    path = lightning_file(as_published(network), tmp_path / "epoch=1.ckpt", averaged)
    loaded = load_sr(path, 4)
    assert loaded.spec["args"] == network.spec["args"] | {"scale": 4, "steps": 4, "latent_channels": 4}
    assert not loaded.training and "LDCSR authors' names, second stage" in capsys.readouterr().out
    lr = torch.rand(1, 3, 9, 10)
    with torch.no_grad():
        assert torch.equal(loaded(lr, (23, 26)), network(lr, (23, 26)))


def test_a_file_of_the_first_stage_is_an_autoencoder_to_go_on_from(tmp_path, capsys):
    network = small(weight_compat=True)
    tensors = {
        key.removeprefix(FIRST_STAGE): value
        for key, value in as_published(network).items()
        if key.startswith(FIRST_STAGE)
    }
    torch.save({"state_dict": tensors | {"loss.logvar": torch.zeros(())}}, tmp_path / "first.ckpt")
    loaded = load_sr(tmp_path / "first.ckpt", 3)
    assert "first stage, condition network and U-Net untrained" in capsys.readouterr().out and loaded.scale == 3
    hr, lr = torch.rand(1, 3, 24, 24), torch.rand(1, 3, 10, 10)
    with torch.no_grad():
        assert torch.equal(loaded.reconstruct(hr, lr), network.reconstruct(hr, lr))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("cond_stage_model.conv_out.bias"), "1 missing: condition.body.conv_out.bias"),
        (lambda t: t.update({"cond_stage_model.extra.weight": torch.zeros(1)}), "1 unknown: cond_stage_model.extra"),
        (lambda t: t.update({"model.diffusion_model.out.2.bias": torch.zeros(5)}), "of another shape: unet.unet.conv_"),
        (lambda t: t["scale_factor"].fill_(float("nan")), "hold NaN or infinite values, such as latent_scale"),
        (lambda t: t.update({f"{UNET}middle_block.1.qkv.weight": torch.zeros(5, 32, 1)}), "have other axes"),
        (lambda t: t.pop(f"{FIRST_STAGE}decoder.head.weight"), "missing"),
    ],
)
def test_files_that_are_not_whole_are_refused_by_name(tmp_path, change, message: str):
    tensors = {key: value.clone() for key, value in as_published(small(weight_compat=True)).items()}
    change(tensors)
    with pytest.raises(CheckpointError, match=message):
        load_sr(lightning_file(tensors, tmp_path / "a.ckpt", averaged=False), 4)
