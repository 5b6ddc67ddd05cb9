"""The tables, the page and the curves, from synthetic results."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from configs.compare_schema import CompareConfig
from evaluation.comparison.catalogue import REFERENCES
from evaluation.comparison.figures import (
    curves_of,
    draw_pareto_front,
    draw_precision_recall,
    draw_sweep,
    svg,
)
from evaluation.comparison.page import curve_rows, tables, write_page
from evaluation.comparison.report import (
    figure_text,
    read_comparison,
    report_content,
    report_markdown,
    title_of,
    write_comparison,
)
from evaluation.detection_eval import SplitResult
from evaluation.matches_file import MATCHES, write_matches
from evaluation.row_key import CONTROLS, SHARES, RowKey
from tests.evaluation.comparison.synthetic import results_of
from tests.evaluation.test_map_bootstrap import drawn_set
from utils.config import config_to_dict

POLICIES = [("learned", None), ("all_fast", None), ("all_quality", None)]
POLICIES += [(kind, share) for kind in SHARES for share in (0.25, 0.5)]
STATIC = ["hr", "lr", "bicubic", "bicubic_2x", "sr_fast", "sr_quality"]
STATIC_KEYS = [RowKey("bicubic", upscale=2) if name == "bicubic_2x" else RowKey(name) for name in STATIC]
LABELLED = [RowKey("bicubic", "retrained"), RowKey("hr", "retrained"), RowKey("bicubic", "retrained", upscale=2)]
LABELLED += [RowKey("sliced", "retrained"), RowKey("sr_quality", "frozen", "tuned")]
LABELLED += [RowKey("conditional", family).under(*policy) for family in ("frozen", "retrained") for policy in POLICIES]


def measured(tmp_path: Path) -> Path:
    """The folder of a comparison with two seeds and two label shares, pictures and detections for the first."""
    measurements = []
    for seed in (0, 1):
        for share in (1.0, 0.2):
            folder = tmp_path / "cache" / f"measure-{seed}-{share}" / "run"
            folder.mkdir(parents=True)
            keys = LABELLED + (STATIC_KEYS if share == 1.0 else [])
            results = results_of(keys, seed, timed=seed == 0 and share == 1.0)
            (folder / "results.json").write_text(json.dumps(results))
            measurements.append({"seed": seed, "label_share": share, "folder": str(folder)})
    first = Path(measurements[0]["folder"])
    pictures = first / "overlays" / "frozen" / "conditional"
    pictures.mkdir(parents=True)
    cv2.imwrite(str(pictures / "00000_a.png"), np.zeros((40, 2000, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "image.png"), np.full((120, 160, 3), 90, np.uint8))
    box = {"image_id": 0, "category_id": 1, "bbox": [20, 20, 16, 16]}
    rows: dict[str, list] = {key.name: [] for key in (*STATIC_KEYS, *LABELLED)}
    rows |= {"hr": [box | {"score": 0.8}], "retrained/bicubic": [box | {"score": 0.7}]}
    detections = {"images": [{"id": 0, "file_name": str(tmp_path / "image.png"), "height": 120, "width": 160}]}
    detections |= {"categories": [{"id": 1, "name": "dark"}], "annotations": [box | {"id": 1}], "detections": rows}
    (first / "detections.json").write_text(json.dumps(detections))
    config = CompareConfig(about="Drawn squares.", out=str(tmp_path), data="/some/place/data.yaml")
    index = {"command": "python compare.py --config my.yaml", "config": config_to_dict(config)}
    index |= {"measurements": measurements, "missing": ["retrained/sr_fast-labels1-seed1"]}
    index["trainings"] = [{"name": "stage1-labels1-seed0", "seconds": 90.0}]
    (tmp_path / "comparison.json").write_text(json.dumps(index))
    return tmp_path


def keep_matches(folder: Path, rows: dict[RowKey, dict]) -> dict[RowKey, dict]:
    """Matches for every row, drawn by its name; returns the rows with the mAP that they give."""
    truth, found = drawn_set(0, 8)
    kept = {row["name"]: np.random.default_rng(sum(map(ord, row["name"]))).random(8) < 0.8 for row in rows.values()}
    splits = {
        name: SplitResult([boxes[: len(boxes) if own[i] else 1] for i, boxes in enumerate(found)], truth)
        for name, own in kept.items()
    }
    write_matches(folder / MATCHES, ("a", "b", "c"), splits)
    maps = {name: result.metrics(("a", "b", "c"))["map50_95"] for name, result in splits.items()}
    return {key: row | {"map50_95": maps[row["name"]]} for key, row in rows.items()}


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """One to be changed."""
    return measured(tmp_path)


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> tuple[Path, tuple[str, dict, str]]:
    """One to be looked at, with its Markdown, JSON and HTML: drawing takes seconds."""
    folder = measured(tmp_path_factory.mktemp("finished"))
    return folder, report_of(folder)


def report_of(folder: Path) -> tuple[str, dict, str]:
    """Markdown, JSON and HTML of a run."""
    index, repetitions = read_comparison(folder)
    content = report_content(index, repetitions)
    text = write_comparison(content, folder / "table.md", folder / "results.json")
    write_page(folder / "report.html", content, repetitions, failures=3)
    assert text == (folder / "table.md").read_text()
    return text, json.loads((folder / "results.json").read_text()), (folder / "report.html").read_text()


def section(text: str, title: str) -> str:
    return re.split(r"\n#+ ", text.split(f" {title}\n", 1)[1])[0]


def test_json_has_a_figure_for_every_quantity(report):
    finished, (_, content, _) = report
    rows = {row["name"]: row for row in content["rows"]}
    assert {f"frozen/{name}" for name in STATIC} | {key.name for key in LABELLED} == rows.keys()
    assert all(RowKey.of(row).name == name and row["label_share"] == 1.0 for name, row in rows.items())
    assert {row["label_share"] for row in content["sweep"]["0.2"]} == {0.2}
    assert (
        rows["retrained/hr"]["map50_95"].keys() == {"mean", "std", "n"} and rows["retrained/hr"]["map50_95"]["n"] == 2
    )
    assert rows["retrained/hr"]["gap_recovered"]["mean"] == pytest.approx(1)
    assert rows["frozen/bicubic"]["gap_recovered"]["mean"] == pytest.approx(0)
    assert content["sweep"].keys() == {"0.2"} and content["label_share"] == 1.0
    text = json.dumps(content)
    assert str(finished) not in text and "/some/place" not in text


def test_tables(report):
    finished, (text, content, _) = report
    assert text.startswith(
        "# drawn, x4\n\nDrawn squares.\n\ndrawn, split val: 4 images, x4, LR = HR shrunk; a processor, fp32, 1 thread,"
    )
    assert "`python compare.py --config my.yaml`." in text
    own = report_markdown(content | {"comparison": content["comparison"] | {"title": "Squares, small"}})
    assert own.startswith("# Squares, small\n\n") and title_of(content) == "drawn, x4"
    assert "| retrained/" in section(text, "Claims")
    for family in ("frozen", "retrained"):
        assert f"![mAP against time](table_{family}.png)" in text
        assert (finished / f"table_{family}.png").read_bytes().startswith(b"\x89PNG")
    frozen = section(text, "Frozen detector")
    lines = [line.split("|")[1].strip() for line in frozen.splitlines() if line.startswith("|")]
    assert lines[:8] == ["row", "-" * len(lines[1]), *STATIC] and "conditional_budget_0.25" in lines
    assert not any(f"conditional_{kind}_0.25" in lines for kind in CONTROLS)
    assert "Gap in mAP50-95 between hr and bicubic: 0.200." in frozen
    row = next(line for line in frozen.splitlines() if line.startswith("| bicubic"))
    assert "0.305 ± 0.007" in row and "2.50M" in row
    masks = section(text.split("## Retrained detector")[1], "Which patches: masks of the same kept share, mAP50-95")
    assert re.search(r"\| conditional \| 0.25 \| +0.43", masks) and "oracle" in masks
    labels = section(text, "Fewer labels, mAP50-95 (gap recovered)")
    assert "100% of the labels" in labels and "20% of the labels" in labels
    by_name = {row["name"]: row for row in content["rows"]}
    recovered = by_name["frozen/conditional_budget_0.25"]["gap_recovered"]["mean"]
    line = next(line for line in labels.splitlines() if "conditional_budget_0.25" in line)
    assert f"({recovered:.0%})" in line and "(" not in next(
        x for x in labels.splitlines() if x.startswith("| bicubic ")
    )
    assert "it recovers more of the gap the fewer labels there are" in section(text, "Claims")
    assert "stage1-labels1-seed0" in text and "1.5" in section(text, "Trainings")
    assert "retrained/sr_fast-labels1-seed1" in section(text, "Missing")
    assert len(content["rows"]) > 20


def test_claims_without_matches_are_undecided(report):
    """As of evaluations that kept none."""
    _, (text, content, _) = report
    verdicts = {claim["verdict"] for claim in content["claims"]}
    assert verdicts <= {"undecided (no interval)", "undecided", "no"}, "no: it takes longer than half of the time"
    assert "undecided (no interval) |" in section(text, "Claims")
    assert not any(part["interval"] for claim in content["claims"] for part in claim["parts"])


def test_claims_have_the_intervals_of_the_matches(finished: Path):
    index, repetitions = read_comparison(finished)
    for measured in repetitions:
        measured.rows.update(keep_matches(measured.folder, measured.rows))
    text = report_markdown(report_content(index, repetitions))
    claims = section(text, "Claims")
    assert "(no interval)" not in claims
    assert re.search(r"0\.25: [+-]0\.\d{3} \[[+-]0\.\d{3}, [+-]0\.\d{3}\] random", claims)
    assert "of 2,000 draws of the test images" in claims and "rest on fewer than the 3 that are asked for" in claims


def test_the_page_states_the_claims_of_the_json(report):
    content = deepcopy(report[1][1])
    content["claims"][0]["found"] = "as the JSON says"
    assert "as the JSON says" in report_markdown(content)


def test_a_small_gap_is_not_divided_by(finished: Path):
    for file in finished.rglob("cache/*/run/results.json"):
        content = json.loads(file.read_text())
        for row in content["rows"]:
            row["map50_95"] = 0.304 if row["system"] == "hr" else 0.3
        file.write_text(json.dumps(content))
    text, content, _ = report_of(finished)
    assert text.count("0.004. Less than 0.005 is no gap: there is nothing to recover.") == 2
    assert "Gap recovered =" not in text and "gap recovered" not in section(text, "Retrained detector")


class Checker(HTMLParser):
    """Every opened element of these kinds is closed, and nothing is loaded from elsewhere."""

    def __init__(self):
        super().__init__()
        self.open, self.count = [], {}

    def handle_starttag(self, tag, attributes):
        self.count[tag] = self.count.get(tag, 0) + 1
        for name, value in attributes:
            if name in ("src", "href"):
                assert value.startswith(("data:image/", "#")), value
        if tag in ("table", "figure", "svg", "body", "figcaption"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in ("table", "figure", "svg", "body", "figcaption"):
            assert self.open.pop() == tag


def test_page_is_whole_and_needs_nothing_else(report):
    _, (_, _, page) = report
    checker = Checker()
    checker.feed(page)
    assert not checker.open
    assert checker.count["svg"] == 6, "three pictures for each family"
    assert checker.count["img"] == 3, "one mask picture, one missed object for each family"
    assert "<link" not in page and "<script" not in page
    assert "frozen/conditional, 00000_a" in page and "image.png: found by hr; panels: ground truth" in page
    assert "objects that conditional_budget_0.5 misses" in page


def test_the_same_results_give_the_same_page(report):
    folder, written = report
    assert report_of(folder) == written


def test_rows_that_were_not_asked_for_are_left_out(finished: Path):
    index = json.loads((finished / "comparison.json").read_text())
    index["config"]["rows"] = ["retrained/conditional"]
    (finished / "comparison.json").write_text(json.dumps(index))
    text, content, _ = report_of(finished)
    keys = {RowKey.of(row) for row in content["rows"]}
    assert set(REFERENCES["retrained"]) <= keys and {key.family for key in keys} == {"retrained"}
    assert "Frozen detector" not in text


def test_no_gap_is_said(finished: Path):
    for file in finished.rglob("cache/*/run/results.json"):
        content = json.loads(file.read_text())
        for row in content["rows"]:
            row["map50_95"] = 0.3
        file.write_text(json.dumps(content))
    text, content, _ = report_of(finished)
    assert "nothing to recover" in text and all(row["gap_recovered"] is None for row in content["rows"])


def test_a_folder_without_a_comparison_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="give the folder `out` of a comparison"):
        read_comparison(tmp_path)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        ({"mean": 0.3012, "std": 0.0042, "n": 3}, "0.301 ± 0.004"),
        ({"mean": 0.3, "std": None, "n": 1}, "0.300"),
    ],
)
def test_figure_text(value, text: str):
    assert figure_text("map50_95", value) == text


def test_markdown_tables_become_html():
    page = tables("# A < B\n\n| row | x |\n|---|--:|\n| a\\|b | `1` |\n\nText & more.")
    assert "<h1>A &lt; B</h1>" in page and "<p>Text &amp; more.</p>" in page
    assert "<tr><th>row</th><th>x</th></tr><tr><td>a|b</td><td><code>1</code></td></tr>" in page


# ---------------------------------------------------------------------- curves


def test_budgets_of_a_system_make_one_curve():
    system, hr = RowKey("conditional", "frozen"), RowKey("hr", "frozen")
    more, less = (system.under("budget", share) for share in (0.5, 0.1))
    assert curves_of([more, less, hr]) == {system.under("budget"): [less, more], hr: [hr]}
    assert system.under("budget").short == "conditional_budget", "the legend"


def test_precision_recall_shows_one_budget_per_system(report):
    _, (_, content, _) = report
    keys = curve_rows([row for row in content["rows"] if row["family"] == "retrained"])
    assert [key.name for key in keys if key.policy] == ["retrained/conditional_budget_0.5"]


def test_pictures_without_content_are_left_out():
    assert draw_pareto_front([], "t") is None and draw_precision_recall({}, "t") is None
    assert draw_sweep({"1": []}, "frozen", "t") is None


def test_svg_is_an_element_with_the_names_in_it():
    text = svg(draw_precision_recall({RowKey("hr", "frozen"): [1.0, 0.5, 0.0]}, "Title"))
    assert text.startswith("<svg") and text.rstrip().endswith("</svg>") and "Title" in text and "hr" in text
