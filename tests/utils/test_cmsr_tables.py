"""CMSR tables in YAML files."""

from __future__ import annotations

import pytest

from utils.cmsr_tables import load_tables, save_tables
from utils.yaml_strict import ConfigError

TABLES = {6: {1: 0.12, 1.5: 0.13, 4: 0.215, 6: 1}, 12.5: {2: 0.1, 12.5: 1.0}}


def test_tables_come_back_in_order(tmp_path):
    path = tmp_path / "tables.yaml"
    save_tables(path, {12.5: TABLES[12.5], 6: dict(reversed(TABLES[6].items()))})
    assert load_tables(path) == TABLES
    assert list(load_tables(path)) == [6, 12.5] and list(load_tables(path)[6]) == [1, 1.5, 4, 6]


def test_published_tables_can_be_read(tmp_path):
    path = tmp_path / "edsr-b_lm-lte.yaml"
    path.write_text("  6:\n    1: 0.12\n    2: 0.15\n    4: 0.215\n    6: 1\n")
    assert load_tables(path) == {6: {1: 0.12, 2: 0.15, 4: 0.215, 6: 1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected CMSR tables"),
        ("- 1\n", "expected CMSR tables"),
        ("6: 0.1\n", "the table of target 6 is 0.1"),
        ("big: {1: 0.1}\n", "scale 'big' is not a number"),
        ("6: {0.5: 0.1}\n", "scale 0.5 is not a number of at least 1"),
        ("6: {1: high}\n", "target 6, scale 1: strength 'high'"),
        ("6: {1: 1.5}\n", "strength 1.5 is not from 0 to 1"),
        ("6: {1: 0.3, 2: 0.2}\n", r"must not fall as the scale grows, found \[0.3, 0.2\]"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    path = tmp_path / "tables.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        load_tables(path)
    assert "tables.yaml" in str(error.value)
