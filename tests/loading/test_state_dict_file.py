"""loading/state_dict_file.py: tensors are found in every container, under every prefix, whatever the file's suffix."""

from __future__ import annotations

import collections
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from configs.schema import NetworkConfig
from loading.load_sr import build_or_load_sr, load_sr
from loading.published_weights import load_community_sr
from models import build_sr
from tests.loading import published
from tests.loading.published import assert_gives, save
from utils.checkpoint import save_network


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_counter_of_an_averaged_model_is_left_out(tmp_path: Path, prefix: str):
    weights = published.edsr(2, 255)
    model = torch.nn.Module()
    model.register_buffer("n_averaged", torch.tensor(5))
    averaged = model.state_dict() | {f"module.{prefix}{key}": value for key, value in weights.items()}
    network, _ = load_community_sr(save(tmp_path, averaged))
    assert_gives(network, lambda x: published.run_edsr(weights, x), 255)


@pytest.mark.parametrize("parts", [("net_g.", "net_d."), ("net_g_ema.", "net_g."), ("generator.", "discriminator.")])
def test_of_several_networks_the_generator_is_taken(tmp_path: Path, parts: tuple[str, str]):
    weights, other = published.edsr(2, 255), published.edsr(2, 255)
    both = {parts[0] + k: v for k, v in weights.items()} | {parts[1] + k: v for k, v in other.items()}
    network, found = load_community_sr(save(tmp_path, {"state_dict": both}))
    assert_gives(network, lambda x: published.run_edsr(weights, x), 255)
    assert f"part {parts[0]!r}" in found


@pytest.mark.parametrize("nest", ["params_ema", "params", "state_dict", "model", "net"])
@pytest.mark.parametrize("prefix", ["", "module.", "module.model.", "netG.", "net_g_ema."])
def test_nests_and_prefixes_are_taken_off(tmp_path: Path, nest: str, prefix: str):
    weights = published.edsr(2, 255)
    wrapped = {"epoch": 3, nest: {prefix + key: value for key, value in weights.items()}, "optimizer": {"lr": 0.1}}
    network, found = load_community_sr(save(tmp_path, wrapped), 2)
    assert_gives(network, lambda x: published.run_edsr(weights, x), 255)
    assert f"in {nest!r}" in found and all(f"prefix '{part}.'" in found for part in prefix.split(".") if part)


def test_tensors_beside_the_nest_do_not_hide_it(tmp_path: Path):
    weights = published.imdn(2)
    path = save(tmp_path, {"epoch": torch.tensor(3), "params_ema": {}, "state_dict": weights})
    network, found = load_community_sr(path)
    assert network.spec["name"] == "imdn" and "in 'state_dict'" in found


def test_a_moving_average_is_preferred(tmp_path: Path):
    plain, averaged = published.edsr(2, 255), published.edsr(2, 255)
    network, _ = load_community_sr(save(tmp_path, {"params": plain, "params_ema": averaged}))
    assert_gives(network, lambda x: published.run_edsr(averaged, x), 255)


def test_safetensors_half_precision_parameters_and_old_torch_files(tmp_path: Path):
    weights = published.edsr(2, 1)
    save_file(weights, tmp_path / "weights.safetensors")
    assert_gives(load_sr(tmp_path / "weights.safetensors"), lambda x: published.run_edsr(weights, x))
    half = {key: value.half() for key, value in published.edsr(2, None).items()}
    network = load_sr(save(tmp_path, half))
    assert_gives(network, lambda x: published.run_edsr({k: v.float() for k, v in half.items()}, x))
    ordered = collections.OrderedDict((key, torch.nn.Parameter(value)) for key, value in weights.items())
    old = save(tmp_path, ordered, "weights.pt", _use_new_zipfile_serialization=False)
    assert_gives(load_sr(old), lambda x: published.run_edsr(weights, x))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".safetensors"])
def test_the_content_decides_and_not_the_suffix(tmp_path: Path, suffix: str):
    weights = published.edsr(4, 1)
    for name, write in (("safe", save_file), ("plain", torch.save), ("old", save_old)):
        write(weights, tmp_path / f"{name}{suffix}")
        network = build_or_load_sr(NetworkConfig("espcn", weights=str(tmp_path / f"{name}{suffix}")), 4)
        assert_gives(network, lambda x: published.run_edsr(weights, x))
    network = build_sr("espcn", 3, {"n_feats": 4})
    save_network(tmp_path / f"own{suffix}", "sr", "espcn", network.spec["args"], network.state_dict(), {})
    assert load_sr(tmp_path / f"own{suffix}").spec == network.spec


def save_old(weights: dict, path: Path) -> None:
    torch.save(weights, path, _use_new_zipfile_serialization=False)


def test_own_safetensors_say_how_to_build_them(tmp_path: Path):
    network = build_sr("espcn", 3, {"n_feats": 8})
    header = {"name": "espcn", "args": '{"scale": 3, "n_feats": 8}'}
    save_file(network.state_dict(), tmp_path / "espcn.safetensors", metadata=header)
    stored = load_sr(tmp_path / "espcn.safetensors")
    assert stored.spec == network.spec and not stored.training
    with pytest.raises(ValueError, match="wrong scale checkpoint, it is for x3"):
        load_sr(tmp_path / "espcn.safetensors", 2)
