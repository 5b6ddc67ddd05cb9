"""Coverage-guided fuzzing by atheris, each gate in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.extras import needs_extra
from tests.reliability.gates import READERS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@needs_extra("fuzz")
@pytest.mark.parametrize("gate", READERS)
def test_gate(tmp_path: Path, count, record, gate: str):
    tried = count(0, 100_000)
    program = [sys.executable, "-m", "tests.reliability.fuzz_gate", gate, str(tmp_path / "corpus"), f"-runs={tried}"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([*program, "-seed=1"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    ran = re.search(r"Done (\d+) runs", done.stderr)
    found = len(list((tmp_path / "corpus").iterdir()))
    error = "" if done.returncode == 0 else done.stderr[-300:]
    good = tried if done.returncode == 0 and ran and int(ran[1]) >= tried else 0
    note = f"{found} contents reached something new{'; ' * bool(error)}{error}"
    record("Fuzzing by coverage (atheris)", f"{gate}: read, or one clear error", good, tried, note)
