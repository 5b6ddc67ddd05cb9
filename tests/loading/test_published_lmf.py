"""Files of the LMF authors' repository, laid out as their training script writes them, wherever weights are taken."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from configs.schema import NetworkConfig
from loading.lmf_official import official_network
from loading.load_sr import build_or_load_sr, load_sr
from loading.published_weights import load_community_sr
from prediction.sr_inference import load_sr_for
from tests.loading.test_lmf_official import (
    DECODERS,
    MEAN_SHIFTS,
    checkpoint,
    edsr_names,
    liif_names,
    rdn_names,
    swinir_names,
    wave_weights,
)
from utils.checkpoint import CheckpointError, save_network

RENDER = {"out_dim": 3, "hidden_dim": 16, "hidden_depth": 8, "mod_scale": True, "mod_shift": True}
LATENT = {"name": "mlp", "args": {"out_dim": 288, "hidden_list": [288]}}
ARGS = {
    "encoder_spec": {"name": "edsr-baseline", "args": {"no_upsampling": True}},
    "imnet_spec": {"name": "lmmlp", "args": RENDER},
    "hypernet_spec": LATENT,
    "hidden_dim": 128,
    "local_ensemble": True,
    "cell_decode": True,
    "mod_input": True,
}
CIAOSR_ARGS = {
    "encoder": {"name": "rdn", "args": {"no_upsampling": True}},
    "imnet_q": {"name": "lmmlp", "args": RENDER},
    "hypernet_q": LATENT,
    "local_size": 2,
    "feat_unfold": True,
    "non_local_attn": True,
    "multi_scale": [2],
    "softmax_scale": 1,
    "mod_input": True,
}


def written(name: str, weights: dict, args: dict = ARGS) -> dict:
    """Content of a file of the authors: Adam's state beside the weights, numbered as PyTorch numbers it."""
    moments = {
        i: {"step": torch.tensor(3.0), "exp_avg": w, "exp_avg_sq": w} for i, w in enumerate([*weights.values()][:2])
    }
    groups = [{"lr": 1e-4, "betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": False, "params": [0, 1]}]
    optimizer = {"name": "adam", "args": {"lr": 1e-4}, "sd": {"state": moments, "param_groups": groups}}
    return {"model": {"name": name, "args": args, "sd": weights}, "optimizer": optimizer, "epoch": 1200}


def save(folder: Path, content: dict) -> Path:
    torch.save(content, folder / "epoch-last.pth")
    return folder / "epoch-last.pth"


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("shifted", [True, False])
@pytest.mark.parametrize("model", DECODERS)
def test_files_of_the_authors_hold_the_network_of_their_weights(tmp_path, model, shifted, prefix):
    weights = checkpoint(model)
    extra = {key: torch.zeros(shape) for key, shape in MEAN_SHIFTS.items()} if shifted else {}
    content = written(model, {prefix + key: value for key, value in (weights | extra).items()})
    network, found = load_community_sr(save(tmp_path, content), 2.5)
    assert network.scale == 2.5 and not network.training
    assert found.startswith(f"{model.replace('lm', 'lm_')}(scale=2.5, encoder=edsr_baseline, n_blocks=1, n_feats=64")
    assert "LMF authors' names, in 'model', in 'sd'" in found and (prefix in found)
    lr = torch.rand(1, 3, 7, 6)
    with torch.no_grad():
        assert torch.equal(network(lr, (19, 30)), official_network(weights, 1)(lr, (19, 30)))


@pytest.mark.parametrize("model", DECODERS)
@pytest.mark.parametrize(("encoder", "names"), [("edsr_baseline", edsr_names), ("rdn", rdn_names)])
def test_whole_published_networks(tmp_path, model, encoder, names):
    args = CIAOSR_ARGS if model == "lmciaosr" else ARGS
    network, _ = load_community_sr(save(tmp_path, written(model, checkpoint(model, names()), args)))
    assert network.spec["args"]["encoder"] == encoder and network.spec["args"]["n_blocks"] == 16
    assert network.scale == 4, "the largest scale of the training where none is asked for"
    assert network.spec["args"].get("weight_compat") == (True if model == "lmciaosr" else None)


