"""tools/licences.py: every library that the project needs is listed with its licence."""

from __future__ import annotations

from email.message import Message
from pathlib import Path

import pytest

from tools import licences

ROOT = Path(__file__).resolve().parents[2]


def library(*lines: tuple[str, str]):
    """A library that says this of itself."""
    about = Message()
    for key, value in lines:
        about[key] = value
    return type("Library", (), {"metadata": about})()


@pytest.mark.parametrize(
    ("lines", "terms"),
    [
        ([("License-Expression", "BSD-3-Clause"), ("License", "other")], "BSD-3-Clause"),
        ([("Classifier", "License :: OSI Approved :: MIT License"), ("License", "a long text")], "MIT License"),
        ([("License", "Apache 2.0\nand its text")], "Apache 2.0"),
        ([("Classifier", "Topic :: Scientific")], licences.NOT_STATED),
    ],
)
def test_the_licence_is_what_a_library_says(lines, terms):
    assert licences.licence(library(*lines)) == terms


def test_a_library_without_one_is_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(licences, "licence", lambda found: licences.NOT_STATED)
    (tmp_path / "needs.txt").write_text("numpy>=1  # arrays\n-e .\nno_such.library[extra]==1\n")
    assert licences.main([str(tmp_path / "needs.txt")]) == 1
    said = capsys.readouterr()
    assert "no licence stated by numpy" in said.err and "no-such-library: not installed" in said.err


def test_what_the_project_needs_is_listed_with_what_that_needs(capsys):
    licences.main([str(ROOT / "requirements.txt")])
    names = {line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]}
    assert {"torch", "ultralytics", "spandrel", "scikit-image", "tifffile", "filelock"} <= names
