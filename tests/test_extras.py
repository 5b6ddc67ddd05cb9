"""Tests of optional libraries: they run where those are, and say what is missing elsewhere; CI tells both apart."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.extras import BROWSER_REMEDY, EXTRAS, needs
from tests.skipped_extras import unexpected

ROOT = Path(__file__).resolve().parents[1]
PRESENT = [extra for extra in EXTRAS if (ROOT / extra.file).is_file()]


def test_a_missing_library_skips_and_is_named(monkeypatch):
    mark = needs("torch", "no_such_library").mark
    assert mark.name == "skipif" and mark.args == (True,)
    assert mark.kwargs["reason"] == "no_such_library not installed; pip install -r requirements.txt"
    monkeypatch.setattr("tests.extras.find_spec", lambda name: None)
    mark = needs("timm", "gradio").mark
    assert (
        mark.kwargs["reason"]
        == "timm, gradio not installed; pip install -r requirements-generative.txt -r requirements-app.txt"
    )


def test_present_libraries_skip_nothing():
    assert needs("torch", "numpy").mark.args == (False,)


@pytest.mark.parametrize("extra", PRESENT, ids=lambda extra: extra.name)
def test_the_file_names_every_library(extra):
    listed = (ROOT / extra.file).read_text(encoding="utf-8").lower().replace("-", "_")
    assert all(re.search(rf"^{library}\b", listed, re.MULTILINE) for library in extra.libraries)
    lines = [line for line in listed.splitlines() if line and not line.startswith("#")]
    assert all(re.match(r"[a-z0-9_]+(\[[a-z,]+\])?(>=|==)", line) for line in lines), "every one has a lower bound"


def run_make(folder: Path, *words: str) -> str:
    """What make says in a copy of the project's Makefile, with a Python that only tells what it was asked for."""
    (folder / ".venv" / "bin").mkdir(parents=True)
    python = folder / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\necho "RUN $*"\ncase "$*" in *-bulk.txt*) exit 1;; esac\n')
    python.chmod(0o755)
    shutil.copy(ROOT / "Makefile", folder)
    for name in ("block_sparse.cpp", "job.h", "build.py"):
        (folder / "deployment" / "native").mkdir(parents=True, exist_ok=True)
        (folder / "deployment" / "native" / name).touch()
    done = subprocess.run(["make", *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="make not installed; apt-get install make")
def test_make_test_installs_the_extras_that_are_there(tmp_path: Path):
    for name in ("", "-app", "-bulk"):
        (tmp_path / f"requirements{name}.txt").touch()
    said = run_make(tmp_path, "test", "TEST_OPTIONS=-x")
    assert "-r requirements-app.txt" in said and "-export" not in said
    assert "tests of what needs requirements-bulk.txt are skipped: it could not be installed" in said
    assert (tmp_path / ".venv" / ".app").exists() and not (tmp_path / ".venv" / ".bulk").exists()
    assert re.search(r"^RUN -m pytest .*-m not slow -x$", said, re.MULTILINE)


@pytest.mark.skipif(shutil.which("make") is None, reason="make not installed; apt-get install make")
def test_make_test_all_runs_the_slow_ones_and_make_setup_no_extras(tmp_path: Path):
    for name in ("", "-app"):
        (tmp_path / f"requirements{name}.txt").touch()
    assert "-r requirements-app.txt" not in run_make(tmp_path, "setup")
    shutil.rmtree(tmp_path / ".venv")
    said = run_make(tmp_path, "test-all")
    assert "-r requirements-app.txt" in said and "-m pytest" in said and "not slow" not in said


def test_the_makefile_knows_every_extra():
    (listed,) = re.findall(r"foreach extra,([^,]+),", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert set(listed.split()) == {extra.name for extra in EXTRAS}


def test_ci_does_not_let_tests_of_installed_extras_be_skipped(tmp_path: Path, monkeypatch):
    assert "-p tests.skipped_extras" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (tmp_path / ".app").touch()
    app, bulk = "gradio not installed; pip install -r requirements-app.txt", "ray; pip install -r requirements-bulk.txt"
    browser, gpu = f"chromium not installed; {BROWSER_REMEDY}", "needs CUDA"
    monkeypatch.setattr("tests.skipped_extras.shutil.which", lambda name: None)
    assert unexpected({app, bulk, browser, gpu}, tmp_path) == [app]
    monkeypatch.setattr("tests.skipped_extras.shutil.which", lambda name: f"/usr/bin/{name}")
    assert unexpected({app, bulk, browser, gpu}, tmp_path) == [browser, app]


def test_the_run_fails_where_such_a_test_was_skipped(tmp_path: Path):
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".bulk").touch()
    (tmp_path / "pytest.ini").touch()
    (tmp_path / "test_a.py").write_text(
        "import pytest\n\n@pytest.mark.skipif(True, reason='pip install -r requirements-bulk.txt')\ndef test_a(): ...\n"
        "def test_b(): ...\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "xdist", "-p", "tests.skipped_extras", "-n", "1"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 1 and "1 passed, 1 skipped" in done.stdout, done.stdout + done.stderr
    assert "skipped although it is installed: pip install -r requirements-bulk.txt" in done.stdout
