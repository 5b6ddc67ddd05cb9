"""The design search: predictions from costs, what fits, what is proposed, and a run on small networks."""

from __future__ import annotations

import json

import pytest

from models.tiling.tile_plan import Geometry
from tools.design_search import Costs, best_design, main, predicted_ms, propose

GEOMETRY = Geometry(64, 64, 16, 2)  # 16 patches in windows of 400 pixels
COSTS = Costs(8, 32, call_ms=1.0, pixel_ms=0.01, dense_ms=45.0, pixel_macs=1e5)


def test_predicted_milliseconds():
    ms = [predicted_ms(COSTS, GEOMETRY, kept, rest_ms=20, fast_ms=2) for kept in (0, 1, 4, 15, 16)]
    assert ms == pytest.approx([22, 22 + 1 + 4, 22 + 1 + 16, 22 + 45, 20 + 45])


def test_the_largest_share_that_fits():
    design = best_design(COSTS, GEOMETRY, latency_ms=40, rest_ms=20, fast_ms=2, fast_macs=1e6)
    assert design.kept_share == 4 / 16 and design.ms == pytest.approx(39)
    assert design.sr_gmacs == pytest.approx((4 * 400 * 1e5 + 1e6) / 1e9)
    assert best_design(COSTS, GEOMETRY, 66, 20, 2, 1e6).kept_share == 1, "everywhere SR_Fast is not needed"
    assert best_design(COSTS, GEOMETRY, 10, 20, 2, 1e6).kept_share == 0


def test_the_strongest_network_with_enough_patches_is_proposed():
    weak, strong = (best_design(COSTS, GEOMETRY, limit, 20, 2, 0) for limit in (60, 30))
    weak = weak.__class__(**{**weak.__dict__, "depth": 4})
    macs = {(4, 32): 1e4, (8, 32): 1e5}
    assert propose([weak, strong], 0.05, macs) == strong
    assert propose([weak, strong], 0.5, macs) == weak
    assert propose([weak, strong], 0.99, macs) is None


def test_a_run(tmp_path, capsys):
    out = tmp_path / "design"
    argv = ["--imgsz", "64", "--scale", "2", "--latency_ms", "1000", "--depths", "1", "--widths", "4", "8"]
    argv += ["--rounds", "1", "--classes", "2", "--out", str(out)]
    assert main(argv) == 0
    assert "Proposal: sr_quality.args {n_blocks: 1, n_feats: 8, tail: single}" in capsys.readouterr().out
    record = json.loads((out / "designs.json").read_text())
    assert len(record["designs"]) == 2 * 3 and record["proposal"]["kept_share"] == 1
    assert (out / "designs.png").stat().st_size > 1000 and "GMAC" in (out / "table.md").read_text()
    with pytest.raises(SystemExit):
        main(argv)
    assert "not an empty folder" in capsys.readouterr().err
