"""Every published comparison is read back: its JSON gives the figures of its page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from evaluation.comparison.catalogue import FAMILIES
from evaluation.comparison.report import report_markdown

FOLDER = Path(__file__).resolve().parents[3] / "docs" / "results"
PAGES = sorted(file for file in FOLDER.glob("*.json") if "comparison" in json.loads(file.read_text(encoding="utf-8")))


def regenerated(file: Path) -> tuple[dict, str]:
    """The content of a JSON file, and the page that is made of it."""
    content = json.loads(file.read_text(encoding="utf-8"))
    pictures = {family: f"{file.stem}_{family}.png" for family in FAMILIES}
    return content, report_markdown(content, {k: v for k, v in pictures.items() if (FOLDER / v).is_file()})


def figures(page: str) -> list[str]:
    """Titles, tables and pictures of a page, and the number of every gap."""
    gaps = re.findall(r"Gap in mAP50-95 between [^.]*\.\d+", page)
    return [line for line in page.splitlines() if line.startswith(("#", "|", "!"))] + gaps


def test_there_are_pages():
    assert len(PAGES) >= 5 and {"hit_uav_x4", "bccd_x4"} <= {file.stem for file in PAGES}
    comparisons = {page for page in FOLDER.glob("*.md") if "python compare.py --config" in page.read_text()}
    studies = {FOLDER / "recipe_study.md"}
    assert comparisons - studies == {file.with_suffix(".md") for file in PAGES}


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.stem)
def test_the_page_is_made_of_its_json(file: Path):
    content, page = regenerated(file)
    published = file.with_suffix(".md").read_text(encoding="utf-8")
    assert figures(page) == figures(published)
    assert len(figures(page)) > 50
    if "claim_seeds" in content:  # earlier pages explain themselves in words of their own time
        assert page == published