@pytest.mark.parametrize("model", DECODERS)
def test_swinir_networks(tmp_path, model):
    weights = checkpoint(model, swinir_names())
    if model == "lmliif":  # behind SwinIR its render MLP is two layers deeper
        weights |= wave_weights(liif_names(8))
    network, found = load_community_sr(save(tmp_path, written(model, weights)), 3)
    assert "encoder=swinir" in found and network.spec["args"]["scale"] == 3


def test_a_loaded_network_can_be_saved_and_loaded_again(tmp_path):
    network = load_sr(save(tmp_path, written("lmciaosr", checkpoint("lmciaosr"), CIAOSR_ARGS)), 3)
    save_network(tmp_path / "own.pth", "sr", network.spec["name"], network.spec["args"], network.state_dict(), {})
    lr = torch.rand(1, 3, 6, 7)
    with torch.no_grad():
        assert torch.equal(load_sr(tmp_path / "own.pth")(lr), network(lr))


def test_every_way_to_name_weights_takes_them(tmp_path, capsys):
    path = save(tmp_path, written("lmlte", checkpoint("lmlte")))
    assert load_sr_for(path, 7.5).scale == 7.5 and load_sr_for(path, None).scale == 4
    network = build_or_load_sr(NetworkConfig(name="edsr", args={}, weights=str(path)), 3)
    assert network.spec["name"] == "lm_lte" and network(torch.rand(1, 3, 4, 5)).shape == (1, 3, 12, 15)
    own = NetworkConfig(name="lm_lte", args={"n_blocks": 1}, init=str(path))
    assert build_or_load_sr(own, 2).scale == 2
    assert "LMF authors' names" in capsys.readouterr().out
    save_file(checkpoint("lmlte"), tmp_path / "lm.safetensors")
    assert load_sr_for(tmp_path / "lm.safetensors", 1.5).spec["name"] == "lm_lte"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda w: written("lmlte", w | {"extra.weight": torch.zeros(1)}), "1 tensors do not fit: extra.weight is unk"),
        (lambda w: written("lmlte", {k: v for k, v in w.items() if k != "imphase.weight"}), "looks like lm_liif, but"),
        (lambda w: written("lmlte", {"coef.weight": torch.zeros(1)}), "not the weights of LM-LIIF, LM-LTE"),
        (lambda w: written("ltep", w), "calls itself 'ltep'; of this kind lmliif, lmlte, lmciaosr can be read"),
        (lambda w: written("lmlte", w, ARGS | {"local_ensemble": False}), "local_ensemble is False; only networks"),
        (lambda w: written("lmlte", w, ARGS | {"mean": torch.zeros(3)}), "args.mean is a Tensor, no plain value"),
        (lambda w: written("lmlte", w, ["edsr"]), "args is a list, no dictionary"),
        (lambda w: {"model": {"name": "lmlte", "args": {}, "sd": {}}, "epoch": 3}, "holds no named tensors"),
    ],
)
def test_other_content_is_explained(tmp_path, content, message):
    path = save(tmp_path, content(checkpoint("lmlte")))
    with pytest.raises(CheckpointError, match=message) as error:
        load_sr(path, 2)
    assert "epoch-last.pth" in str(error.value)


def test_arguments_that_are_no_plain_values_are_named_and_not_executed(tmp_path):
    path = save(tmp_path, written("lmlte", checkpoint("lmlte"), argparse.Namespace(scale=4)))
    for load in (load_sr, load_community_sr):
        with pytest.raises(CheckpointError, match=r"\(argparse\.Namespace\)\); nothing in it was executed"):
            load(path, 2)
