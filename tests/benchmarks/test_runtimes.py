"""benchmarks/runtimes.py: every way of a part, its loss beside its time, and the page from the figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.runtimes import main
from tests.deployment.export.tiny import tiny_system
from tests.drawn import draw_photographs
from tests.extras import needs_extra
from utils.checkpoint import save_network

WAYS = [("PyTorch, fused", "fp32"), ("onnxruntime", "fp32"), ("OpenVINO", "fp32"), ("onnxruntime", "int8"),
        ("OpenVINO", "int8")]  # fmt: skip


@needs_extra("export")
def test_an_sr_network_and_a_detector(tmp_path: Path):
    detector = tiny_system().detector
    save_network(
        tmp_path / "tiny.pth", "detector", detector.spec["name"], detector.spec["args"], detector.state_dict(), {}
    )
    images = draw_photographs(tmp_path / "images", size=(32, 40))
    out = tmp_path / "runtimes.json"
    words = ["--networks", "edsr_2x16", "--detectors", str(tmp_path / "tiny.pth"), "--lr", "16", "24", "--rounds", "2"]
    words += ["--hr", str(images), "--data", str(images), "--detector-data", str(images), "--imgsz", "32", "48"]
    assert main([*words, "--json", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [(row["part"], row["runtime"], row["precision"]) for row in rows] == [
        (part, *way) for part in ("edsr_2x16", "tiny") for way in WAYS
    ]
    network, found = rows[:5], rows[5:]
    assert max(row["psnr_y"] for row in network[:3]) - min(row["psnr_y"] for row in network[:3]) < 1e-3
    assert all(0.001 < abs(row["psnr_y"] - network[0]["psnr_y"]) < 2 for row in network[3:])
    assert network[3]["mb"] < 0.6 * network[1]["mb"] and network[0]["mb"] is None and network[0]["ratio"] == 1
    assert all(row["box_px"] < 1e-2 for row in found[1:3])
    page = out.with_suffix(".md").read_text()
    assert page.count("| edsr_2x16 |") == 5 and page.count("| tiny |") == 5 and "2 rounds in turn" in page


def test_what_is_missing_is_named(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit):
        main(["--networks", "edsr_2x16"])
    assert "SR networks need --hr and --data" in capsys.readouterr().err
