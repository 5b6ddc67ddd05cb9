"""What is dumped is read back equal, by this reader and by any YAML 1.1 reader."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from utils.yaml_strict import ConfigError, dump_yaml, load_yaml, load_yaml_lines, parse_yaml

TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.from_regex(
    r"[-+.~=<!&*0-9eE_:yYnNoOtf]{0,8}", fullmatch=True
)
SCALARS = TEXTS | st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.floats(allow_nan=False)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))


@given(VALUES)
@example({"\x85[": "\u2028 #", "\ufeff": "a\x85"})
def test_dump_and_load_are_inverse(value):
    text = dump_yaml(value)
    assert parse_yaml(text, "text")[0] == value
    assert yaml.safe_load(text) == value


def test_lines(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("# head\na:\n  b: 1\n\n  c: [x,\n      {d: 2}]\n")
    value, lines = load_yaml_lines(tmp_path / "a.yaml")
    assert value == {"a": {"b": 1, "c": ["x", {"d": 2}]}}
    assert lines == {("a",): 2, ("a", "b"): 3, ("a", "c"): 5, ("a", "c", 1, "d"): 6}


def test_data_set_files_of_ultralytics_are_read(tmp_path: Path):
    (tmp_path / "d.yaml").write_text(
        "path: ../x\ntrain: [a, b]\nnames:\n  0: no\n  1: 1e5th\ndownload: |\n  import os\n"
    )
    expected = {"path": "../x", "train": ["a", "b"], "names": {0: "no", 1: "1e5th"}, "download": "import os\n"}
    assert load_yaml(tmp_path / "d.yaml") == expected


@given(st.binary(max_size=60) | st.text("{}[]:,-&*!|>'\"%@`#?\n a1", max_size=60).map(str.encode))
def test_any_bytes_give_a_value_or_a_config_error(tmp_path_factory, raw: bytes):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(raw)
    try:
        load_yaml(path)
    except ConfigError as error:
        assert str(error).startswith(str(path))


def test_unreadable_file(tmp_path: Path, monkeypatch):
    path = tmp_path / "a.yaml"
    path.write_text("a: 1")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ConfigError, match=r"a\.yaml: cannot be read \(Permission denied\); check its permissions"):
        load_yaml(path)
