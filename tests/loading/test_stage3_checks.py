"""Keys of stage 3 that make no sense together are refused, with the keys and a remedy; sensible ones pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from configs.schema import DetectionDataConfig, NetworkConfig
from configs.stage3_schema import LossConfig, MaskerConfig, Stage3Config
from loading.stage3_checks import FRONT_PARTS, check_stage3, some_get_no_gradient

FROZEN = {"mode": "frozen_detector"}
ONLY = {"mode": "detector_only", "sr": "bicubic"}


@pytest.fixture
def config(tmp_path: Path) -> Stage3Config:
    (tmp_path / "data.yaml").write_text("")
    return Stage3Config(data=DetectionDataConfig(yaml=str(tmp_path / "data.yaml")))


def changed(config: Stage3Config, options: dict) -> Stage3Config:
    sections = {"data": {}, "losses": {}, "masker": {}}
    own = {key: value for key, value in options.items() if "." not in key}
    for key, value in options.items():
        if "." in key:
            section, name = key.split(".")
            sections[section][name] = value
    return replace(
        config,
        data=replace(config.data, **sections["data"]),
        losses=LossConfig(**sections["losses"]),
        masker=MaskerConfig(**sections["masker"]),
        **own,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "detector_only"}, "detector_only trains no masker"),
        (FROZEN | {"sr": "bicubic"}, "leaves nothing to train"),
        ({"losses.det": 0.0}, r"mode joint with losses\.det 0 .* losses\.distill"),
        ({"losses.det": 0.0, "losses.rec": 1.0}, r"no loss term that trains the detector"),
        (ONLY | {"losses.det": 0.0}, "mode detector_only with losses"),
        (FROZEN | {"losses.det": 0.0}, "has nothing to learn from"),
        ({"data.label_share": 0.1, "data.unlabelled": True}, r"data\.unlabelled .* no loss term learns from them"),
        (ONLY | {"data.label_share": 0.1, "data.unlabelled": True, "losses.rec": 1.0}, "no loss term learns"),
        (FROZEN | {"losses.hr_share": 0.5}, r"losses\.hr_share trains the detector .* set 0"),
        (
            {"data.unlabelled": True, "data.label_share": 0.1, "losses.rec": 1.0, "losses.hr_share": 0.5},
            "HR images without labels teach the detector nothing",
        ),
        ({"data.lr": "native", "losses.rec": 1.0}, r"losses\.rec needs HR images, but data\.lr is native"),
        ({"data.lr": "native", "losses.distill": 1.0}, r"losses\.distill needs HR images"),
        ({"data.lr": "native", "losses.distill_outputs": 1.0}, r"losses\.distill_outputs needs HR images"),
        ({"data.lr": "native", "losses.hr_share": 0.5}, r"losses\.hr_share needs HR images"),
        ({"masker.budget_dropout": [0.5]}, r"masker\.budget_dropout is \[0\.5\]; give \[lowest, highest\]"),
        ({"masker.budget_dropout": [0.5, 0.1]}, "lowest, highest"),
        (
            FROZEN | {"losses.det": 0.0, "losses.rec": 1.0},
            r"losses\.objects with losses\.det 0 takes its",
        ),
        (ONLY | {"start": "warm.pth"}, "sr bicubic has none: set start to null"),
        ({"sr": "sr_quality", "freeze": ["sr_quality"]}, "freeze names parts of a conditional front end, but sr is"),
        (FROZEN | {"freeze": [*FRONT_PARTS], "start": "warm.pth"}, r"freeze \[.*\] leaves nothing to train"),
        ({"freeze": ["masker"]}, "masker would stay as it was drawn, untrained: name start, or"),
        ({"freeze": ["sr_quality"]}, r"sr_quality would stay as it was drawn.*name start or sr_quality\.weights"),
        ({"freeze": ["masker"], "start": "warm.pth", "masker.shared_stem": True}, "freeze sr_fast too, or neither"),
        (FROZEN | {"losses.alternate": True}, r"losses\.alternate .* only one of them learns \(mode frozen_detector"),
        (ONLY | {"losses.alternate": True}, r"losses\.alternate .* only one of them learns"),
        ({"sr": "bicubic", "losses.alternate": True}, r"losses\.alternate .* only one of them learns"),
        (
            {"freeze": [*FRONT_PARTS], "start": "warm.pth", "losses.alternate": True},
            r"losses\.alternate .* only one of them learns",
        ),
        ({"losses.alternate": True, "losses.hr_share": 0.5}, r"losses\.hr_share is 0\.5, .* set less than 0\.5"),
        (
            {"losses.alternate": True, "data.unlabelled": True, "data.label_share": 0.1, "losses.rec": 1.0},
            r"losses\.alternate with data\.unlabelled: images without labels teach the detector nothing",
        ),
        (
            {"freeze": [*FRONT_PARTS], "start": "warm.pth", "data.unlabelled": True, "data.label_share": 0.1}
            | {"losses.rec": 1.0},
            "no loss term learns from them",
        ),
        ({"losses.sparsity": "latency"}, r"needs losses\.latency_ms and losses\.profile"),
    ],
)
def test_refused(config, options, message):
    with pytest.raises(ValueError, match=message):
        check_stage3(changed(config, options))


@pytest.mark.parametrize(
    "options",
    [
        {},
        ONLY,
        ONLY | {"losses.det": 0.0, "losses.distill_outputs": 1.0},
        FROZEN | {"losses.det": 0.0, "losses.distill": 1.0},
        FROZEN | {"losses.det": 0.0, "losses.rec": 1.0, "sr": "sr_quality"},
        FROZEN | {"losses.det": 0.0, "losses.rec": 1.0, "losses.objects": 0.0},
        {"start": "warm.pth"},
        {"losses.det": 0.0, "losses.distill": 1.0},
        {"data.label_share": 0.1},
        {"data.label_share": 0.1, "data.unlabelled": True, "losses.distill": 1.0, "losses.hr_share": 0.25},
        {"data.label_share": 0.1, "data.unlabelled": True, "losses.rec": 1.0},
        {"data.unlabelled": True},
        {"data.lr": "native"},
        {"masker.budget_dropout": [0.1, 0.1]},
        {"freeze": [*FRONT_PARTS], "start": "warm.pth"},
        FROZEN | {"freeze": ["sr_quality"], "sr_quality": NetworkConfig("edsr", weights="tuned.pth")},
        {"freeze": ["sr_fast"], "sr_fast": NetworkConfig("bicubic")},
        {"losses.alternate": True, "losses.hr_share": 0.25},
    ],
)
def test_accepted(config, options):
    check_stage3(changed(config, options))


def test_missing_data_set_is_named(config):
    with pytest.raises(FileNotFoundError, match=r"data\.yaml: 'nowhere\.yaml' does not exist"):
        check_stage3(replace(config, data=DetectionDataConfig(yaml="nowhere.yaml")))


def test_processes_look_for_resting_weights_only_where_some_rest(config):
    assert not some_get_no_gradient(config)
    for key, value in (("losses.hr_share", 0.1), ("losses.det", 0.0), ("data.unlabelled", True)):
        assert some_get_no_gradient(changed(config, {key: value})), key
