"""The documentation agrees with the code: links, commands and their options, lists of networks, tables of results."""

from __future__ import annotations

import functools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from models import SR_NETWORKS
from models.mask_policy import POLICIES
from tools import doc_tables
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
READ = {page.name: page.read_text(encoding="utf-8") for page in PAGES}


def commands(text: str) -> list[list[str]]:
    """Words of every `python ...` command, in fenced blocks and in the text, continued lines joined."""
    text = text.replace("\\\n", " ")
    fenced = re.findall(r"^\s*(python [^\n]+)$", text, re.MULTILINE)
    inline = re.findall(r"`(python [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [shlex.split(line, comments=True) for line in (*fenced, *inline)]


@functools.cache
def help_of(*program: str) -> str:
    """What a program says of its options, as the user sees it."""
    done = subprocess.run([sys.executable, *program, "--help"], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, f"{' '.join(program)} --help: {done.stderr}"
    return done.stdout


def program_of(words: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """The program of a command, with its sub-command, and the words that follow."""
    length = 3 if words[1] == "-m" else 2
    if len(words) > length and words[1] in ("evaluate.py", "compare.py") and not words[length].startswith("-"):
        length += 1
    return tuple(words[1:length]), words[length:]


COMMANDS = sorted({shlex.join(words) for text in READ.values() for words in commands(text)})


def test_there_are_commands_of_every_script():
    named = {program_of(shlex.split(command))[0][0] for command in COMMANDS}
    scripts = {path.name for path in ROOT.glob("*.py")} - {"hubconf.py"}  # loaded by torch.hub, no program
    assert scripts <= named


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_and_their_options_exist(command: str):
    program, words = program_of(shlex.split(command))
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    text = help_of(*program).replace("_", "-")
    missing = [option for option in options if not re.search(rf"{re.escape(option.replace('_', '-'))}\b", text)]
    assert not missing, f"{' '.join(program)} has no option {', '.join(missing)}"
    for word in words:
        if word.startswith("configs/"):
            assert (ROOT / word).is_file(), f"{word} is missing"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target} is missing"


def test_every_network_is_listed():
    listed = set(re.findall(r"`([a-z0-9_]+)`", READ["super_resolution.md"].split("\n## ")[1]))
    assert set(SR_NETWORKS) - {"spandrel"} <= listed  # spandrel is not named by users: a weight file asks for it


def test_every_mask_policy_is_listed():
    assert {kind for kind in POLICIES if not re.search(rf"`{kind}\b", READ["README.md"])} == set()


def test_the_readme_is_short():
    assert len(READ["README.md"].splitlines()) <= 115


def test_tables_are_those_of_the_published_results(capsys):
    assert doc_tables.main(["--check"]) == 0, capsys.readouterr().out


def test_a_figure_that_was_changed_by_hand_is_found(tmp_path: Path, monkeypatch, capsys):
    for name in doc_tables.PAGES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    page = tmp_path / "README.md"
    good = page.read_text(encoding="utf-8")
    page.write_text(good.replace("| 0.108 |", "| 0.099 |", 1), encoding="utf-8")
    monkeypatch.setattr(doc_tables, "ROOT", tmp_path)
    assert doc_tables.main(["--check"]) == 1 and "out of date: README.md" in capsys.readouterr().out
    assert doc_tables.main([]) == 0 and page.read_text(encoding="utf-8") == good
    page.write_text(good.replace("table: readme", "table: unknown"), encoding="utf-8")
    with pytest.raises(UserError, match="no table 'unknown'; use one of"):
        doc_tables.main([])
