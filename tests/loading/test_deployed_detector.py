"""A deployed detector comes whole from whatever file it is in; a state dict is recognised by its shapes."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import yaml

from loading.deployed_detector import load_deployed_detector
from models.detector_yolo import YoloDetector
from tests.loading.test_detector_weights import assert_same_weights, save
from tests.loading.test_load import TINY
from utils.checkpoint import CheckpointError
from utils.errors import UserError


def state_dict(model: str | dict, names: tuple[str, ...], path: Path) -> YoloDetector:
    detector = YoloDetector(model, names).eval()
    torch.save(detector.net.state_dict(), path)
    return detector


@pytest.mark.parametrize("model", ["yolov5nu", "yolov9t", "yolo11s", "yolo26n"])
def test_state_dicts_are_recognised(model: str, tmp_path: Path, capsys):
    detector = state_dict(f"{model}.yaml", ("a", "b", "c"), tmp_path / "weights.pt")
    found = load_deployed_detector(tmp_path / "weights.pt")
    assert found.net.yaml["yaml_file"] == detector.net.yaml["yaml_file"] and not found.training
    assert found.names == ("class_0", "class_1", "class_2")
    assert_same_weights(found, detector)
    assert f"a state dict of {detector.net.yaml['yaml_file']} with 3 classes" in capsys.readouterr().out


def test_eighty_classes_are_those_of_coco_unless_others_are_named(tmp_path: Path):
    own = tuple(map(str, range(80)))
    state_dict("yolov8n.yaml", own, tmp_path / "weights.pt")
    assert load_deployed_detector(tmp_path / "weights.pt").names[:2] == ("person", "bicycle")
    assert load_deployed_detector(tmp_path / "weights.pt", names=own).names == own
    with pytest.raises(UserError, match="has 80 classes, but there are 2 names"):
        load_deployed_detector(tmp_path / "weights.pt", names=("a", "b"))


def test_files_that_say_what_they_are(tmp_path: Path):
    tiny = YoloDetector(TINY, ("cat", "dog")).eval()
    torch.save({"model": copy.deepcopy(tiny.net).half(), "train_args": {}}, tmp_path / "ultralytics.pt")
    save(tiny, tmp_path / "own.pth")
    for name in ("ultralytics.pt", "own.pth"):
        found = load_deployed_detector(tmp_path / name, names=("what", "ever", "else"))
        assert found.names == ("cat", "dog") and next(found.parameters()).dtype == torch.float32
        with pytest.raises(UserError, match="says itself which network it holds; leave out the model"):
            load_deployed_detector(tmp_path / name, "yolo11n.yaml")
    assert_same_weights(found, tiny)


def test_the_public_yolo11n(shared_data):
    found = load_deployed_detector(shared_data("weights") / "yolo11n_coco_state_dict_fp16.pt")
    assert found.net.yaml["yaml_file"] == "yolo11n.yaml" and found.names[79] == "toothbrush"


def test_a_state_dict_laid_out_as_the_public_yolo11n(tmp_path: Path):
    """Half precision, in a nest, 80 classes and no word about what it is."""
    detector = YoloDetector("yolo11n.yaml", tuple(map(str, range(80)))).eval()
    half = {name: x.half() if x.is_floating_point() else x for name, x in detector.net.state_dict().items()}
    torch.save({"state_dict": half}, tmp_path / "yolo11n_coco_state_dict_fp16.pt")
    found = load_deployed_detector(tmp_path / "yolo11n_coco_state_dict_fp16.pt")
    assert found.net.yaml["yaml_file"] == "yolo11n.yaml" and found.names[79] == "toothbrush"
    for name, x in found.net.state_dict().items():
        assert torch.equal(x, half[name].to(x.dtype)) and x.dtype != torch.float16


def test_what_is_not_whole_is_refused(tmp_path: Path):
    path = tmp_path / "weights.pt"
    tiny = state_dict(TINY, ("cat", "dog"), path)
    with pytest.raises(CheckpointError, match=r"none of the models that Ultralytics ships \(6 layers, 2 classes\)"):
        load_deployed_detector(path)
    tensors = tiny.net.state_dict()
    for faulty, message in (
        ({key: x for key, x in tensors.items() if ".bn." not in key}, "missing or of another shape .*not fused"),
        (tensors | {"model.0.conv.weight": torch.full_like(tensors["model.0.conv.weight"], torch.nan)}, "NaN"),
    ):
        torch.save(faulty, path)
        with pytest.raises(CheckpointError, match=message):
            load_deployed_detector(path, model_file(tmp_path))
    torch.save({"model.24.m.0.weight": torch.zeros(3), "model.0.conv.weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match=r"without the head .* \(its last layer has model.24.m.0.weight\)"):
        load_deployed_detector(path)
    with pytest.raises(CheckpointError, match="no such file"):
        load_deployed_detector(tmp_path / "nowhere.pt")


def test_a_yaml_tells_what_cannot_be_recognised(tmp_path: Path):
    tiny = state_dict(TINY, ("cat", "dog"), tmp_path / "weights.pt")
    assert_same_weights(load_deployed_detector(tmp_path / "weights.pt", model_file(tmp_path)), tiny)


def model_file(folder: Path) -> str:
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    return str(folder / "tiny.yaml")
