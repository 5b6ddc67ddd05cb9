"""utils/config_values.py: a key that takes one text or several, and paths with commas in them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from utils.config import ConfigError, load_config, parse_config


@dataclass(frozen=True)
class Words:
    """A key that is one text or several.

    Args:
        names: one name, or several.
        place: the same, or none.
    """

    names: str | list[str] = ""
    place: str | list[str] | None = None


@pytest.mark.parametrize(
    ("text", "value"),
    [("a.pth", "a.pth"), ("[a.pth, b.pth]", ["a.pth", "b.pth"]), ("4", "4"), ("", ""), ("a: b", "a: b"), ("[4]", None)],
)
def test_one_text_or_several(text: str, value, capsys):
    if value is None:
        with pytest.raises(SystemExit):
            parse_config(Words, "", [f"--names={text}"])
        assert "--names must be text or a list such as [a, b], each text, found [4]" in capsys.readouterr().err
    else:
        assert parse_config(Words, "", [f"--names={text}"]).names == value
        assert parse_config(Words, "", ["--place", "null"]).place is None


@pytest.mark.parametrize("name", ["a,b", "a, b", "x,y,z"])
def test_a_path_with_a_comma_needs_quotes_and_is_told_so(tmp_path: Path, capsys, name: str):
    folder = tmp_path / name
    folder.mkdir()
    with pytest.raises(SystemExit):
        parse_config(Words, "", [f"--names=[{tmp_path / 'other'}, {folder}]"])
    error = capsys.readouterr().err
    assert f"--names: commas separate the entries of a list, and {folder} is one path with a comma in it" in error
    remedy = error.strip().rpartition("between quotes: ")[2]
    (word,) = shlex.split(remedy)  # as the shell reads what is copied from the message
    assert parse_config(Words, "", ["--names", word]).names == [str(folder)]
    (tmp_path / "c.yaml").write_text(f"names: [{folder}]\n")
    with pytest.raises(ConfigError, match=r"c\.yaml:1: names: commas separate") as caught:
        load_config(Words, tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text(f"names: {str(caught.value).rpartition('between quotes: ')[2]}\n")
    assert load_config(Words, tmp_path / "c.yaml").names == [str(folder)]
    (tmp_path / "c.yaml").write_text(f"names:\n- {folder}\n")
    assert load_config(Words, tmp_path / "c.yaml").names == [str(folder)]


def test_two_paths_that_exist_are_two_paths(tmp_path: Path):
    for name in ("a", "b", "a,b"):
        (tmp_path / name).mkdir()
    assert parse_config(Words, "", [f"--names=[{tmp_path / 'a'}, {tmp_path / 'b'}]"]).names[1] == str(tmp_path / "b")
