"""What users of `yolo predict` type, and what inference.py makes of it."""

from __future__ import annotations

from dataclasses import fields

import pytest

import inference
from configs.inference_schema import InferenceConfig
from prediction.command_line import ALIASES, ELSEWHERE, KINDS, check_options, out_folder, translate
from utils.config import parse_config
from utils.errors import UserError


def parsed(*argv: str) -> InferenceConfig:
    return parse_config(InferenceConfig, "", translate([*argv]))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["conf=0.3", "save-txt=True"], ["--conf=0.3", "--save-txt=True"]),
        (["--half", "conf=0.3"], ["--half", "--conf=0.3"]),
        (["--save-txt", "batch=2"], ["--save-txt", "--batch=2"]),
        (["--policy", "budget=0.25"], ["--policy", "budget=0.25"]),
        (["policy=budget=0.25"], ["--policy=budget=0.25"]),
        (["--out", "conf=1"], ["--out", "conf=1"]),
        (["--out=a", "conf=1"], ["--out=a", "--conf=1"]),
        (["--config", "a.yaml", "nothing=1"], ["--config", "a.yaml", "--nothing=1"]),
        (["a.yaml"], ["a.yaml"]),
        (["--half", "true", "x"], ["--half", "true", "x"]),
    ],
)
def test_spellings_of_yolo_predict(given, expected):
    assert translate(given) == expected


@pytest.mark.parametrize(
    ("argv", "source"),
    [
        (["--source", "a.png"], "a.png"),
        (["--source", "a.png", "b c.png"], ["a.png", "b c.png"]),
        (["--source", "a.png", "--source", "b.png"], ["a.png", "b.png"]),
        (["source=a.png", "--source=b,c.png"], ["a.png", "b,c.png"]),
        (["--source", "a.png", "b.png", "conf=0.5"], ["a.png", "b.png"]),
        (["--source", "[a.png, b.png]"], ["a.png", "b.png"]),
        (["--source", "x[1].png", "[2].png"], ["x[1].png", "[2].png"]),
        (["--source", "0"], "0"),
        (["--source", 'a"b.png', "ü.png"], ['a"b.png', "ü.png"]),
    ],
)
def test_several_sources(argv, source):
    assert parsed(*argv).source == source


@pytest.mark.parametrize(
    ("argv", "classes"),
    [
        (["--classes", "0", "2"], [0, 2]),
        (["classes=0"], 0),
        (["classes=0,2"], [0, 2]),
        (["classes=[0,2]"], [0, 2]),
        (["--classes", "0", "--classes", "2"], [0, 2]),
        (["--classes=1", "2", "--half"], [1, 2]),
        ([], None),
    ],
)
def test_classes(argv, classes):
    assert parsed(*argv).classes == classes


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_option_can_be_written_as_key_and_value(name):
    kind = KINDS[name]
    value = "true" if kind == "bool" else "null" if "None" in kind else str(getattr(InferenceConfig, name))
    for spelling in (name, name.replace("_", "-")):
        assert getattr(parsed(f"{spelling}={value}"), name) == getattr(parsed(f"--{name}={value}"), name)


@pytest.mark.parametrize(
    ("argv", "name", "value"),
    [
        (["save=False"], "save_images", False),
        (["--nosave"], "save_images", False),
        (["show_labels=False"], "hide_labels", True),
        (["--show-conf", "True"], "hide_conf", False),
        (["--conf-thres", "0.5"], "conf", 0.5),
        (["--line-thickness", "3"], "line_width", 3),
        (["--hide-labels", "--half"], "hide_labels", True),
        (["--line-width", "3"], "line_width", 3),
        (["--agnostic-nms"], "agnostic_nms", True),
    ],
)
def test_names_of_ultralytics(argv, name, value):
    assert getattr(parsed(*argv), name) == value


def test_aliases_lead_somewhere_and_hide_nothing():
    names = {field.name for field in fields(InferenceConfig)}
    assert {target.removeprefix("!") for target in ALIASES.values()} <= names
    assert not names & (ALIASES.keys() | ELSEWHERE.keys())


def test_what_is_elsewhere_is_said(capsys):
    assert inference.main(["imgsz=640"]) == 2
    assert "--imgsz; images are taken as large as they are" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "suggested"),
    [
        ("--save-croop", "--save_crop?"), ("--SAVE-TXT", "--save_txt?"), ("--hide_label", "--hide_labels?"),
        ("--cnof", "--conf?"), ("clases=0", "--classes?"), ("--save-video", None), ("--keep-crops", None),
        ("--file", None), ("--show-masks", None), ("--hide-boxes", None), ("nothing=1", None), ("--save_tensor", None),
    ],
)  # fmt: skip
def test_suggestions_are_the_same_thing_or_none(capsys, option, suggested):
    with pytest.raises(SystemExit):
        parsed(option, "1") if "=" not in option else parsed(option)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "unknown option" in error
    assert suggested in error if suggested else "did you mean" not in error, error


def test_project_and_name():
    assert out_folder(parsed("project=p", "name=n")).as_posix() == "p/n"
    assert out_folder(parsed("--project", "p")).as_posix() == "p/inference"
    assert out_folder(parsed("--name", "n")).as_posix() == "runs/n"
    assert out_folder(parsed()).as_posix() == "runs/inference"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--sr-only", "--save-crop"], "save_crop belong to detection"),
        (["--sr-only", "--backend", "openvino"], "backend belong to detection"),
        (["--sr-only", "--batch", "4", "--conf", "0.5", "save=False"], "save_images, conf, batch belong to detection"),
        (["--sr-only", "--classes", "0"], "classes belong to detection"),
        (["--weights", "w", "--save-conf"], "save_conf adds the score"),
    ],
)
def test_options_that_exclude_each_other(argv, message):
    with pytest.raises(UserError, match=message):
        check_options(parsed(*argv))
