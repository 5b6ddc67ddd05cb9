"""The weights that come with the project: every file loads, is what its card says, and is found by configurations."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from configs.schema import NetworkConfig
from data.sr_pairs import benchmark_pairs
from inference import main
from tests.drawn import draw_photographs
from utils.load import build_or_load_sr, shipped_file
from utils.metrics import psnr_y
from utils.resize import resize
from utils.shipped_weights import SHIPPED, shipped_specs, strongest_shipped
from utils.sr_eval import to_image, to_tensor

SPECS = shipped_specs()


def test_there_are_some():
    assert {spec["args"]["scale"] for spec in SPECS.values()} >= {4}


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_configurations_get_them_by_name_and_arguments(path: Path):
    args = dict(SPECS[path]["args"])
    scale = args.pop("scale")
    assert shipped_file(SPECS[path]) == path and path.with_suffix(".md").is_file()
    assert path.stat().st_size < 8e6
    network = build_or_load_sr(NetworkConfig(SPECS[path]["name"], args, SHIPPED), scale)
    assert network.scale == scale and network.spec["name"] == SPECS[path]["name"] and not network.training


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
@torch.no_grad()
def test_they_beat_interpolation(shared_data, path: Path):
    args = dict(SPECS[path]["args"])
    scale = args.pop("scale")
    network = build_or_load_sr(NetworkConfig(SPECS[path]["name"], args, SHIPPED), scale)
    for name, lr, hr in benchmark_pairs(shared_data("sr_bench") / "Set5", scale)[1:3]:
        sr = to_image(network(to_tensor(lr, "cpu")))
        assert psnr_y(sr, hr, scale) > psnr_y(resize(lr, *hr.shape[:2]), hr, scale) + 0.3, name


def test_what_is_not_shipped_is_refused_with_a_list():
    with pytest.raises(ValueError, match=r"there are none for edsr\(.*n_feats=5.*shipped are .*edsr\("):
        build_or_load_sr(NetworkConfig("edsr", {"n_feats": 5}, SHIPPED), 4)
    with pytest.raises(ValueError, match="none are shipped for x7, only for x"):
        strongest_shipped(7)


def test_sr_only_works_without_naming_weights(tmp_path: Path, capsys):
    draw_photographs(tmp_path / "images", images=1, size=(20, 16))
    options = ["--source", str(tmp_path / "images"), "--out", str(tmp_path / "out"), "--device=cpu"]
    assert main(["--sr-only", *options]) == 0
    assert strongest_shipped(None).name in capsys.readouterr().out
