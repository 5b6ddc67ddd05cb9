"""Every program of the project explains itself without loading a network library, and some test runs it.

Programs are found by their last lines, so a new one without `--help` or without a run at toy size fails here.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("benchmarks", "tools", "data", "deployment", "loading", "prediction", "evaluation", "training", "apps")
FILES = sorted(
    file
    for file in (*ROOT.glob("*.py"), *(found for room in ROOMS for found in (ROOT / room).rglob("*.py")))
    if '__name__ == "__main__"' in file.read_text(encoding="utf-8")
)
PROGRAMS = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in FILES]
HEAVY = ("torch", "ultralytics", "accelerate", "matplotlib", "cv2")

SHOW = """
import runpy, sys
sys.argv = [{name!r}, *{words!r}, "--help"]
try:
    runpy.run_module({name!r}, run_name="__main__", alter_sys=True)
    status = "none"
except SystemExit as end:
    status = end.code
print("\\nSTATUS", status, *(name for name in {heavy!r} if name in sys.modules))
"""


def shown(name: str, *words: str) -> tuple[str, str]:
    """What a program prints for --help; its exit status, and the heavy modules that it imported for that."""
    code = SHOW.format(name=name, words=words, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ, capture_output=True, text=True)
    text, _, status = done.stdout.rpartition("\nSTATUS ")
    assert done.returncode == 0 and not done.stderr, done.stderr
    return text, status.strip()


def test_programs_are_found():
    scripts = {
        "stage1_pretrain_yolo",
        "stage2_pretrain_sr",
        "stage3_finetune_joint",
        "evaluate",
        "inference",
        "compare",
        "adapt",
    }
    others = {"data.demo", "data.prepare_sr_data", "data.prepare_detection_data", "deployment.native.build"}
    assert set(PROGRAMS) >= scripts | others
    assert len([name for name in PROGRAMS if name.startswith("benchmarks.")]) >= 7
    in_folders = {file.stem for folder in ("benchmarks", "tools") for file in (ROOT / folder).glob("*.py")}
    libraries = in_folders - {name.rpartition(".")[2] for name in PROGRAMS} - {"__init__"}
    assert libraries <= {"weight_card"}, "a benchmark or tool is a program; what is none belongs into a room"


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_costs_nothing(name: str):
    text, status = shown(name)
    assert "usage:" in text and "--help" in text and len(text) > 150
    assert status == "0", "exit status, then what need not be imported for a help text"


@pytest.mark.parametrize(
    ("name", "command", "option"),
    [("compare", "report", "--run"), ("compare", "ablate", "--variants"), ("evaluate", "sr", "--hr"),
     ("data.prepare_detection_data", "voc", "--annotations"), ("data.prepare_detection_data", "coco", "--split"),
     ("data.prepare_detection_data", "lr", "--scale")],
)  # fmt: skip
def test_help_of_sub_commands(name: str, command: str, option: str):
    text, status = shown(name, command)
    assert option in text and status == "0"


def mains_used(file: Path) -> set[str]:
    """Modules of whose `main` a test file makes use, as MODULE.main or imported from MODULE."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    modules, mains = {}, {}  # local name -> module whose name or whose main it is
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                if alias.name == "main":
                    mains[alias.asname or "main"] = node.module
    used = {mains[node.id] for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in mains}
    attributes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "main")
    return used | {modules[node.value.id] for node in attributes if getattr(node.value, "id", None) in modules}


@pytest.fixture(scope="module")
def tested() -> set[str]:
    own = [file for file in ROOT.glob("tests/**/test_*.py") if file != Path(__file__)]
    helpers = [*ROOT.glob("tests/**/running.py")]
    return set().union(*(mains_used(file) for file in (*own, *helpers)))


@pytest.mark.parametrize("name", PROGRAMS)
def test_some_test_runs_it(name: str, tested: set[str]):
    assert name in tested, f"no test calls main() of {name}; run it at toy size and look at what it writes"


def test_the_search_sees_what_is_missing(tmp_path: Path):
    file = tmp_path / "test_a.py"
    file.write_text(
        "import a\nfrom b import c, d\nfrom e import main as run\nfrom f import main\na.main([])\nc.main()\nrun()\n"
    )
    assert mains_used(file) == {"a", "b.c", "e"}
