"""configs/evaluate_schema.py: slices by name, in files, on the command line and in --help."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.evaluate_schema import EvaluateConfig, SlicedConfig
from utils.config import ConfigError, load_config, parse_config, save_config


@pytest.mark.parametrize(
    "sliced, words",
    [
        ("{a: {weights: x, row: 2}}", "sliced.a: unknown key 'row'; did you mean rows?"),
        ("{a: {zzz: 2}}", "sliced.a: unknown key 'zzz'; valid keys here: weights, rows, columns"),
        ("{a: 3}", "sliced.a must be a mapping of the keys weights, rows"),
        ("{a: {rows: two}}", "sliced.a.rows must be a whole number, found 'two'"),
        ("{a: {rows: 0}}", "sliced.a.rows must be at least 1"),
        ("{a: {overlap: 1.0}}", "sliced.a.overlap must be at most 0.9"),
        ("{a: {match: union}}", "sliced.a.match must be one of ios, iou"),
        ("[1]", "sliced must be a mapping"),
    ],
)
def test_faulty_slices_are_named(tmp_path: Path, sliced: str, words: str, capsys):
    (tmp_path / "c.yaml").write_text(f"limit: 3\nsliced: {sliced}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(EvaluateConfig, tmp_path / "c.yaml")
    assert f"c.yaml:2: {words}" in str(caught.value)
    with pytest.raises(SystemExit):
        parse_config(EvaluateConfig, "", [f"--sliced={sliced}"])
    assert f"--{words}" in capsys.readouterr().err


def test_slices_survive_saving_and_help(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")  # whatever terminal the tests are run from
    (tmp_path / "c.yaml").write_text("sliced: {sahi/2: {weights: a.pth, columns: 3}}\n")
    config = load_config(EvaluateConfig, tmp_path / "c.yaml")
    assert config.sliced == {"sahi/2": SlicedConfig("a.pth", columns=3)}
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(EvaluateConfig, tmp_path / "saved.yaml") == config
    one = parse_config(EvaluateConfig, "", ["--config", str(tmp_path / "c.yaml"), "--sliced.b", "{weights: b.pth}"])
    assert one.sliced == config.sliced | {"b": SlicedConfig("b.pth")}
    with pytest.raises(SystemExit) as end:
        parse_config(EvaluateConfig, "x", ["--config", str(tmp_path / "c.yaml"), "--help"])
    assert end.value.code == 0 and '"sahi/2": {"weights": "a.pth", "rows": 2, "columns": 3' in capsys.readouterr().out
