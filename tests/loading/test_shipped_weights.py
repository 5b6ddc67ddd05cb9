"""The weights that come with the project: every file loads, is what its card says, and is found by configurations."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import pytest
import torch

from configs.schema import NetworkConfig
from evaluation.sr_eval import benchmark, validation_sets
from inference import main
from loading.build_network import network_of_role
from loading.load_sr import build_or_load_sr, load_sr, shipped_file
from loading.shipped_weights import FOLDER, ONLY_BY_NAME, SHIPPED, SUMS, shipped_specs, strongest_shipped
from models.sr_fast import Bicubic
from tests.drawn import draw_photographs, draw_sr_benchmark
from tests.extras import needs_generative
from utils.checkpoint import CheckpointError

SPECS = shipped_specs()
BICUBIC_SET5 = {2: 33.68, 3: 30.40, 4: 28.42}  # dB
# PSNR in dB and SSIM (luma) on the drawn benchmark, where bicubic interpolation has 32.63 and 0.8861 (x2), 29.98 and
# 0.8131 (x4): a published table that any machine can check.
DRAWN = {
    "difiisr_dwt_x4": (30.510, 0.82314), "edsr_16x64_x2": (34.081, 0.90950), "edsr_16x64_x4": (31.458, 0.84638),
    "edsr_2x16_x2": (33.551, 0.90057), "edsr_2x16_x4": (30.680, 0.82631), "edsr_8x32_x2": (33.890, 0.90603),
    "edsr_8x32_x4": (31.175, 0.83786), "espcn_64_x2": (33.003, 0.89341), "espcn_64_x4": (30.441, 0.81967),
    "espcn_8_x2": (32.730, 0.88418), "espcn_8_x4": (30.123, 0.80724), "fsrcnn_x2": (33.445, 0.89967),
    "fsrcnn_x4": (30.738, 0.82931), "ldcsr_kd_small": (30.744, 0.82780), "ldcsr_small": (30.735, 0.82729),
    "one_step_small_x4": (25.745, 0.68218),
}  # fmt: skip


def test_there_are_some():
    assert {spec["args"]["scale"] for spec in SPECS.values()} >= {4}


def cases(paths: list[Path]) -> pytest.MarkDecorator:
    """Every file, those of diffusion systems where their libraries are installed."""
    marks = {path: needs_generative if SPECS[path]["name"] in ONLY_BY_NAME else () for path in paths}
    return pytest.mark.parametrize("path", [pytest.param(p, marks=marks[p], id=p.stem) for p in paths])


@cases([*SPECS])
def test_configurations_get_them_by_name_and_arguments(path: Path):
    args = dict(SPECS[path]["args"])
    scale = args.pop("scale")
    assert shipped_file(network_of_role("sr_quality", SPECS[path])) == path and path.with_suffix(".md").is_file()
    assert path.stat().st_size < 8e6
    network = build_or_load_sr(NetworkConfig(SPECS[path]["name"], args, SHIPPED), scale)
    assert network.scale == scale and network.spec["name"] == SPECS[path]["name"] and not network.training


@needs_generative
def test_a_network_for_any_scale_is_found_whatever_the_scale():
    path = next(path for path in SPECS if path.stem == "ldcsr_kd_small")
    args = {key: value for key, value in SPECS[path]["args"].items() if key != "scale"}
    for weights in (SHIPPED, str(path)):
        network = build_or_load_sr(NetworkConfig("ldcsr_kd", args, weights), 2.5)
        assert network.scale == 2.5 and network.spec["args"]["scale"] == 2.5 and not network.training
        stored = load_sr(path).state_dict()
        assert all(torch.equal(tensor, stored[name]) for name, tensor in network.state_dict().items())


def stated_on(name: str, path: Path) -> re.Match | None:
    """PSNR and SSIM on a data set in a card."""
    return re.search(rf"^\| {name} \| (\S+) dB / (\S+):", path.with_suffix(".md").read_text(), re.MULTILINE)


@cases([path for path in SPECS if stated_on("Set5", path)])
def test_they_reach_what_their_cards_say(shared_data, path: Path):
    set5, scale = shared_data("sr_bench") / "Set5", SPECS[path]["args"]["scale"]
    stated = stated_on("Set5", path)
    measured = benchmark(load_sr(path), validation_sets([set5], [scale], 10**8), torch.device("cpu"))
    assert measured["psnr/Set5"] == pytest.approx(float(stated[1]), abs=0.011)
    if SPECS[path]["name"] not in ONLY_BY_NAME:
        assert measured["psnr/Set5"] > BICUBIC_SET5[scale] + 0.3
    else:  # it invents detail, or only shows that it runs: its card says what plain interpolation reaches
        bicubic = re.search(r"[Bb]icubic interpolation reaches (\S+) dB", path.with_suffix(".md").read_text())
        assert float(bicubic[1]) == pytest.approx(BICUBIC_SET5[scale], abs=0.011)
    assert measured["ssim/Set5"] == pytest.approx(float(stated[2]), abs=0.0002)


@pytest.fixture(scope="module")
def drawn_benchmark(tmp_path_factory) -> Path:
    return draw_sr_benchmark(tmp_path_factory.mktemp("drawn") / "Drawn3", (2, 4))


@cases([*SPECS])
def test_they_have_their_figures_on_a_drawn_benchmark(drawn_benchmark: Path, path: Path):
    """As on Set5, where that is at hand; every machine can draw this one."""
    sets = validation_sets([drawn_benchmark], [SPECS[path]["args"]["scale"]], 10**6)
    measured = benchmark(load_sr(path), sets, torch.device("cpu"))
    psnr, ssim = DRAWN[path.stem]
    assert measured["psnr/Drawn3"] == pytest.approx(psnr, abs=0.02)
    assert measured["ssim/Drawn3"] == pytest.approx(ssim, abs=0.0005)


@pytest.mark.parametrize("images", [2, pytest.param(160, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "path", [path for path in SPECS if stated_on("hit_uav_test", path)], ids=lambda path: path.stem
)
def test_infrared_ones_beat_bicubic_interpolation_in_both_measures(
    shared_data, tmp_path: Path, path: Path, images: int
):
    files = sorted((shared_data("hit_uav") / "images" / "test").iterdir())
    folder = tmp_path / "hit_uav_test"
    folder.mkdir()
    for file in files[:: len(files) // images]:
        (folder / file.name).symlink_to(file)
    sets = validation_sets([folder], [4], 10**8)
    measured, bicubic = (benchmark(network, sets, torch.device("cpu")) for network in (load_sr(path), Bicubic(4)))
    assert measured["psnr/hit_uav_test"] > bicubic["psnr/hit_uav_test"] + 1
    assert measured["ssim/hit_uav_test"] > bicubic["ssim/hit_uav_test"] + 0.005
    if images == len(files):
        stated = stated_on("hit_uav_test", path)
        assert measured["psnr/hit_uav_test"] == pytest.approx(float(stated[1]), abs=0.011)
        assert measured["ssim/hit_uav_test"] == pytest.approx(float(stated[2]), abs=0.0002)


def test_what_is_not_shipped_is_refused_with_a_list():
    with pytest.raises(ValueError, match=r"there are none for edsr\(.*n_feats=5.*shipped are .*edsr\("):
        build_or_load_sr(NetworkConfig("edsr", {"n_feats": 5}, SHIPPED), 4)
    with pytest.raises(ValueError, match="none are shipped for x7, only for x"):
        strongest_shipped(7)


def test_a_damaged_one_is_named(tmp_path: Path, monkeypatch):
    (tmp_path / "a.safetensors").write_text("version https://git-lfs.github.com/spec/v1")
    monkeypatch.setattr("loading.shipped_weights.FOLDER", tmp_path)
    with pytest.raises(CheckpointError, match=r"a\.safetensors: damaged .* restore it from the repository"):
        strongest_shipped(4)


def test_sr_only_works_without_naming_weights(tmp_path: Path, capsys):
    draw_photographs(tmp_path / "images", images=1, size=(20, 16))
    options = ["--source", str(tmp_path / "images"), "--out", str(tmp_path / "out"), "--device=cpu"]
    assert main(["--sr-only", *options]) == 0
    assert strongest_shipped(None).name in capsys.readouterr().out


def test_the_default_is_no_diffusion_system_however_large(tmp_path: Path, monkeypatch):
    from safetensors.torch import save_file

    for name, size in (("espcn", 10), ("difiisr_dwt", 1000)):
        header = {"name": name, "args": '{"scale": 4}'}
        save_file({"x": torch.zeros(size)}, tmp_path / f"{name}.safetensors", header)
    monkeypatch.setattr("loading.shipped_weights.FOLDER", tmp_path)
    assert strongest_shipped(None) == tmp_path / "espcn.safetensors" and len(shipped_specs()) == 2


def test_checksums_are_those_of_the_files_and_are_looked_at(tmp_path, monkeypatch):
    listed = dict(line.split()[::-1] for line in (FOLDER / SUMS).read_text().splitlines())
    assert listed == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in FOLDER.glob("*.safetensors")}
    for name in ("espcn_8_x4.safetensors", SUMS):
        shutil.copy(FOLDER / name, tmp_path / name)
    monkeypatch.setattr("loading.shipped_weights.FOLDER", tmp_path)
    load_sr(tmp_path / "espcn_8_x4.safetensors")
    content = bytearray((tmp_path / "espcn_8_x4.safetensors").read_bytes())
    content[-100] ^= 1
    (tmp_path / "espcn_8_x4.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"espcn_8_x4\.safetensors: is not as it was published"):
        load_sr(tmp_path / "espcn_8_x4.safetensors")
