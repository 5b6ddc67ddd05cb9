"""Tests of optional libraries: they run where the libraries are, and say what is missing elsewhere."""

from __future__ import annotations

from tests.extras import REMEDY, needs


def test_a_missing_library_skips_and_is_named():
    mark = needs("torch", "no_such_library").mark
    assert mark.name == "skipif" and mark.args == (True,)
    assert mark.kwargs["reason"] == f"no_such_library not installed; {REMEDY}"


def test_present_libraries_skip_nothing():
    assert needs("torch", "numpy").mark.args == (False,)
