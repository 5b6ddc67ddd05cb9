"""loading/detector_weights.py: own checkpoints, Ultralytics files and state dicts give a detector; none runs code."""

from __future__ import annotations

import copy
import os
import pickle

import pytest
import torch

from loading.detector_weights import load_detector, read_weights
from models.detector_yolo import YoloDetector
from tests.lively_yolo import NAMES, build
from tests.loading.test_detector_weights import save
from utils.checkpoint import CheckpointError


@pytest.fixture(scope="module")
def small() -> YoloDetector:
    return build("yolov5nu.yaml")


def assert_same_weights(first: YoloDetector, second: YoloDetector) -> None:
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    assert all(name == other and torch.equal(a, b) for (name, a), (other, b) in pairs)


def test_backbone_of_a_plain_state_dict(shared_data, tmp_path):
    path = shared_data("weights") / "yolov5n_coco_state_dict_fp16.pt"
    detector, taken = load_detector("yolov5nu.yaml", path, NAMES)
    assert taken.startswith("342 of 427 tensors")
    stored = torch.load(path, weights_only=True)["state_dict"]
    own = detector.net.state_dict()
    assert own["model.0.conv.weight"].dtype == torch.float32
    assert torch.equal(own["model.23.cv3.conv.weight"], stored["model.23.cv3.conv.weight"].float())
    with pytest.raises(CheckpointError, match="names no network"):
        load_detector(str(path), None, NAMES)
    torch.save({"model.0.conv.weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"none of its 1 tensors fits yolov5n\.yaml"):
        load_detector("yolov5n.yaml", tmp_path / "other.pt", NAMES)


def test_backbone_of_a_state_dict_laid_out_as_the_public_yolov5n(small, tmp_path):
    """Half precision, in a nest, with the anchor-based head of its time, which is left out."""
    path, head = tmp_path / "yolov5n_coco_state_dict_fp16.pt", "model.24."
    stored = {name: x for name, x in small.net.state_dict().items() if not name.startswith(head)}
    stored = {name: torch.rand_like(x).half() if x.is_floating_point() else x for name, x in stored.items()}
    for level, maps in enumerate((64, 128, 256)):
        stored |= {f"{head}m.{level}.weight": torch.rand(255, maps, 1, 1).half()}
        stored |= {f"{head}m.{level}.bias": torch.rand(255).half()}
    torch.save({"state_dict": stored}, path)
    detector, taken = load_detector("yolov5nu.yaml", path, NAMES)
    assert taken.startswith("342 of 427 tensors") and taken.endswith("(348 there)")
    own = detector.net.state_dict()
    assert all(torch.equal(own[name], x.to(own[name].dtype)) for name, x in stored.items() if name in own)
    with pytest.raises(CheckpointError, match="names no network"):
        load_detector(str(path), None, NAMES)


def test_own_checkpoint_round_trip_and_disagreements(small, tmp_path):
    path = save(small, tmp_path / "yolo_pretrained_hr.pth")
    loaded, taken = load_detector("yolov5n.yaml", path, NAMES)
    assert_same_weights(loaded, small)
    assert taken.startswith("427 of 427")
    with pytest.raises(CheckpointError, match="its classes are"):
        load_detector("yolov5n.yaml", path, ["bright", "dark", "odd"])
    with pytest.raises(CheckpointError, match=r"set detector\.model to yolov5n\.yaml"):
        load_detector("yolov8n.yaml", path, NAMES)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="truncated"):
        load_detector("yolov5n.yaml", path, NAMES)


def test_ultralytics_pt_as_model_and_as_weights(small, tmp_path):
    path = tmp_path / "some.pt"
    torch.save({"model": copy.deepcopy(small.net), "train_args": {}}, path)
    whole, _ = load_detector(str(path))
    assert whole.names == tuple(NAMES)
    assert_same_weights(whole, small)
    fewer, taken = load_detector("yolov5n.yaml", path, ["only"])
    assert taken.startswith("421 of 427")  # all but the class layers of three levels
    assert fewer.names == ("only",)


def test_missing_foreign_and_malicious_files(tmp_path):
    with pytest.raises(CheckpointError, match=r"github\.com/ultralytics"):
        load_detector("yolov5n.yaml", tmp_path / "yolo11n.pt", NAMES)
    (tmp_path / "w.bin").write_bytes(b"1")
    with pytest.raises(CheckpointError, match=r"w\.bin: cannot be read safely"):
        read_weights(tmp_path / "w.bin")

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    torch.save({"model": Evil()}, tmp_path / "evil.pth")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps({"model": Evil()}))
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "junk.pt").write_bytes(b"junk" * 100)
    for name in ("evil.pt", "evil.pth", "bare.pt", "empty.pt", "junk.pt"):
        for model, weights in (("yolov5n.yaml", tmp_path / name), (str(tmp_path / name), None)):
            with pytest.raises((CheckpointError, ValueError), match=name):
                load_detector(model, weights, NAMES)
    assert not (tmp_path / "executed").exists()
