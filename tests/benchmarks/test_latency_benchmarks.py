"""The benchmarks of whole calls and of the latency predictor run and add up."""

from __future__ import annotations

import json

import pytest

from benchmarks import latency_predictor, whole_call
from tests.drawn import draw_detection_set


def test_whole_calls(tmp_path):
    file = tmp_path / "rows.json"
    assert whole_call.main(["--lr", "40x32", "--rounds", "1", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())["rows"]
    assert [(row["tail"], row["r"]) for row in rows] == [(t, r) for t in whole_call.TAILS for r in whole_call.SHARES]
    for row in rows:
        assert row["ratio_to_all_quality"] > 0 and row["total_ms"] > 0
        assert row["r"] < 1 or row["ratio_to_all_quality"] == 1


@pytest.mark.slow
def test_predicted_and_measured(tmp_path):
    config, file = tmp_path / "stage3.yaml", tmp_path / "rows.json"
    config.write_text(
        f"data: {{yaml: {draw_detection_set(tmp_path / 'set')}, imgsz: 128, scale: 2}}\nmasker: {{patch: 8}}\n"
        "sr_quality: {name: edsr, args: {n_blocks: 1, n_feats: 4}}\n"
    )
    argv = ["--config", str(config), "--imgsz", "128", "128", "--rounds", "1", "--json", str(file)]
    assert latency_predictor.main(argv) == 0
    results = json.loads(file.read_text())
    assert len(results["rows"]) == 3 * 5 + 3
    for row in results["rows"]:
        assert row["error"] == pytest.approx(row["predicted_ms"] / row["measured_ms"] - 1)
