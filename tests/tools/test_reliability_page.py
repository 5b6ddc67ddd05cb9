"""tools/reliability_page.py: one row a test, and what is not as it should be is said."""

from __future__ import annotations

import json
from pathlib import Path

from tools.reliability_page import main


def test_a_page_of_two_groups(tmp_path: Path, capsys):
    rows = [
        {"group": "Kills", "what": "stage 2", "good": 50, "tried": 50, "note": "130 kills"},
        {"group": "Kills", "what": "stage 3", "good": 49, "tried": 50, "note": ""},
        {"group": "Network", "what": "programs", "good": 6, "tried": 6, "note": ""},
    ]
    figures = tmp_path / "figures.jsonl"
    figures.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main([str(figures), "--out", str(tmp_path / "page.md"), "--size", "half the size"]) == 1
    text = (tmp_path / "page.md").read_text()
    assert text.count("\n## ") == 2 and "| stage 2 | 50 / 50 | 130 kills |" in text
    assert "`tests/reliability/`, half the size: " in text
    assert "3 rows, 1 not as they should be: stage 3" in capsys.readouterr().out
    figures.write_text(json.dumps(rows[0]))
    assert main([str(figures), "--out", str(tmp_path / "page.md")]) == 0
