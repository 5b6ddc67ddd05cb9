"""loading/key_maps.py and spandrel: weights of every published family give what their authors' network gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from configs.schema import NetworkConfig
from loading.load_sr import build_or_load_sr
from loading.published_weights import load_community_sr
from models import build_sr
from tests.loading import published
from tests.loading.published import assert_gives, save


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
