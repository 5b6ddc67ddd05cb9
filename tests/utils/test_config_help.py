"""utils/config_help.py: --help names every key with its kind and value, and is there at once."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from configs.stage3_schema import Stage3Config
from tests.utils.small_config import parse
from utils.config import config_to_dict

ROOT = Path(__file__).resolve().parents[2]


def test_help_is_fast_complete_and_free_of_torch(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom configs.stage3_schema import Stage3Config\nfrom utils.config import parse_config\n"
        "try:\n    parse_config(Stage3Config, 'What it does.\\n\\n    python script.py\\n')\n"
        "finally:\n    print('torch' in sys.modules, file=sys.stderr)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script), "--help"], env=environment, capture_output=True, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (done.returncode, done.stderr) == (0, "False\n")
    # Processor seconds: the clock on the wall also counts other programs on a busy machine.
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 1.5
    lines = done.stdout.splitlines()
    assert "    python script.py" in lines
    defaults = dict(flat(config_to_dict(Stage3Config())))
    for name, kind in (
        ("run.seed", "int"), ("run.resume", "{true,false}"), ("optim.lr_low", "float"), ("data.imgsz", "int|list[int]"),
        ("masker.halo", "int|auto|null"), ("data.yaml", "str"), ("sr_quality.args", "mapping"), ("mode", "{joint,"),
    ):  # fmt: skip
        (place,) = [number for number, line in enumerate(lines) if line.startswith(f"  --{name} ")]
        assert lines[place].split()[1].startswith(kind)
        default = defaults[name] if isinstance(defaults[name], str) and defaults[name] else json.dumps(defaults[name])
        assert f"(default: {default})" in " ".join(lines[place : place + 2]), lines[place]
    names = {line.split()[0] for line in lines if line.startswith("  --")}
    assert names == {f"--{name}" for name in defaults} | {"--config"}


def flat(tree: dict, prefix: str = ""):
    for key, value in tree.items():
        if isinstance(value, dict) and key != "args":
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def test_help_shows_the_values_of_the_file(tmp_path: Path, capsys):
    (tmp_path / "c.yaml").write_text("count: 77")
    with pytest.raises(SystemExit) as caught:
        parse("--config", str(tmp_path / "c.yaml"), "--help")
    assert caught.value.code == 0
    assert "how many (default: 77)" in capsys.readouterr().out


def test_help_says_how_lists_are_written(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    assert "an entry with a comma, a colon or brackets in it goes between quotes" in capsys.readouterr().out
