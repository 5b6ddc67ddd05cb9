"""A small configuration with keys of every kind, from a file and from the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from utils.config import load_config, parse_config


@dataclass(frozen=True)
class Inner:
    """Inner keys.

    Args:
        rate: steps per second.
        size: one side or [height, width].
        on: switch.
        kind: choice.
        folder: where, or nowhere.
        names: some names.
        args: free mapping.
    """

    rate: float = 1.0
    size: int | list[int] = 4
    on: bool = False
    kind: Literal["plain", "fancy"] = "plain"
    folder: str | None = None
    names: list[str] = field(default_factory=list)
    args: dict[str, bool | int | float | str] = field(default_factory=lambda: {"depth": 2})


@dataclass(frozen=True)
class Outer:
    """A small program.

    Args:
        inner: nested keys.
        count: how many.
        save_all: keep everything.
        limit: smallest rate, or none.
    """

    inner: Inner = field(default_factory=Inner)
    count: int = 3
    save_all: bool = False
    limit: float | None = None


def from_text(tmp_path: Path, text: str) -> Outer:
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    return load_config(Outer, tmp_path / "c.yaml")


def parse(*argv: str) -> Outer:
    return parse_config(Outer, "A small program.", list(argv))


def refused(capsys, *argv: str) -> str:
    """The one line on stderr with which arguments are refused."""
    with pytest.raises(SystemExit) as caught:
        parse(*argv)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and ": error: " in error
    return error.split(": error: ")[1].strip()
