"""The benchmark of bulk inference at toy size: the plain loop, without Ray."""

from __future__ import annotations

import json

from benchmarks import bulk_throughput
from tests.extras import needs_extra

pytestmark = needs_extra("bulk")


def test_the_plain_loop_is_measured(tmp_path):
    words = ["--images", "60", "--workers", "0", "--chunk", "4", "--folder", str(tmp_path / "work")]
    assert bulk_throughput.main([*words, "--json", str(tmp_path / "out.json")]) == 0
    (row,) = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert row["images"] == 60 and row["rate"] > 0 and row["total_s"] >= row["start_s"] >= 0
    assert len(row["largest_mb"]) == len(row["growth_mb"]) == 1 and row["largest_mb"][0] > 50
