"""The page of adapt.py says plainly what to deploy, also where it is bicubic."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluation.adapt_report import table, to_win, write_report
from evaluation.row_key import RowKey

KEYS = {
    "hr": RowKey("hr"),
    "bicubic": RowKey("bicubic"),
    "sr_fast": RowKey("sr_fast"),
    "sr_fast_trained": RowKey("sr_fast", recipe="trained"),
    "conditional_trained_budget_0.25": RowKey("conditional", recipe="trained").under("budget", 0.25),
}


def row(name: str, agreement: float, behind: list[float] | None, **more) -> dict:
    costs = {"kept_share": None, "total_gmacs": 0.9, "total_ms": None, "sr_ms": None, "sr_gmacs": 0.1, "psnr": 28.0}
    entry = {"name": name, **KEYS[name].record(), "agreement": agreement, "behind": behind, **costs}
    return entry | {"agreement_interval": [agreement - 0.05, agreement + 0.05]} | more


def result(deploy: str, best: str, tied: list[str], **more) -> dict:
    rows = [row("hr", 1.0, None), row("bicubic", 0.6, [-0.01, 0.1]), row("sr_fast", 0.62, [0.01, 0.06])]
    rows += [row("sr_fast_trained", 0.64, [0.0, 0.0]), row("conditional_trained_budget_0.25", 0.63, [-0.02, 0.03])]
    known = {"detector": "a.pt", "scale": 4, "canvas": [320, 320], "pictures": 50, "objects": 99, "sure": 0.25}
    known |= {"training_pictures": 150, "steps": 600, "minutes": 12.3, "judged_by": "agreement", "file": "deploy.pth"}
    return known | {"deploy": deploy, "best": best, "tied": tied, "rows": rows} | more


@pytest.mark.parametrize(
    ("deploy", "best", "tied", "words"),
    [
        (
            "sr_fast_trained",
            "sr_fast_trained",
            ["sr_fast_trained"],
            "Deploy sr_fast_trained (agreement 0.640): the best.",
        ),
        (
            "bicubic",
            "sr_fast_trained",
            ["bicubic", "sr_fast_trained"],
            "Deploy bicubic (agreement 0.600): the cheapest of those that cannot be told apart from the best, "
            "sr_fast_trained (0.640; -0.010 to 0.100 ahead). The training has brought nothing certain on these",
        ),
        (
            "sr_fast_trained",
            "sr_fast_trained",
            ["sr_fast_trained", "conditional_trained_budget_0.25"],
            "the best; conditional_trained_budget_0.25 cannot be told apart from it and cost no less.",
        ),
    ],
)
def test_what_to_deploy(tmp_path: Path, deploy: str, best: str, tied: list[str], words: str):
    page = write_report(tmp_path, result(deploy, best, tied))
    assert words in page and "Fewer than 30" not in page
    assert (tmp_path / "report.md").read_text() == page + "\n"
    assert json.loads((tmp_path / "report.json").read_text())["deploy"] == deploy


def test_few_pictures_are_warned_of(tmp_path: Path):
    assert "Fewer than 30 pictures are held out" in write_report(
        tmp_path, result("bicubic", "bicubic", [], pictures=29)
    )


def test_the_policy_of_a_system_with_a_masker_is_part_of_the_command(tmp_path: Path):
    name = "conditional_trained_budget_0.25"
    page = write_report(tmp_path, result(name, name, [name]))
    assert page.endswith(f"--weights {tmp_path / 'deploy.pth'} --source my/lowres --policy budget=0.25")
    (tmp_path / "my run").mkdir()
    page = write_report(tmp_path / "my run", result(name, name, [name]))
    assert f"--weights '{tmp_path}/my run/deploy.pth' --source" in page


def test_what_there_is_to_win_counts_no_trained_row():
    rows = result("bicubic", "bicubic", [])["rows"]
    said = to_win(rows, 50)
    assert "to 0.600, so 0.400 is lost" in said and said.endswith("Without training: sr_fast +0.020.")


def test_columns_without_a_figure_are_left_out():
    rows = result("bicubic", "bicubic", [])["rows"]
    assert "ms" not in table(rows).splitlines()[0] and "mAP" not in table(rows).splitlines()[0]
    rows[1] |= {"map50_95": 0.3, "map50_95_interval": [0.2, 0.4]}
    assert "mAP" in table(rows).splitlines()[0] and "0.200 to 0.400" in table(rows)
