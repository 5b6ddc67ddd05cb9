"""The benchmark of short halos: with a halo of the whole receptive field nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import halo_cost
from models import build_sr
from tests.drawn import draw_photographs
from utils.checkpoint import save_network


def test_what_a_short_halo_costs(tmp_path: Path, capsys):
    network = build_sr("espcn", 2, {"n_feats": 8})  # sees 4 LR pixels to each side
    weights = tmp_path / "sr_fast_pretrained.pth"
    save_network(weights, "sr", "espcn", network.spec["args"], network.state_dict(), {})
    photographs = draw_photographs(tmp_path / "photographs", images=2, size=(64, 64))
    figures = tmp_path / "rows.json"
    halo_cost.main(["--weights", str(weights), "--hr", str(photographs), "--json", str(figures)])
    rows = json.loads(figures.read_text())["rows"]
    assert [(row["patch"], row["halo"]) for row in rows] == [(p, h) for p in halo_cost.PATCHES for h in halo_cost.HALOS]
    lost = {(row["patch"], row["halo"]): row["psnr"] - row["dense"] for row in rows}
    assert all(10 < row["dense"] < 60 for row in rows)
    assert all(lost[patch, 4] == pytest.approx(0, abs=1e-3) for patch in halo_cost.PATCHES)
    assert abs(lost[8, 0]) > 0.01, "without neighbours borders are seen"
    printed = capsys.readouterr().out
    assert f"dense {rows[0]['dense']:.3f} dB, 2 images" in printed and f"{lost[8, 0]:+.3f}" in printed
