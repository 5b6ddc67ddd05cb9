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

WAYS = [("PyTorch, fused", "fp32"), ("onnxruntime", "fp32"), ("OpenVINO", "fp32"), ("OpenVINO", "bf16"),
        ("onnxruntime", "int8"), ("OpenVINO", "int8"), ("PyTorch, fused", "bf16")]  # fmt: skip
NATIVE = [("native kernel", precision) for precision in ("fp32", "bf16", "int8")]


@needs_extra("export")
@pytest.mark.parametrize("detectors", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_an_sr_network_and_a_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, detectors: int):
    # As on a CPU with bf16, and with all kernels built: elsewhere PyTorch stands in.
    monkeypatch.setattr("benchmarks.runtimes.has_bf16", lambda: True)
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
        ("edsr_2x16", *way) for way in [*WAYS, *NATIVE]
    ] + [("tiny", *way) for way in WAYS] * detectors
    network, found = rows[: len(WAYS) + 3], rows[len(WAYS) + 3 :]
    exact = network[0]["psnr_y"]
    off = {(row["runtime"], row["precision"]): abs(row["psnr_y"] - exact) for row in network}
    assert all(off[way] < 1e-3 for way in off if way[1] == "fp32")
    assert all(0.001 < off[runtime, "int8"] < 2 for runtime in ("onnxruntime", "OpenVINO"))
    assert 1e-6 < off["PyTorch, fused", "bf16"] < 0.2 and off["OpenVINO", "bf16"] < 0.2
    assert 1e-6 < off["native kernel", "int8"] < 0.05  # first and last layer are fp32
    assert network[4]["mb"] < 0.6 * network[1]["mb"] and network[0]["mb"] is None and network[0]["ratio"] == 1
    assert all(row["box_px"] < 1e-2 for row in found[1:3])
    page = out.with_suffix(".md").read_text()
    assert page.count("| edsr_2x16 |") == 10 and page.count("| tiny |") == 7 * detectors and "2 rounds in turn" in page


def test_what_is_missing_is_named(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit):
        main(["--networks", "edsr_2x16"])
    assert "SR networks need --hr and --data" in capsys.readouterr().err
