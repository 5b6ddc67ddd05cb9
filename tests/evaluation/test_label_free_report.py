"""Leads over shipped weights, and the words that follow from their intervals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from evaluation.label_free_report import lines_of, page, table, verdict

BASE = "EDSR"


def test_the_table_says_how_far_each_row_leads():
    samples = {name: np.array([0.5 + lead, 0.4 + lead, 0.6 + lead]) for name, lead in
               (("hr", 0.3), ("bicubic", -0.1), (BASE, 0.0), ("base", 0.02))}  # fmt: skip
    lines = lines_of(samples, [BASE])
    assert lines["base"]["leads"][BASE] == pytest.approx([0.02, 0.02]) and lines["bicubic"]["value"] == pytest.approx(
        0.4
    )
    text = table({"held-out crops": {"agreement": lines}, "labelled photographs": {"agreement": lines, "mAP": lines}},
                 [BASE, "base"], BASE)  # fmt: skip
    assert "| base | 0.520 (+0.020 to +0.020) |" in text and f"| {BASE} | 0.500 |" in text


@pytest.mark.parametrize(("leads", "said"), [((0.01, 0.02), "by none: base."), ((-0.01, 0.02), "apart from them."),
                                             ((-0.02, -0.01), "by some figure: base.")])  # fmt: skip
def test_the_verdict_is_that_of_the_intervals(leads, said):
    figures = {"agreement": {"base": {"leads": {BASE: list(leads)}}}, "images": 3}
    text = verdict({"held-out crops": figures}, {"base": BASE})
    assert said in text and text.count("base") == (said != "apart from them.")


@pytest.mark.parametrize("name", ["label_free", "label_free_bsds"])
def test_the_published_page_is_that_of_its_json(name):
    file = Path(__file__).resolve().parents[2] / "docs" / "results" / f"{name}.json"
    assert file.with_suffix(".md").read_text(encoding="utf-8") == page(json.loads(file.read_text()), "EDSR 8x32")
