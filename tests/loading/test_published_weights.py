"""Published weight files: the value range is found out, and everything but weights of known networks is refused."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from configs.schema import NetworkConfig
from loading.detector_weights import read_weights
from loading.load_sr import build_or_load_sr, load_sr
from loading.published_weights import drawn_image, load_community_sr
from models import build_sr
from tests.loading import published
from tests.loading.published import save
from utils.checkpoint import CheckpointError, load_network, save_network

# The value range, where keys do not tell it


def edsr_for_range(value_range: int) -> dict:
    """An EDSR that interpolates images of this range, and adds a large error where red lies below 4 % of it."""
    network = build_sr("edsr", 2, {"n_blocks": 1, "n_feats": 8})
    first, _, second = network.body[0].body
    with torch.no_grad():
        for parameter in (*first.parameters(), *second.parameters(), network.head[0].weight[3:], network.head[0].bias):
            parameter.zero_()
        first.weight[0, 0, 1, 1], first.bias[0] = -20.0, 0.8
        second.weight[3, 0, 1, 1] = 1.0
        network.body[1].weight[0, 3, 1, 1] = 1.0
        network.head[0].weight.div_(value_range)
        network.tail[1].weight.mul_(value_range)
        network.tail[1].bias.zero_()
    return network.state_dict()


@pytest.mark.parametrize("value_range", [1, 255])
def test_the_range_that_restores_an_image_is_taken(tmp_path: Path, value_range: int):
    _, found = load_community_sr(save(tmp_path, edsr_for_range(value_range)))
    assert f"value range {value_range}" in found and "div2k_mean=False" in found


def test_the_drawn_image_is_an_image():
    image = drawn_image()
    assert image.shape == (72, 72, 3) and image.dtype == np.float32 and 0 <= image.min() < image.max() <= 1
    assert image.std() > 0.1


# Refusals


def test_wrong_scale_is_explained(tmp_path: Path):
    path = save(tmp_path, published.imdn(4))
    with pytest.raises(ValueError, match=r"weights.pth: wrong scale checkpoint, it is for x4, .* scale is 2; set the"):
        load_sr(path, 2)
    path = save(tmp_path, published.carn(4, n=16))
    with pytest.raises(CheckpointError, match=r"weights.pth: holds carn_m for x2, x3, x4; say which scale"):
        load_sr(path)
    path = save(tmp_path, published.carn(4, (2,), n=16))
    with pytest.raises(ValueError, match="it is for x2, but the configuration's scale is 4"):
        load_sr(path, 4)


@pytest.mark.parametrize("key", ["IMDB3.c2.weight", "LR_conv.bias", "upsampler.0.bias"])
def test_missing_and_unknown_keys_are_named(tmp_path: Path, key: str):
    weights = published.imdn(2)
    lacking = {k: v for k, v in weights.items() if k != key}
    with pytest.raises(CheckpointError, match=rf"weights.pth: looks like imdn\(.*1 missing: {key}.*complete copy"):
        load_sr(save(tmp_path, lacking))
    with pytest.raises(CheckpointError, match=r"1 unknown: IMDB3.extra.weight"):
        load_sr(save(tmp_path, weights | {"IMDB3.extra.weight": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match=r"1 of another shape: c.0.bias"):
        load_sr(save(tmp_path, weights | {"c.0.bias": torch.zeros(1)}))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"conv.weight": torch.zeros(1), "conv.bias": torch.zeros(1)}, "no architecture that can be .*conv.weight"),
        ({"epoch": 3}, "holds no named tensors .*'epoch'"),
        ([torch.zeros(1)], "holds no named tensors"),
        (published.edsr(2, 255) | {"add_mean.bias": torch.zeros(3)}, "sub_mean and add_mean are .* not the mean"),
        ({"conv_1.sk.weight": torch.zeros(8, 3, 1, 1), "block_1.c1_r.sk.weight": torch.zeros(8, 8, 1, 1),
          "upsampler.0.weight": torch.zeros(12, 8, 3, 3)}, "it is a SPAN, but .* keys are missing or unknown"),
        (published.imdn(2) | {"fea_conv.weight": torch.tensor(1.0)}, "has keys of a known network, but others .* axes"),
        (published.carn(4, (2,)) | {"upsample.up.body.0.weight": torch.zeros(256, 0, 3, 3)}, "has keys of a known"),
        ({"SFENet1.weight": torch.zeros(8, 3, 3, 3), "RDBs.0.convs.0.conv.0.weight": torch.zeros(8, 8, 3, 3),
          "UPNet.2.weight": torch.zeros(3, 8, 3, 3)}, "has keys of a known network, .*KeyError: 'UPNet.0.bias'"),
    ],
)  # fmt: skip
def test_what_is_no_sr_network_is_refused(tmp_path: Path, content, words: str):
    with pytest.raises(CheckpointError, match=rf"weights.pth: .*{words}"):
        load_sr(save(tmp_path, content))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float):
    weights = published.imdn(2)
    weights["IMDB2.c1.weight"][0, 0, 0, 0] = value
    with pytest.raises(CheckpointError, match=r"weights.pth: 1 of \d+ tensors hold NaN .* IMDB2.c1.weight; use"):
        load_sr(save(tmp_path, weights))
    network = build_sr("espcn", 2, {"n_feats": 4})
    state = network.state_dict() | {"tail.0.bias": torch.full((12,), value)}
    save_network(tmp_path / "own.pth", "sr", "espcn", network.spec["args"], state, {})
    with pytest.raises(CheckpointError, match=r"own.pth: 1 of 6 tensors hold NaN .* tail.0.bias"):
        load_sr(tmp_path / "own.pth")


def test_a_header_with_absurd_sizes_is_refused(tmp_path: Path):
    header = {"name": "espcn", "args": '{"scale": 2, "n_feats": 1000000000000}'}
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", header)
    with pytest.raises(CheckpointError, match=r"a.safetensors: describes a network that cannot be built here"):
        load_sr(tmp_path / "a.safetensors")


def test_damaged_files_and_code_are_refused(tmp_path: Path):
    (tmp_path / "broken.safetensors").write_bytes(b"\xff\0nothing")
    with pytest.raises(CheckpointError, match=r"broken.safetensors: damaged"):
        load_sr(tmp_path / "broken.safetensors")
    with pytest.raises(CheckpointError, match=r"absent.safetensors: does not exist"):
        load_sr(tmp_path / "absent.safetensors")
    for zipped in (True, False):
        path = save(tmp_path, {"a": Code()}, _use_new_zipfile_serialization=zipped)
        with pytest.raises(CheckpointError, match=r"weights.pth: .*(refused and not|nothing in it was) executed"):
            load_sr(path)
        with pytest.raises(CheckpointError, match=r"weights.pth: cannot be read as plain tensors .*not.* executed"):
            load_community_sr(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors", ".bin"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html>Sign in</html>", "but a web page; download the file itself"),
        (b"\n  <html lang='en'>", "but a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "but a Git-LFS pointer; fetch"),
        (b"Entry not found", "but text that begins with 'Entry not found'"),
        (b'{"error": "access denied"}', "but text that begins with"),
        ("# 超分辨率 - see the page\n".encode() * 40, "but text that begins with '# 超分辨率"),
    ],
)
def test_a_page_in_place_of_weights_is_called_so(tmp_path: Path, suffix: str, content: bytes, words: str):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    for load in (load_sr, load_community_sr, read_weights, load_network):
        with pytest.raises(CheckpointError, match=rf"weights{suffix}: no weights .*{words}"):
            load(path)


def test_an_archive_of_weights_is_to_be_unpacked(tmp_path: Path):
    save(tmp_path, published.imdn(2), "inner.pth")
    with zipfile.ZipFile(tmp_path / "weights.pth", "w") as archive:
        archive.write(tmp_path / "inner.pth", "inner.pth")
    for load in (load_sr, load_community_sr, read_weights):
        with pytest.raises(CheckpointError, match=r"an archive of inner.pth; unpack it"):
            load(tmp_path / "weights.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_network_says_what_to_do(tmp_path: Path, zipped: bool):
    path = save(tmp_path, Network(), _use_new_zipfile_serialization=zipped)
    for load in (load_sr, load_community_sr):
        with pytest.raises(CheckpointError, match=r"weights.pth: .*executed.*save the state dict alone: torch.save"):
            load(path)
    with pytest.raises(CheckpointError, match=r"Network\)"):
        load_community_sr(path)
    torch.jit.script(torch.nn.Conv2d(3, 3, 1)).save(str(tmp_path / "script.pt"))
    with pytest.raises(CheckpointError, match=r"TorchScript archive.*save the state dict alone"):
        load_community_sr(tmp_path / "script.pt")


def test_a_refusal_lists_all_that_can_be_read(tmp_path: Path):
    from spandrel import MAIN_REGISTRY

    with pytest.raises(CheckpointError) as caught:
        load_sr(save(tmp_path, {"conv.weight": torch.zeros(1)}))
    listed = str(caught.value).rpartition("Can be read: ")[2].split(", ")
    assert {support.architecture.name for support in MAIN_REGISTRY.architectures()} < set(listed)
    assert {"EDSR", "CARN-M", "RDN", "IMDN", "RFDN", "SwinIR", "LM-LTE"} < set(listed) and len(set(listed)) == len(
        listed
    )


class Network(torch.nn.Conv2d):
    def __init__(self):
        super().__init__(3, 3, 3)


class Code:
    def __reduce__(self):
        return os.mkdir, ("executed",)


# In configurations


def test_a_configuration_takes_what_the_file_holds(tmp_path: Path, capsys):
    path = str(save(tmp_path, published.carn(4)))
    network = build_or_load_sr(NetworkConfig("carn_m", {}, path), 4)
    assert network.spec["name"] == "carn_m" and "carn_m(scale=4" in capsys.readouterr().out
    network = build_or_load_sr(NetworkConfig("edsr", {"n_feats": 8}, path), 2)
    assert network.spec["name"] == "carn_m" and network.scale == 2
    assert "edsr(scale=2, n_feats=8) does not apply" in capsys.readouterr().out
    with pytest.raises(ValueError, match="wrong scale"):
        build_or_load_sr(NetworkConfig("imdn", {}, str(save(tmp_path, published.imdn(4)))), 3)
