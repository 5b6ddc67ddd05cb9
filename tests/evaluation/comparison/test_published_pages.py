"""Every published comparison is read back: its JSON gives its page, and its verdicts follow the rule."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluation.comparison.aggregate import Repetition
from evaluation.comparison.claims import NO, NO_INTERVAL, UNDECIDED, WORST_FIRST, YES, Claim, Part, check_claims
from evaluation.comparison.evidence import Evidence
from evaluation.row_key import by_key
from tools.doc_tables import ROOT, comparison_page, comparisons

FOLDER = ROOT / "docs" / "results"
PAGES = comparisons()


def from_means(content: dict) -> list[Claim]:
    """The claims of the published means as if they were of one seed: without intervals, with what was not measured."""
    tables = {content["label_share"]: content["rows"]} | {float(s): rows for s, rows in content["sweep"].items()}
    repetitions = []
    for share, rows in tables.items():
        figures = ("map50_95", "total_ms", "sr_ms")
        table = {
            key: {"name": key.name} | {figure: row[figure] and row[figure]["mean"] for figure in figures}
            for key, row in by_key(rows).items()
        }
        repetitions.append(Repetition(0, share, table, {}, FOLDER))
    return check_claims(Evidence(repetitions))


def test_there_are_pages():
    assert len(PAGES) >= 5 and {"hit_uav_x4", "bccd_x4"} <= {file.stem for file in PAGES}
    published = {page for page in FOLDER.glob("*.md") if "python compare.py --config" in page.read_text()}
    assert published - {FOLDER / "recipe_study.md"} == {file.with_suffix(".md") for file in PAGES}


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.stem)
def test_the_page_is_made_of_its_json(file: Path):
    page = comparison_page(file)
    assert page == file.with_suffix(".md").read_text(encoding="utf-8")
    assert sum(line.startswith("|") for line in page.splitlines()) > 50


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.stem)
def test_the_verdicts_follow_the_rule(file: Path):
    """Yes only where every interval lies above its limit and all that was named was measured."""
    content = json.loads(file.read_text(encoding="utf-8"))
    plain = {(claim.text, claim.system): claim for claim in from_means(content)}
    assert len(plain) == len(content["claims"])
    for claim in content["claims"]:
        missing = plain[claim["text"], claim["system"]].found.partition("not measured: ")[2]
        assert claim["found"].partition("not measured: ")[2] == missing, claim
        verdicts = [Part(**part).verdict for part in claim["parts"]]
        if any(part["interval"] for part in claim["parts"]):
            worst = min(verdicts, key=WORST_FIRST.index)
            assert claim["verdict"] in ({NO} if worst == NO else {worst, NO} if worst != YES else {YES, NO, UNDECIDED})
            assert not (claim["verdict"] == YES and missing)
        else:
            assert claim["verdict"] == plain[claim["text"], claim["system"]].verdict
            assert claim["verdict"] in (NO, NO_INTERVAL, UNDECIDED), claim
