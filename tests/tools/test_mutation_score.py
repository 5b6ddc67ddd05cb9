"""tools/mutation_score.py: every mutation of the table can be made; what the tests of a small project make of some."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tools import mutation_score
from tools.mutation_score import KILLED, ROOT, SURVIVED, TABLE, main, read_table

PROJECT = {
    "pyproject.toml": '[tool.pytest.ini_options]\nmarkers = ["slow"]\n',
    "room/__init__.py": "",
    "room/a.py": "def double(x):\n    return 2 * x\n\n\ndef half(x):\n    return x / 2\n",
    "tests/test_a.py": "from room.a import double\n\n\ndef test_double():\n    assert double(3) == 6\n",
    "tests/test_wrong.py": "def test_wrong():\n    assert 1 == 2\n",
}


def entry(breaks: str, old: str, new: str) -> str:
    return f"    - breaks: {breaks}\n      old: {json.dumps(old)}\n      new: {json.dumps(new)}\n"


def group(file: str, tests: str, *entries: str) -> str:
    return f"- file: {file}\n  tests: {tests}\n  mutations:\n{''.join(entries)}"


@pytest.fixture
def project(tmp_path: Path, monkeypatch) -> Path:
    """A project of two functions, of which one is tested."""
    folder = tmp_path / "project"
    for name, text in PROJECT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    (folder / "tools").mkdir()
    changes = entry("three times", "2 * x", "3 * x"), entry("a third", "x / 2", "x / 3")
    (folder / TABLE).write_text(group("room/a.py", "tests/test_a.py", *changes))
    monkeypatch.setattr(mutation_score, "ROOT", folder)
    monkeypatch.setattr(mutation_score, "LIBRARIES", ("pytest",))
    return folder


def results(folder: Path) -> dict[str, str]:
    """{what it breaks: status} of the stored mutations."""
    known = json.loads((folder / "results.json").read_text())
    return {result["breaks"]: result["status"] for result in known.values() if "breaks" in result}


def test_every_mutation_can_be_made():
    mutations = read_table(ROOT / TABLE)
    assert len(mutations) >= 100 and len({mutation.name for mutation in mutations}) == len(mutations)
    for mutation in mutations:
        assert mutation.tests and all((ROOT / test).is_file() for test in mutation.tests), mutation.name
        text = (ROOT / mutation.file).read_text(encoding="utf-8")
        changed = mutation.applied(text)
        assert changed is not None and changed != text, f"{mutation.name}: occurs {text.count(mutation.old)} times"
        if mutation.file.endswith(".py"):
            compile(changed, mutation.file, "exec")


def test_every_room_has_some():
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert {mutation.room for mutation in read_table(ROOT / TABLE)} == rooms


def test_what_tests_notice_counts_and_is_not_run_again(project: Path, tmp_path: Path, capsys):
    out, page = tmp_path / "out", tmp_path / "page.md"
    assert main(["--out", str(out), "--jobs", "2", "--page", str(page), "--note", "this is the first run"]) == 1
    assert results(out) == {"three times": KILLED, "a third": SURVIVED}
    said = capsys.readouterr().out
    assert "2 mutations: 1 killed, 1 survived" in said and "FAILED tests/test_a.py::test_double" in said
    text = page.read_text()
    assert "1 of 2 small mutations of the code (50%)" in text and "this is the first run.\n" in text
    assert "| room | 2 | 1 | a.py: a third |" in text
    assert (project / "room/a.py").read_text() == PROJECT["room/a.py"]
    stored = (out / "results.json").read_text()
    assert main(["--out", str(out), "--only", "three"]) == 0
    assert (out / "results.json").read_text() == stored, "nothing was run"
    (project / "tests/test_a.py").write_text(PROJECT["tests/test_a.py"].replace("double(3) == 6", "double(0) == 0"))
    assert main(["--out", str(out), "--only", "three"]) == 1
    assert "1 mutations: 1 survived" in capsys.readouterr().out, "with other tests it is run anew"


def test_what_tells_nothing_of_the_tests_is_no_kill(project: Path, tmp_path: Path, monkeypatch, capsys):
    """Text that is not there, or twice; tests that fail without the mutation, or do not end with it."""
    monkeypatch.setattr(mutation_score, "GRACE", 1)
    monkeypatch.setattr(mutation_score, "FACTOR", 0)
    table = group("room/a.py", "tests/test_a.py", entry("gone", "5 * x", "x"), entry("twice", "return", "yield"))
    table += group("room/a.py", "tests/test_wrong.py", entry("wrong", "2 * x", "3 * x"))
    table += group("room/a.py", "tests/test_a.py", entry("endless", "    return 2 * x", "    while True: pass"))
    table += group("room/b.py", "tests/test_a.py", entry("nowhere", "a", "b"))
    (project / TABLE).write_text(table)
    assert main(["--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().out
    assert "5 mutations: 1 timeout, 3 stale, 1 tests fail unchanged" in said
    assert "gone (0 s, occurs 0 times)" in said and "twice (0 s, occurs 2 times)" in said
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path / "out"), "--only", "no such thing"])
    assert "--only no such thing: no such mutation" in capsys.readouterr().err


@pytest.mark.slow
def test_one_of_the_project_itself(tmp_path: Path):
    assert main(["--out", str(tmp_path), "--only", "configs/bounds.py"]) == 0
