"""Every number of every configuration has its bound on its field, and both sources keep to it."""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import yaml

from configs.bounds import Range
from configs.compare_schema import AblationConfig, CompareConfig
from configs.evaluate_schema import EvaluateConfig, SlicedConfig
from configs.inference_schema import InferenceConfig
from configs.schema import Stage1Config, Stage2Config
from configs.sr_schema import EvaluateSRConfig
from configs.stage3_schema import Stage3Config
from utils.config import ConfigError, config_to_dict, load_config, parse_config

SCRIPTS = (
    *(Stage1Config, Stage2Config, Stage3Config, EvaluateConfig, EvaluateSRConfig, InferenceConfig),
    *(CompareConfig, AblationConfig),
)
each_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)


def keys(config: type, prefix: str = "") -> dict[str, Any]:
    """Dotted name of every key and its type, bounds included."""
    hints, found = get_type_hints(config, include_extras=True), {}
    for field in fields(config):
        kind = hints[field.name]
        nested = is_dataclass(kind)
        found |= keys(kind, f"{prefix}{field.name}.") if nested else {f"{prefix}{field.name}": kind}
    return found


def numbers(kind: Any, in_list: bool = False) -> list[tuple[type, Range | None, bool]]:
    """(int or float, its bound, whether it is an entry of a list) of all numbers in a type; free mappings have none."""
    if get_origin(kind) is Annotated:
        return [(get_args(kind)[0], get_args(kind)[1], in_list)]
    if kind in (int, float):
        return [(kind, None, in_list)]
    if get_origin(kind) is dict:
        return []
    inside = in_list or get_origin(kind) is list
    return [number for part in get_args(kind) for number in numbers(part, inside)]


def outside(kind: type, bound: Range) -> list[tuple[float, str]]:
    """The nearest numbers that a bound refuses, with the words for it."""
    found = []
    for end, is_open, words, away in (
        (bound.low, bound.open_low, bound.lower, -math.inf),
        (bound.high, bound.open_high, bound.upper, math.inf),
    ):
        if end is not None:
            step = int(math.copysign(1, away))
            number = end if is_open else int(end) + step if kind is int else math.nextafter(end, away)
            found.append((kind(number), words))
    return found


def as_yaml(name: str, value: Any) -> str:
    tree = value
    for part in reversed(name.split(".")):
        tree = {part: tree}
    return yaml.safe_dump(tree)


@each_script
def test_every_number_has_a_bound(script):
    missing = [name for name, kind in keys(script).items() if any(bound is None for _, bound, _ in numbers(kind))]
    assert not missing
    assert sum(len(numbers(kind)) for kind in keys(script).values()) >= 2


@each_script
def test_every_default_lies_within(script):
    default = config_to_dict(script())
    for name, kind in keys(script).items():
        value = default
        for part in name.split("."):
            value = value[part]
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int | float) and not isinstance(number, bool):
                assert any(bound.refusal(number) is None for _, bound, _ in numbers(kind)), (name, number)


@each_script
def test_a_number_just_outside_is_refused_with_key_and_bound(script, tmp_path: Path, capsys):
    file, refused = tmp_path / "c.yaml", 0
    for name, kind in keys(script).items():
        for number_type, bound, in_list in numbers(kind):
            for number, words in outside(number_type, bound):
                value = [number] if in_list else number
                with pytest.raises(SystemExit) as end:
                    parse_config(script, "", [f"--{name}={value}"])
                assert end.value.code == 2
                assert f"--{name} must be {words}, found {value}" in capsys.readouterr().err
                file.write_text(as_yaml(name, value))

                with pytest.raises(ConfigError) as error:
                    load_config(script, file)
                assert str(error.value).startswith(f"{file}:{name.count(chr(46)) + 1}: ")
                assert f"{name} must be {words}, found {value}" in str(error.value)
                refused += 1
    assert refused >= 2


@each_script
def test_the_ends_themselves_are_taken(script):
    for name, kind in keys(script).items():
        for number_type, bound, in_list in numbers(kind):
            for end, is_open in ((bound.low, bound.open_low), (bound.high, bound.open_high)):
                if end is not None and not is_open:
                    value = [number_type(end)] if in_list else number_type(end)
                    parse_config(script, "", [f"--{name}={value}"])


def test_sections_that_are_values_of_a_mapping_keep_their_bounds(tmp_path: Path):
    (tmp_path / "c.yaml").write_text("sliced:\n  two:\n    rows: 17\n")
    with pytest.raises(ConfigError, match=r"sliced\.two\.rows must be at most 16, found 17"):
        load_config(EvaluateConfig, tmp_path / "c.yaml")
    assert all(bound for kind in keys(SlicedConfig).values() for _, bound, _ in numbers(kind))


@pytest.mark.parametrize(
    ("bound", "words"),
    [
        (Range(4, 64), "4 to 64"),
        (Range(1), "at least 1"),
        (Range(None, 3), "at most 3"),
        (Range(0, 1, open_low=True), "above 0, at most 1"),
        (Range(0, 1, open_high=True), "at least 0, below 1"),
        (Range(), ""),
    ],
)
def test_bounds_in_words(bound: Range, words: str):
    assert str(bound) == words


def test_open_ends_leave_the_end_out():
    bound = Range(0, 1, open_low=True, open_high=True)
    assert [bound.refusal(x) for x in (0, 1e-300, 1)] == ["above 0", None, "below 1"]


def test_help_shows_the_bound_of_every_number(capsys):
    for script in SCRIPTS:
        with pytest.raises(SystemExit):
            parse_config(script, "", ["--help"])
        text = " ".join(capsys.readouterr().out.split())
        for name, kind in keys(script).items():
            start = text.index(f" --{name} ")
            entry = text[start : text.find(" --", start + 3) if " --" in text[start + 3 :] else None]
            for _, bound, _ in numbers(kind):
                assert f"({bound})" in entry, entry
