"""Tests of optional libraries: they run where the libraries are, and say what is missing elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

from tests.extras import GENERATIVE, REMEDY, needs

ROOT = Path(__file__).resolve().parents[1]


def test_a_missing_library_skips_and_is_named():
    mark = needs("torch", "no_such_library").mark
    assert mark.name == "skipif" and mark.args == (True,)
    assert mark.kwargs["reason"] == f"no_such_library not installed; {REMEDY}"


def test_present_libraries_skip_nothing():
    assert needs("torch", "numpy").mark.args == (False,)


def test_make_test_installs_them_and_make_setup_does_not():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    rules = dict(re.findall(r"^(\S+): (.*)$", makefile, re.MULTILINE))
    assert ".venv/.generative" in rules["test"].split()
    for target in ("setup", ".venv/.stamp", "demo"):
        assert ".generative" not in rules[target]


def test_the_file_names_every_library():
    listed = (ROOT / "requirements-generative.txt").read_text(encoding="utf-8").lower().replace("-", "_")
    assert all(re.search(rf"^{library}\b", listed, re.MULTILINE) for library in GENERATIVE)
