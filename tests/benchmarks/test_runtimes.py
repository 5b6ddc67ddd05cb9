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
NATIVE = ("native kernel", "int8")


@needs_extra("export")
@pytest.mark.parametrize("detectors", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_an_sr_network_and_a_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, detectors: int):
    # Where the kernel is not built its definition stands in.
    monkeypatch.setattr("deployment.native_execution.NativeNetwork", lambda network, dtype: network)
    detector = tiny_system().detector
    save_network(
        tmp_path / "tiny.pth", "detector", detector.spec["name"], detector.spec["args"], detector.state_dict(), {}
    )
    images = draw_photographs(tmp_path / "images", size=(32, 40))
    out = tmp_path / "runtimes.json"
    words = ["--networks", "edsr_2x16", "--lr", "16", "24", "--rounds", "2", "--hr", str(images), "--data", str(images)]
    if detectors:
        words += ["--detectors", str(tmp_path / "tiny.pth"), "--detector-data", str(images), "--imgsz", "32", "48"]
    assert main([*words, "--json", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [(row["part"], row["runtime"], row["precision"]) for row in rows] == [
        ("edsr_2x16", *way) for way in [*WAYS, NATIVE]
    ] + [("tiny", *way) for way in WAYS] * detectors
    network, found = rows[:6], rows[6:]
    assert max(row["psnr_y"] for row in network[:3]) - min(row["psnr_y"] for row in network[:3]) < 1e-3
    assert all(0.001 < abs(row["psnr_y"] - network[0]["psnr_y"]) < 2 for row in network[3:5])
    assert 1e-6 < abs(network[5]["psnr_y"] - network[0]["psnr_y"]) < 0.05  # first and last layer are fp32
    assert network[3]["mb"] < 0.6 * network[1]["mb"] and network[0]["mb"] is None and network[0]["ratio"] == 1
    assert all(row["box_px"] < 1e-2 for row in found[1:3])
    page = out.with_suffix(".md").read_text()
    assert page.count("| edsr_2x16 |") == 6 and page.count("| tiny |") == 5 * detectors and "2 rounds in turn" in page


def test_what_is_missing_is_named(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit):
        main(["--networks", "edsr_2x16"])
    assert "SR networks need --hr and --data" in capsys.readouterr().err
