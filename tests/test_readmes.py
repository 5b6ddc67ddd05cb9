"""What says the same twice: the Chinese README has the English one's commands and figures, the Dockerfile its steps."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENGLISH = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")
DOCKER = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def commands(text: str) -> list[str]:
    """Lines of code of the fenced blocks, without comments and drawings; blanks do not count."""
    blocks = re.findall(r"^```(?:python)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [" ".join(line.partition("#")[0].split()) for block in blocks for line in block.splitlines()]
    return [line for line in lines if re.match(r"(make|python|pip|from|model|result|print|sr)\b", line)]


def inline(text: str) -> Counter:
    """What stands between backticks in the text, links and pictures beside."""
    text = " ".join(re.sub(r"```.*?```", "", text, flags=re.DOTALL).split())
    return Counter([*re.findall(r"`([^`]+)`", text), *re.findall(r"\]\(([^)]+)\)", text)]) - Counter(
        ["README.zh-CN.md", "README.md"]
    )


def figures(text: str) -> Counter:
    """All numbers of the text; those within code and links are compared by the above."""
    text = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)", "", text, flags=re.DOTALL)
    return Counter(re.findall(r"\d+(?:\.\d+)*", text))


def table(text: str) -> list[list[str]]:
    """Numbers of each cell of the tables."""
    rows = re.findall(r"^\|(.*)\|$", text, re.MULTILINE)
    return [[" ".join(re.findall(r"\d+\.\d+", cell)) for cell in row.split("|")] for row in rows]


def test_the_chinese_readme_has_the_commands_of_the_english_one():
    assert len(commands(ENGLISH)) > 12
    assert commands(CHINESE) == commands(ENGLISH)
    assert inline(CHINESE) == inline(ENGLISH)


def test_the_chinese_readme_has_the_figures_of_the_english_one():
    assert len(figures(ENGLISH)) > 30
    assert figures(CHINESE) == figures(ENGLISH)
    assert table(CHINESE) == table(ENGLISH)
    assert CHINESE.count("\n## ") == ENGLISH.count("\n## ")


def test_another_command_or_figure_is_noticed():
    assert commands(ENGLISH.replace("make demo ", "make dem0 ")) != commands(ENGLISH)
    assert figures(ENGLISH.replace("0.199", "0.198", 1)) != figures(ENGLISH)
    assert table(ENGLISH.replace("| 0.108 | 0.108 |", "| | 0.108 | 0.108 ", 1)) != table(ENGLISH)
    assert inline(ENGLISH.replace("`--resume`", "`--resum`")) != inline(ENGLISH)


def test_the_dockerfile_takes_the_steps_of_the_readme():
    """All that it runs is a line of the README, but for Debian's packages and the app's extra."""
    runs = [line.removeprefix("RUN ") for line in DOCKER.splitlines() if line.startswith("RUN ")]
    (start,) = re.findall(r"^CMD (.*)$", DOCKER, re.MULTILINE)
    known = {*commands(ENGLISH), "pip install -r requirements-app.txt"}
    own = [run for run in runs if not run.startswith("apt-get")]
    assert "make setup && . .venv/bin/activate" in own and set(own) <= known
    assert " ".join(re.findall(r'"([^"]+)"', start)) in known
    for file in re.findall(r"requirements\S*\.txt", DOCKER):
        assert (ROOT / file).is_file()


@pytest.mark.slow
def test_the_image_is_built(tmp_path: Path):
    if shutil.which("docker") is None or subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("no docker daemon answers; docker build -t conditional-sr .")
    done = subprocess.run(
        ["docker", "build", "-t", "conditional-sr-test", "."], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    help_text = ["docker", "run", "--rm", "conditional-sr-test", "python", "app.py", "--help"]
    assert "--detector" in subprocess.run(help_text, capture_output=True, text=True).stdout
