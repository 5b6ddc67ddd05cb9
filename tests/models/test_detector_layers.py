"""Every detection model that Ultralytics ships is built of allowed layers; others are refused before building."""

from __future__ import annotations

import pytest
import yaml

from models.detector_layers import LAYERS, check_layers
from models.detector_yolo import SHIPPED, model_yaml
from utils.errors import UserError

NAMES = sorted(
    file.name
    for file in (SHIPPED / "models").rglob("*.yaml")
    if yaml.safe_load(file.read_text(encoding="utf-8")).get("head", [[0] * 4])[-1][2] in ("Detect", "v10Detect")
)
GOOD = {"nc": 2, "backbone": [[-1, 1, "Conv", [8, 3, 2]]], "head": [[[0], 1, "Detect", ["nc"]]]}


def test_shipped_models_pass():
    assert len(NAMES) > 15
    for name in NAMES:
        assert {row[2] for part in ("backbone", "head") for row in model_yaml(name)[part]} <= LAYERS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": [[-1, 1, "TorchVision", [512, "resnet18"]]]}, "layer 0 is 'TorchVision', which no detector"),
        ({"backbone": [[-1, 1, "torch_safe_load", ["x.pt"]]]}, "layer 0 is 'torch_safe_load'"),
        ({"backbone": [[-1, 1, "torchvision.ops.misc", []]]}, "layer 0 is"),
        ({"backbone": [[-1, 1, ["Conv"], []]]}, "layer 0 is"),
        ({"backbone": [[-1, 10**9, "C3", [8]]]}, "is repeated 1000000000 times"),
        ({"backbone": [[-1, 1, "Conv", [10**9]]]}, "1000000000, more than 16384"),
        ({"backbone": [[-1, 1, "Conv", ["1e9"]]]}, "'1e9' is no number and no word"),
        ({"backbone": [[-1, 1, "Conv", [[[[[[1]]]]]]]]}, "nested or listed too far"),
        ({"backbone": [[-1, 1, "Conv", [1] * 101]]}, "nested or listed too far"),
        ({"backbone": [[-1, 1, "Conv", [8]]] * 600}, "601 layers"),
        ({"backbone": "none"}, "backbone is no list"),
        ({"width_multiple": 1e6}, "multiple of depth or width"),
        ({"scales": {"n": [1, 1e6, 8]}}, "multiple of depth or width"),
        ({"scales": {"n": 3}}, "scales are no lists"),
        ({"channels": 10**9}, "other than 3 channels"),
        ({"ch": 1}, "other than 3 channels"),
    ],
)
def test_what_is_refused(change: dict, message: str):
    check_layers(GOOD, "m")
    with pytest.raises(UserError, match=message):
        check_layers(GOOD | change, "m")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nc: [1\nbackbone: ]", r"m\.yaml:2: "),
        (b"nc: " + b"[" * 20_000, r"m\.yaml:1: nested too deeply"),
        (b"nc: \xff", r"m\.yaml:1: not UTF-8"),
        (b"nc: !!python/object/apply:os.system ['true']", r"m\.yaml:1: tag .* is not allowed"),
        (b"nc: 1\nnc: 2\n", r"m\.yaml:2: duplicate key nc"),
        (b"", r"m\.yaml' is no model description"),
    ],
)
def test_a_damaged_yaml_is_named_with_its_line(tmp_path, content: bytes, message: str):
    (tmp_path / "m.yaml").write_bytes(content)
    with pytest.raises(UserError, match=message):
        model_yaml(str(tmp_path / "m.yaml"))
