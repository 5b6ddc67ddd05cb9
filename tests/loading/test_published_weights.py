"""Published weight files: what they hold is found out, gives the published network, and everything else is refused."""

from __future__ import annotations

import collections
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
from utils.checkpoint import CheckpointError, load_network, save_network


def save(folder: Path, weights: dict, name: str = "weights.pth", **options) -> Path:
    torch.save(weights, folder / name, **options)
    return folder / name


@torch.no_grad()
def assert_gives(network, expected, value_range: int = 1, size=(24, 19)) -> None:
    """The network on [0, 1] is the published function on its own range, up to rounding."""
    lr = torch.rand(1, 3, *size)
    want = expected(value_range * lr) / value_range
    assert network(lr).shape == want.shape
    assert (network(lr) - want).abs().max() <= 1e-5 * max(1.0, want.abs().max())


# Every family gives what its authors' network gives


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("value_range", [1, 255, None])
def test_edsr_with_and_without_mean_shift(tmp_path: Path, scale: int, value_range: int | None):
    weights = published.edsr(scale, value_range)
    network, found = load_community_sr(save(tmp_path, weights), scale)
    assert_gives(network, lambda x: published.run_edsr(weights, x), value_range or 1)
    assert network.scale == scale and network.spec["name"] == "edsr"
    assert f"value range {value_range or 1}" in found and f"div2k_mean={value_range is not None}" in found


def test_wide_edsr_has_the_published_residual_scaling(tmp_path: Path):
    weights = published.edsr(2, 255, blocks=1, n=128)
    network, found = load_community_sr(save(tmp_path, weights))
    assert_gives(network, lambda x: published.run_edsr(weights, x, res_scale=0.1, blocks=1), 255)
    assert "res_scale=0.1" in found


def test_edsr_named_as_in_basicsr(tmp_path: Path):
    weights = published.edsr(4, 255)
    names = {"head.0": "conv_first", "body.2": "conv_after_body", "tail.0.0": "upsample.0", "tail.0.2": "upsample.2",
             "tail.1": "conv_last"}  # fmt: skip
    names |= {f"body.{i}.body.{k}": f"body.{i}.conv{1 + k // 2}" for i in (0, 1) for k in (0, 2)}
    renamed = {f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": value
               for key, value in weights.items() if "_mean" not in key}  # fmt: skip
    network, found = load_community_sr(save(tmp_path, {"params": renamed}))
    assert_gives(network, lambda x: published.run_edsr(weights, x), 255)
    assert "BasicSR's names" in found and "in 'params'" in found


@pytest.mark.parametrize("groups", [None, 4])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_carn_of_several_scales(tmp_path: Path, groups: int | None, scale: int):
    weights = published.carn(groups)
    network, found = load_community_sr(save(tmp_path, weights), scale)
    assert_gives(network, lambda x: published.run_carn(weights, x, scale, f"up{scale}", groups))
    assert network.spec["name"] == ("carn_m" if groups else "carn") and "value range 1" in found


@pytest.mark.parametrize("groups", [None, 4])
def test_carn_of_one_scale(tmp_path: Path, groups: int | None):
    weights = published.carn(groups, (3,), n=16)
    network, _ = load_community_sr(save(tmp_path, weights))
    assert network.scale == 3
    assert_gives(network, lambda x: published.run_carn(weights, x, 3, "up", groups))


def test_carn_has_the_published_number_of_parameters():
    """With the upsamplers of all scales (Ahn et al., table 2): CARN 1592 K; CARN-M 412 K, where biases are left out."""
    plain, mobile = published.carn(None), published.carn(4)
    assert round(sum(value.numel() for value in plain.values()) / 1000) == 1592
    assert round(sum(v.numel() for k, v in mobile.items() if v.ndim == 4 and "_mean" not in k) / 1000) == 412


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_imdn(tmp_path: Path, scale: int):
    weights = published.imdn(scale)
    network, found = load_community_sr(save(tmp_path, weights), scale)
    assert_gives(network, lambda x: published.run_imdn(weights, x, scale))
    assert found.startswith("imdn(scale=") and "value range 1" in found


