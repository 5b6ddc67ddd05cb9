"""A deployed detector and pictures: boxes without any training, from the command line and from Python."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import inference
from loading.deployed_detector import load_deployed_detector
from models import build_sr
from models.detector_yolo import YoloDetector
from models.single_sr import SingleSR
from models.system import ConditionalSRDetector
from prediction.api import ConditionalYOLO
from tests.prediction.running import NAMES, entries, noise
from tests.test_evaluate import talkative_detector
from utils.checkpoint import save_network
from utils.errors import UserError


@pytest.fixture(scope="module")
def deployed(tmp_path_factory) -> Path:
    """An Ultralytics file, as training leaves it: the whole network, in half precision."""
    path = tmp_path_factory.mktemp("deployed") / "best.pt"
    torch.save({"model": copy.deepcopy(talkative_detector(NAMES).net).half(), "train_args": {}}, path)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for index, size in enumerate([(17, 23), (16, 24)]):
        Image.fromarray(noise(*size, 3, seed=index)).save(tmp_path / "images" / f"{index}.png")
    return tmp_path / "images"


def run(deployed: Path, images: Path, out: Path, *options: str) -> int:
    argv = ["--detector", str(deployed), "--source", str(images), "--out", str(out), "--device", "cpu", *options]
    return inference.main([*argv, "--save-json", "--conf", "0.01"])


def test_from_the_command_line(deployed, images, tmp_path, capsys):
    assert run(deployed, images, tmp_path / "out", "--sr", "shipped", "--scale", "4") == 0
    assert "2 files, 2 images" in capsys.readouterr().out
    found = entries(tmp_path / "out")
    model = ConditionalYOLO(detector=deployed, device="cpu")
    for path in sorted(images.iterdir()):
        (result,) = model.predict(path, conf=0.01)
        assert result.kept_share == 0 and len(found[str(path)]["detections"]) == len(result) > 0


def test_policies_that_need_no_masker(deployed, images):
    model = ConditionalYOLO(detector=str(deployed), sr="shipped", scale=4, device="cpu")
    assert list(model.policies()) == ["all_fast", "all_quality", "random=R", "edge=R"] and model.scale == 4
    assert model.conditional and not model.has_masker and model.names == dict(enumerate(NAMES))
    policies = ("all_quality", "random=0.5", "edge=0.5")
    assert [model.predict(images / "1.png", policy)[0].kept_share for policy in policies] == [1, 0.5, 0.5]
    assert model.upscale(images / "1.png", "all_quality")[0].shape == (64, 96, 3)
    for policy in ("learned", "threshold=0.5", "budget=0.25", "latency_ms=40"):
        with pytest.raises(UserError, match=r"asks a masker, and none was trained .* all_fast, all_quality, random=R"):
            model.predict(images / "1.png", policy)


def test_one_network_everywhere_equals_a_system_that_was_saved(deployed, images, tmp_path):
    system = ConditionalSRDetector(SingleSR(build_sr("bicubic", 2)), load_deployed_detector(deployed))
    save_network(tmp_path / "system.pth", "system", "system", system.spec["args"], system.state_dict(), {})
    saved = ConditionalYOLO(tmp_path / "system.pth", device="cpu")
    put_together = ConditionalYOLO(detector=deployed, sr="bicubic", scale=2, device="cpu")
    assert put_together.policies() == {} and put_together.scale == 2
    for path in sorted(images.iterdir()):
        expected, found = (model.predict(path, conf=0.01)[0] for model in (saved, put_together))
        np.testing.assert_array_equal(found.boxes.data, expected.boxes.data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--policy", "budget=0.25"], "policy budget=0.25 asks a masker, and none was trained"),
        (["--policy", "budgets"], "unknown kind 'budgets'"),
        (["--weights", "a.pth"], "detector stands instead of weights"),
        (["--sr-only"], "detector stands instead of weights"),
        (["--scale", "2.5"], "before a detector it must be a whole number"),
        (["--sr", "bicubic", "--save-mask"], "this system has no masker; leave out --save_mask"),
        (["--sr", "bicubic", "--halo", "2"], "this system has no masker; leave out --halo"),
        (["--profile", "a.json"], "no latency profile fits it"),
        (["--tile", "16"], "belong to --sr-only"),
        (["--detector-model", "yolo11n.yaml"], "says itself which network it holds"),
    ],
)
def test_refusals_are_one_line(deployed, images, tmp_path, capsys, options, message):
    assert run(deployed, images, tmp_path / "out", *options) == 2
    error = capsys.readouterr().err
    assert message in error and (error.count("\n") == 1 or "valid forms" in error)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "no weights given; name a checkpoint of stage 3 with --weights, or a detector with --detector"),
        (["--weights", "a.pth", "--sr", "bicubic"], "sr and detector_model belong to --detector"),
        (["--weights", "a.pth", "--scale", "2"], "scale belongs to --sr-only and --detector"),
    ],
)
def test_options_of_a_detector_without_one(argv, message, images, capsys):
    assert inference.main([*argv, "--source", str(images)]) == 2
    assert message in capsys.readouterr().err


def test_constructor_refusals(deployed):
    for options, message in (
        ({}, "give weights; or detector"),
        ({"weights": "a.pth", "sr": "shipped"}, "give weights; or detector"),
        ({"weights": "a.pth", "detector": deployed}, "detector stands instead of weights"),
        ({"detector": "nowhere.pt"}, "no such file"),
    ):
        with pytest.raises(UserError, match=message):
            ConditionalYOLO(device="cpu", **options)


def test_a_state_dict_as_hub_users_load_it(images, tmp_path):
    import hubconf

    torch.save(YoloDetector("yolov8n.yaml", NAMES).net.state_dict(), tmp_path / "plain.pt")
    model = hubconf.conditional_yolo(detector=tmp_path / "plain.pt", sr="espcn_8", scale=2, device="cpu")
    assert model.predict(images / "0.png")[0].sr.shape == (34, 46, 3)


def test_features_are_those_of_the_networks_before_the_detector(deployed):
    model, image = ConditionalYOLO(detector=deployed, sr="shipped", scale=4, device="cpu"), noise(17, 23, 3)
    assert model.features(image, "sr_fast", channels="rgb").shape == (16, 17, 23)
    assert model.features(image, channels="rgb").shape == (32, 17, 23)
