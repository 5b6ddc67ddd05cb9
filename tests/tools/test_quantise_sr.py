"""tools/quantise_sr.py: a weight file or a system in 8-bit integers, which everything that reads weights takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from configs.schema import NetworkConfig, Stage2Config
from configs.stage3_schema import Stage3Config
from loading.load_sr import load_sr
from loading.systems import load_system, refuse_trained_integers
from models import build_sr
from models.conditional_sr import ConditionalSR
from models.detector_yolo import YoloDetector
from models.execution import Execution
from models.masker import Masker
from models.single_sr import SingleSR
from models.system import ConditionalSRDetector
from tools.quantise_sr import main
from training.sr_training import build_network
from utils.checkpoint import CheckpointError, save_network
from utils.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Some images, and the 8-bit form of a shipped network."""
    folder = tmp_path_factory.mktemp("int8")
    random = np.random.default_rng(0)
    for number in range(3):
        smooth = cv2.resize(random.integers(0, 256, (5, 6, 3), np.uint8), (40, 32))
        (folder / "images").mkdir(exist_ok=True)
        cv2.imwrite(str(folder / "images" / f"{number}.png"), smooth)
    assert quantise("edsr_2x16", folder, folder / "sr.safetensors") == 0
    return folder


def quantise(weights, folder: Path, out: Path) -> int:
    return main(["--weights", str(weights), "--scale", "4", "--data", str(folder / "images"), "--out", str(out)])


@torch.no_grad()
def test_the_file_holds_scales_beside_integers_and_opens_as_a_network(folder: Path, capsys):
    assert quantise("edsr_2x16", folder, folder / "again.safetensors") == 0
    assert float(capsys.readouterr().out.split(": ")[-1].split(" dB")[0]) > 40
    held = load_file(folder / "again.safetensors")
    assert held["body.0.body.0.weight"].dtype == torch.int8
    network = load_sr(folder / "again.safetensors", 4)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, held[name]) and tensor.dtype == held[name].dtype, name
    lr = torch.nn.functional.interpolate(torch.rand(1, 3, 4, 4), size=(20, 20), mode="bilinear")
    assert torch.equal(network(lr), load_sr(folder / "sr.safetensors")(lr))
    assert (network(lr) - load_sr("weights/edsr_2x16_x4.safetensors")(lr)).abs().mean() < 0.02


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda held: held.pop("body.0.body.0.input_step"), "1 missing: body.0.body.0.input_step"),
        (lambda held: held["body.2.weight_step"].zero_(), r"broken\.safetensors: weight_step .* is \[0.0, 0.0"),
        (lambda held: held["body.2.input_step"].fill_(float("nan")), "NaN or infinite values"),
    ],
)
def test_missing_and_wrong_scales_name_the_file(folder: Path, tmp_path: Path, change, message: str):
    held = load_file(folder / "sr.safetensors")
    change(held)
    args = '{"scale": 4, "n_blocks": 2, "n_feats": 16}'
    save_file(held, tmp_path / "broken.safetensors", {"name": "edsr_int8", "args": args})
    with pytest.raises(CheckpointError, match=message):
        load_sr(tmp_path / "broken.safetensors")


@pytest.mark.parametrize("conditional", [True, False])
def test_a_system_keeps_all_but_its_sr_quality(folder: Path, tmp_path: Path, conditional: bool):
    quality = load_sr("weights/edsr_2x16_x4.safetensors")
    front = SingleSR(quality)
    if conditional:
        front = ConditionalSR(Masker(8), build_sr("espcn", 4, {"n_feats": 4}), quality, Execution(2))
    system = ConditionalSRDetector(front, YoloDetector("yolo11n.yaml", ["a"])).eval()
    file = tmp_path / "system.pth"
    save_network(file, "system", system.spec["name"], system.spec["args"], system.state_dict(), {"stage": 3})
    assert quantise(file, folder, tmp_path / "int8.pth") == 0
    made = load_system(tmp_path / "int8.pth")
    role = "sr_quality" if conditional else "sr"
    assert made.front.networks[role].spec["name"] == "edsr_int8"
    before, after = system.state_dict(), made.state_dict()
    body = "front.sr_quality.body" if conditional else "front.body"
    kept = [name for name in before if not name.startswith(body)]
    assert len(kept) > 400 and all(torch.equal(before[name], after[name]) for name in kept)
    config = Stage3Config(sr="conditional" if conditional else "sr_quality")
    with pytest.raises(UserError, match="sr_quality edsr_int8 is computed in integers and not trained"):
        refuse_trained_integers(made.front, config)
    refuse_trained_integers(made.front, replace(config, freeze=["sr_quality"]))


def test_stage_2_does_not_train_it():
    config = Stage2Config(sr_quality=NetworkConfig("edsr_int8"))
    with pytest.raises(UserError, match="sr_quality: edsr_int8 is computed in integers and not trained"):
        build_network("sr_quality", config.sr_quality, config)


def test_what_cannot_be_written_is_said(folder: Path, tmp_path: Path):
    with pytest.raises(UserError, match="is there already; name another --out"):
        quantise("edsr_2x16", folder, folder / "sr.safetensors")
    with pytest.raises(UserError, match=r"must end in \.safetensors, since edsr_2x16 is a network"):
        quantise("edsr_2x16", folder, tmp_path / "a.pth")
    with pytest.raises(UserError, match="espcn has no 8-bit form"):
        quantise("espcn_8", folder, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())
