"""The one import rule of the house: a room imports rooms to its left, never to its right, and none beside it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ORDER = (
    ("configs",), ("utils",), ("data", "models"), ("loading", "deployment"), ("prediction",), ("evaluation",),
    ("training",), ("tools", "apps"), ("benchmarks",),
)  # fmt: skip
PLACE = {room: place for place, rooms in enumerate(ORDER) for room in rooms}
SCRIPTS = {path.stem for path in ROOT.glob("*.py")}


def imported(file: Path) -> set[str]:
    """First names of all modules that a file imports, at its top or inside functions."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are absolute"
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("room", PLACE)
def test_rooms_import_to_the_left(room: str):
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in sorted((ROOT / room).rglob("*.py"))
        for name in imported(file) - {room}
        if name in SCRIPTS or PLACE.get(name, -1) >= PLACE[room]
    ]
    assert not wrong


def test_every_room_with_code_is_in_the_order():
    rooms = {path.parent.relative_to(ROOT).parts[0] for path in ROOT.glob("*/*.py")}
    assert rooms - {"tests", "datasets", "runs"} == {room for room in PLACE if (ROOT / room).is_dir()}


def test_only_a_few_files_import_ultralytics():
    """As docs/architecture.md names them; what they must not be imported by, test_imports.py looks at."""
    files = [*ROOT.glob("*.py"), *(file for room in PLACE for file in (ROOT / room).rglob("*.py"))]
    found = {file.relative_to(ROOT).as_posix() for file in files if "ultralytics" in imported(file)}
    assert found == {"models/detector_yolo.py", "prediction/results.py", "training/yolo_training.py"}
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert all(f"(`{file}`)" in text.replace("\n   ", " ") for file in found)


def test_utils_stays_small():
    """Leaf tools only: what grows here belongs into a room of its own."""
    lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in (ROOT / "utils").rglob("*.py"))
    assert lines <= 2600
