"""int8 files: what is rounded, what stays, and that the loss is said."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import export
from deployment.export.graphs import DetectorGraph, SRGraph
from deployment.export.parity import runtime
from deployment.export.quantise import (
    SIDE,
    Int8Loss,
    after_last_convolution,
    calibration_images,
    check_quantisable,
    measure_loss,
)
from deployment.export.traced import ExportOptions
from models import build_sr
from tests.deployment.export.tiny import tiny_system
from tests.drawn import draw_photographs
from tests.extras import needs_extra
from utils.checkpoint import save_network
from utils.errors import UserError

needs_export = needs_extra("export")


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    return draw_photographs(tmp_path / "photographs", size=(50, 46))


@needs_export
def test_an_sr_network_in_both_formats(tmp_path: Path, photographs: Path, capsys):
    onnx = pytest.importorskip("onnx")
    words = ["--weights", "edsr_2x16", "--scale", "4", "--out", str(tmp_path), "include=onnx,openvino"]
    assert export.main([*words, "int8=True", f"data={photographs}"]) == 0
    told = [line.strip() for line in capsys.readouterr().out.splitlines() if "int8 against" in line]
    assert len(told) == 2 and all(35 < float(line.split()[3]) < 60 for line in told)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"photographs", "edsr_2x16_int8.onnx", "edsr_2x16_int8_openvino_model"}
    model = onnx.load(str(tmp_path / "edsr_2x16_int8.onnx"))
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    made_by = {output: node.op_type for node in model.graph.node for output in node.output}
    assert len(convolutions) > 5
    assert all({made_by[name] for name in node.input[:2]} == {"DequantizeLinear"} for node in convolutions)
    assert {entry.key: entry.value for entry in model.metadata_props}["args"].find("'int8': True") > 0
    network = export_network()
    for batch, *sides in ((2, 33, 21), (1, 64, 40)):
        lr = F.interpolate(torch.rand(batch, 3, 4, 4), sides, mode="bicubic").clamp(0, 1)
        (got,) = runtime("onnx", tmp_path / "edsr_2x16_int8.onnx")(lr.numpy())
        with torch.no_grad():
            expected = network(lr)[0].numpy()
        assert got.shape == expected.shape and np.sqrt(np.square(got - expected).mean()) < 0.03


def export_network() -> SRGraph:
    from loading.assembled_system import ready_network

    return SRGraph(ready_network("edsr_2x16", 4)).eval()


@needs_export
def test_sizes_may_be_fixed(tmp_path: Path, photographs: Path, capsys):
    words = ["--weights", "edsr_2x16", "--scale", "4", "--out", str(tmp_path), "include=onnx,openvino", "int8=True"]
    assert export.main([*words, f"data={photographs}", "dynamic=False", "imgsz=[24, 32]", "batch=2"]) == 0
    assert capsys.readouterr().out.count("int8 against PyTorch") == 2
    (sr,) = runtime("onnx", tmp_path / "edsr_2x16_int8.onnx")(np.zeros((2, 3, 24, 32), np.float32))
    assert sr.shape == (2, 3, 96, 128)


@needs_export
def test_what_decodes_the_boxes_of_a_detector_is_not_rounded(tmp_path: Path, photographs: Path, capsys):
    onnx = pytest.importorskip("onnx")
    detector = tiny_system().detector
    save_network(
        tmp_path / "d.pth", "detector", detector.spec["name"], detector.spec["args"], detector.state_dict(), {}
    )
    words = ["--weights", str(tmp_path / "d.pth"), "--include", "onnx", "--imgsz", "64", "--int8"]
    assert export.main([*words, "--data", str(photographs)]) == 0
    assert "int8 against PyTorch: " in capsys.readouterr().out
    nodes = onnx.load(str(tmp_path / "d_int8.onnx")).graph.node
    assert sum(node.op_type == "QuantizeLinear" for node in nodes) > 5
    makers = {output: node for node in nodes for output in node.output}
    waiting, seen = ["output0"], set()
    while waiting:  # from the result back to the last convolutions; sizes are no values
        node = makers.get(waiting.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        assert node.op_type not in ("QuantizeLinear", "DequantizeLinear")
        if node.op_type not in ("Conv", "Shape") or "dfl" in node.name:
            waiting += node.input
    assert len(seen) > 10


def test_what_follows_the_last_layer_with_weights():
    def node(name: str, kind: str, given: str, made: str) -> SimpleNamespace:
        return SimpleNamespace(name=name, op_type=kind, input=given.split(), output=[made])

    nodes = [
        node("resize", "Resize", "x", "r"),
        node("one", "Conv", "x w", "a"),
        node("act", "Relu", "a", "b"),
        node("two", "Conv", "b v", "c"),
        node("add", "Add", "c r", "d"),
        node("softmax", "Softmax", "d", "e"),
        node("/head/dfl/conv", "Conv", "e u", "f"),
        node("clip", "Clip", "f", "g"),
    ]
    assert set(after_last_convolution(nodes)) == {"resize", "add", "softmax", "/head/dfl/conv", "clip"}


def test_calibration_images_are_what_the_graph_takes(tmp_path: Path):
    folder = draw_photographs(tmp_path / "a", size=(SIDE + 9, 40))
    for image in calibration_images(folder, None):
        assert image.shape == (1, 3, SIDE, 40) and image.dtype == np.float32 and 0 <= image.min() < image.max() <= 1
    letterboxed = calibration_images(folder, (64, 96))
    assert all(image.shape == (1, 3, 64, 96) for image in letterboxed)
    assert all(abs(image[..., :20] - 114 / 255).max() < 1e-6 for image in letterboxed)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no image"):
        calibration_images(tmp_path / "empty", None)


def test_the_loss_of_images_is_their_psnr():
    graph, images = SRGraph(build_sr("bicubic", 2, {})).eval(), [np.full((1, 3, 8, 8), 0.5, np.float32)] * 3

    def off_by(error: float) -> Int8Loss:
        return measure_loss(lambda image: [graph(torch.from_numpy(image))[0].numpy() + error], graph, images)

    assert off_by(0.01).psnr == pytest.approx(40, abs=0.01) and off_by(0.01).bearable
    assert off_by(0.1).psnr == pytest.approx(20, abs=0.01) and not off_by(0.1).bearable
    assert "bears no int8" in str(off_by(0.1)) and "40.0 dB" in str(off_by(0.01))


def test_the_loss_of_a_detector_is_that_of_its_certain_boxes():
    detector = tiny_system().detector
    graph, images = DetectorGraph(detector).eval(), [np.random.default_rng(0).random((1, 3, 64, 64), np.float32)]
    with torch.no_grad():
        (exact,) = graph(torch.from_numpy(images[0]))
    certain = exact[0, 4:].max(0).values >= 0.25
    assert 0 < certain.sum() < certain.numel()
    moved = exact.clone()
    moved[:, :4, certain] += 2
    moved[:, 4:, certain] -= 0.1
    moved[:, :, ~certain] += 50
    loss = measure_loss(lambda image: [moved.numpy()], graph, images)
    assert loss.boxes == pytest.approx(2, abs=1e-3) and loss.scores == pytest.approx(0.1, abs=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"formats": ["onnx", "torchscript", "engine"]}, "engine, torchscript keeps no integers"),
        ({"graph": SimpleNamespace(outputs=("output0", "sr"))}, "choose other patches"),
        ({"options": ExportOptions((8, 8), half=True)}, "exclude each other"),
        ({"folder": None}, "data is missing"),
    ],
)
def test_what_has_no_int8(change: dict, message: str):
    given = {"graph": SimpleNamespace(outputs=("output0",)), "formats": ["onnx"], "options": ExportOptions((8, 8))}
    with pytest.raises(UserError, match=message):
        check_quantisable(**(given | {"folder": "somewhere"} | change))