def test_rfdn(tmp_path: Path):
    weights = published.rfdn()
    network, found = load_community_sr(save(tmp_path, weights), 4)
    assert_gives(network, lambda x: published.run_rfdn(weights, x), size=(31, 40))
    assert found.startswith("rfdn(scale=4, n_blocks=4, n_feats=50)")


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_rdn_in_both_layouts(tmp_path: Path, scale: int):
    weights = published.rdn(scale)
    network, _ = load_community_sr(save(tmp_path, weights), scale)
    assert_gives(network, lambda x: published.run_rdn(weights, x, scale), 255)
    end = 2 * len(published.STAGES[scale])
    renamed = {}
    for key, value in weights.items():
        for old, new in (("SFENet", "sfe"), ("RDBs", "rdbs"), ("convs", "layers"), ("conv.0", "conv"), ("LFF", "lff"),
                         ("GFF", "gff"), (f"UPNet.{end}.", "output."), ("UPNet", "upscale")):  # fmt: skip
            key = key.replace(old, new)
        renamed[key] = value
    network, found = load_community_sr(save(tmp_path, renamed), scale)
    assert_gives(network, lambda x: published.run_rdn(weights, x, scale), 1)
    assert "RDN-pytorch's names" in found


@pytest.mark.parametrize("norm", [True, False])
def test_rcan(tmp_path: Path, norm: bool):
    from spandrel.architectures.RCAN import RCAN

    oracle = RCAN(scale=3, n_resgroups=2, n_resblocks=2, n_feats=16, reduction=4, norm=norm, rgb_range=255).eval()
    weights = oracle.state_dict()
    network, found = load_community_sr(save(tmp_path, weights), 3)
    value_range = 255 if norm else 1
    assert_gives(network, lambda x: value_range * oracle(x / value_range), value_range)
    assert f"reduction=4, div2k_mean={norm}" in found and f"value range {value_range}" in found


def test_rcan_named_as_in_basicsr(tmp_path: Path):
    network = build_sr("rcan", 2, {"n_groups": 2, "n_blocks": 2, "n_feats": 16, "reduction": 4})
    names = {"head.0": "conv_first", "body.2": "conv_after_body", "tail.0.0": "upsample.0", "tail.1": "conv_last"}
    for i in (0, 1):
        names[f"body.{i}.body.2"] = f"body.{i}.conv"
        for j in (0, 1):
            here, there = f"body.{i}.body.{j}.body", f"body.{i}.residual_group.{j}.rcab"
            names |= {f"{here}.{k}": f"{there}.{k}" for k in (0, 2)}
            names |= {f"{here}.3.conv_du.{k}": f"{there}.3.attention.{k + 1}" for k in (0, 2)}
    weights = {f"{names[k.rpartition('.')[0]]}.{k.rpartition('.')[2]}": v for k, v in network.state_dict().items()}
    stored, found = load_community_sr(save(tmp_path, weights))
    assert stored.state_dict().keys() == network.state_dict().keys() and "BasicSR's names" in found


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_rcan_named_as_in_basicsr_gives_the_same_image(tmp_path: Path, scale: int):
    weights = published.rcan(scale)
    network, found = load_community_sr(save(tmp_path, {"params": weights}))
    assert_gives(network, lambda x: published.run_rcan(weights, x, scale), 255)
    assert network.scale == scale and "n_groups=2, n_blocks=2, n_feats=16, reduction=4" in found


@pytest.mark.parametrize("scale", [2, 4])
def test_real_esrgan(tmp_path: Path, scale: int):
    weights = published.rrdb(scale)
    network, found = load_community_sr(save(tmp_path, {"params_ema": weights}), scale)
    assert_gives(network, lambda x: published.run_rrdb(weights, x, scale), size=(8, 12))
    assert network.scale == scale and "ESRGAN" in found and "in 'params_ema'" in found


@pytest.mark.parametrize("scale", [2, 4])
def test_compact_networks_of_real_esrgan(tmp_path: Path, scale: int):
    weights = published.compact(scale)
    network, found = load_community_sr(save(tmp_path, {"params": weights}), scale)
    assert_gives(network, lambda x: published.run_compact(weights, x, scale), size=(7, 9))
    assert network.scale == scale and "recognised by spandrel" in found


