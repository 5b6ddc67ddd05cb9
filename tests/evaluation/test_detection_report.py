"""Tables and the Pareto picture from made-up results."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import cv2
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from evaluation.detection_report import COLUMNS, table_csv, table_markdown, write_report
from evaluation.pareto import draw_pareto
from evaluation.results_header import data_set_name
from evaluation.row_key import SHARES, RowKey


def made_row(key: RowKey, quality: float | None, ms: float | None, **values) -> dict:
    row = (
        dict.fromkeys(COLUMNS)
        | {"name": key.name}
        | key.record()
        | {"map50_95": quality, "total_ms": ms, "params": 2_590_000}
    )
    return row | {"kept_inside": 0.9, "psnr": float("inf")} | values


def made_results() -> dict:
    rows = [made_row(RowKey("hr"), 0.52, 40.0), made_row(RowKey("lr"), 0.1, 8.0)]
    rows.append(made_row(RowKey("bicubic"), 0.31, 41.0, sr_gmacs=0.123))
    for kind, gain in (("budget", 0.1), ("random", 0.02), ("edge", 0.05)):
        rows += [
            made_row(RowKey("conditional").under(kind, share), 0.35 + gain * share, 45 + 40 * share, kept_share=share)
            for share in (0.1, 0.25, 0.5)
        ]
    rows.append(made_row(RowKey("broken"), None, None, params=940))
    results = {"dataset": "rings", "split": "val", "scale": 4, "lr_protocol": "bicubic", "device": "cpu"}
    return results | {"dtype": "fp32", "threads": 2, "versions": {"torch": "2.15"}, "rows": rows}


def test_markdown_is_aligned_and_dashes_what_is_undefined():
    lines = table_markdown(made_results()["rows"]).splitlines()
    assert len({len(line) for line in lines}) == 1, "every line is as wide as the others"
    assert all(line.count("|") == len(COLUMNS) + 1 for line in lines)
    first = [cell.strip() for cell in lines[2].split("|")[1:-1]]
    assert first[:3] == ["hr", "0.520", "-"] and "2.59M" in first and "40.0" in first
    assert "0.12" in lines[4] and "0.9K" in lines[-1]


@pytest.mark.parametrize(
    "yaml, name",
    [("/a/hit_uav/hit_uav.yaml", "hit_uav"), ("/a/bccd/data.yaml", "bccd"), ("/runs/demo/data/data.yaml", "demo")],
)
def test_data_set_is_named_by_what_says_most(yaml: str, name: str):
    assert data_set_name(Path(yaml)) == name


def test_csv_keeps_all_digits():
    rows = list(
        csv.DictReader(io.StringIO(table_csv([made_row(RowKey("conditional").under("edge", 0.1), 1 / 3, None)])))
    )
    assert float(rows[0]["map50_95"]) == 1 / 3
    assert rows[0]["total_ms"] == "" and rows[0]["psnr"] == "" and rows[0]["params"] == "2590000"
    assert [rows[0][key] for key in ("system", "family", "policy", "budget")] == ["conditional", "", "edge", "0.1"]


def test_report_files(tmp_path: Path):
    results = made_results()
    table = write_report(tmp_path, results)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pareto.png", "results.json", "table.csv", "table.md"]
    stored = json.loads((tmp_path / "results.json").read_text())
    assert list(stored) == list(results)
    assert stored["rows"][0]["psnr"] is None, "an infinite number is no JSON"
    text = (tmp_path / "table.md").read_text()
    assert table in text and "rings, split val: x4, bicubic; cpu, fp32, 2 threads" in text
    picture = cv2.imread(str(tmp_path / "pareto.png"))
    assert picture is not None and picture.std() > 5


def boxes_of_labels(figure) -> list:
    renderer = FigureCanvasAgg(figure).get_renderer()
    for label in figure.axes[0].texts:
        label.update_positions(renderer)
    return [Text.get_window_extent(label, renderer) for label in figure.axes[0].texts]


def test_labels_do_not_cover_each_other():
    figure = draw_pareto(made_results())
    labels = boxes_of_labels(figure)
    assert len(labels) == 12, "one for every row with a time and an mAP"
    overlaps = sum(a.overlaps(b) for i, a in enumerate(labels) for b in labels[i + 1 :])
    assert overlaps == 0


def test_curves_of_several_systems_have_their_own_colours():
    systems = RowKey("conditional", "frozen"), RowKey("b")
    keys = [system.under(kind, share) for system in systems for kind in ("oracle", "edge") for share in (0.5, 0.1)]
    keys += [RowKey("b", policy="learned"), RowKey("b_edge_1.2.3"), RowKey("sahi/2")]
    rows = [made_row(key, 0.1 * i, 10.0 + i) for i, key in enumerate(keys)]
    axes = draw_pareto({**made_results(), "rows": rows}).axes[0]
    lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert len(lines) == 4 and "frozen/conditional, patches with objects (oracle)" in lines
    colours = {legend.partition(",")[0]: line.get_color() for legend, line in lines.items()}
    assert len(set(colours.values())) == 2
    assert list(lines["b, patches with edges"].get_xdata()) == [17.0, 16.0], "by ascending share"
    single = [line for line in axes.lines if line.get_marker() == "D"]
    assert [line.get_color() for line in single] == [colours["b"], "tab:red", "tab:red"]
    assert {text.get_text() for text in axes.texts} == {"0.5", "0.1", "b learned", "b edge 1.2.3", "sahi/2"}


def test_the_legend_covers_no_point():
    """Four curves of three systems, from corner to corner."""
    keys = [RowKey(name).under(kind, share) for name in ("conditional", "a", "b") for kind in SHARES
            for share in (0.1, 0.25, 0.5)]  # fmt: skip
    results = {**made_results(), "rows": [made_row(key, 0.01 * i, 10.0 + i) for i, key in enumerate(keys)]}
    figure = draw_pareto(results)
    axes, renderer = figure.axes[0], FigureCanvasAgg(figure).get_renderer()
    box = axes.get_legend().get_window_extent(renderer)
    assert len(axes.get_legend().get_texts()) == 12 and not box.overlaps(axes.get_window_extent(renderer))
    assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1, "all of it is on the picture"


def test_many_equal_points_are_all_labelled():
    figure = draw_pareto({**made_results(), "rows": [made_row(RowKey(f"row{i}"), 0.0, 10.0) for i in range(12)]})
    assert [text.get_text() for text in figure.axes[0].texts] == [f"row{i}" for i in range(12)]


@pytest.mark.parametrize("rows", [[], [made_row(RowKey("a"), None, None)]])
def test_picture_without_points_says_so(rows: list):
    texts = draw_pareto({**made_results(), "rows": rows}).axes[0].texts
    assert texts[0].get_text() == "no row has both a time and an mAP"