@pytest.mark.parametrize("norm", [True, False])
def test_span(tmp_path: Path, norm: bool):
    from spandrel.architectures.SPAN import SPAN

    oracle = SPAN(num_in_ch=3, num_out_ch=3, feature_channels=12, upscale=2, norm=norm).eval()
    weights = {key: value.clone() for key, value in oracle.state_dict().items()}
    weights |= {key: torch.zeros_like(value) for key, value in weights.items() if "eval_conv" in key}  # stale
    network, found = load_community_sr(save(tmp_path, weights), 2)
    assert_gives(network, oracle)
    assert f"n_feats=12, div2k_mean={norm}" in found and f"value range {255 if norm else 1}" in found
    with torch.no_grad():
        oracle(torch.rand(1, 3, 8, 8))  # merges the branches
    merged = {k: v for k, v in oracle.state_dict().items() if "eval_conv" in k or "conv_cat" in k or "upsampler" in k}
    if norm:
        assert_gives(load_community_sr(save(tmp_path, merged), 2)[0], oracle)


@pytest.mark.parametrize("size", [(16, 24), (13, 9)])
@pytest.mark.parametrize(
    ("scale", "upsampler", "connection"),
    [(2, "pixelshuffledirect", "1conv"), (3, "pixelshuffle", "1conv"), (4, "nearest+conv", "3conv")],
)
def test_swinir(tmp_path: Path, size: tuple, scale: int, upsampler: str, connection: str):
    from spandrel.architectures.SwinIR import SwinIR

    oracle = SwinIR(
        img_size=48, embed_dim=12, depths=[2, 2], num_heads=[2, 2], window_size=8, mlp_ratio=2.0, upscale=scale,
        upsampler=upsampler, resi_connection=connection,
    ).eval()  # fmt: skip
    network, found = load_community_sr(save(tmp_path, {"params_ema": oracle.state_dict()}), scale)
    assert_gives(network, oracle, size=size)
    assert found.startswith("swinir_light(" if upsampler == "pixelshuffledirect" else "swinir(")


def test_an_architecture_that_only_spandrel_knows(tmp_path: Path):
    from spandrel.architectures.Compact import Compact

    oracle = Compact(num_in_ch=3, num_out_ch=3, num_feat=8, num_conv=2, upscale=2, act_type="prelu").eval()
    network, found = load_community_sr(save(tmp_path, oracle.state_dict()), 2)
    assert_gives(network, oracle, size=(7, 5))
    assert "spandrel(" in found and "recognised by spandrel" in found
    twin = build_sr(network.spec["name"], 2, network.spec["args"]).eval()
    twin.load_state_dict(network.state_dict())
    lr = torch.rand(1, 3, 6, 5)
    assert torch.equal(twin(lr), network(lr))


def old_esrgan(scale: int = 4, wide: int = 8, growth: int = 32) -> dict:
    """An ESRGAN in the layout of its first release (keys model.0 ... model.10) with random weights."""
    weights = published.layer("model.0", wide, 3, 3)
    for block in (1, 2, 3):
        for k in range(1, 6):
            outputs = growth if k < 5 else wide
            weights |= published.layer(f"model.1.sub.0.RDB{block}.conv{k}.0", outputs, wide + (k - 1) * growth, 3)
    weights |= published.layer("model.1.sub.1", wide, wide, 3)
    stages = {2: 1, 4: 2}[scale]
    last = 2 + 3 * stages
    for number in [3 * stage for stage in range(1, stages + 1)] + [last]:
        weights |= published.layer(f"model.{number}", wide, wide, 3)
    return weights | published.layer(f"model.{last + 2}", 3, wide, 3)


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("nest", ["", "params_ema", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_esrgan_in_its_first_layout(tmp_path: Path, scale: int, nest: str, prefix: str):
    from spandrel import ModelLoader

    weights = old_esrgan(scale)
    oracle = ModelLoader().load_from_state_dict(dict(weights)).model.eval()
    wrapped = {prefix + key: value for key, value in weights.items()}
    network, found = load_community_sr(save(tmp_path, {nest: wrapped} if nest else wrapped), scale)
    assert_gives(network, oracle, size=(7, 9))
    assert "ESRGAN" in found and network.scale == scale
    build_or_load_sr(NetworkConfig("espcn", weights=str(tmp_path / "weights.pth")), scale)


# Containers


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
