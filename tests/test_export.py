"""export.py writes files that run without this project and give what PyTorch gives."""

from __future__ import annotations

import json
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import export
from configs.export_schema import ExportConfig
from deployment.export.graphs import SRGraph
from deployment.export.parity import measure_parity, runtime, shapes_of
from deployment.export.traced import ExportOptions
from models import build_sr
from prediction.exported import Exported, options_of
from tests.deployment.export.tiny import tiny_system
from tests.extras import needs_extra, needs_generative
from utils.checkpoint import save_network
from utils.errors import UserError

needs_export = needs_extra("export")

WITHOUT_US = """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
for index, images in numpy.load(sys.argv[2]).items():
    numpy.savez(f"{sys.argv[3]}/{index}.npz", *session.run(None, {"images": images}))
assert not {"torch", "models", "deployment"} & set(sys.modules)
print(session.get_modelmeta().custom_metadata_map["names"])
"""


@pytest.fixture(scope="module")
def system_file(tmp_path_factory) -> Path:
    system, path = tiny_system(), tmp_path_factory.mktemp("system") / "tiny.pth"
    save_network(path, "system", system.spec["name"], system.spec["args"], system.state_dict(), {})
    return path


@pytest.fixture(scope="module")
def exported(system_file: Path) -> tuple[Path, str]:
    """The whole conditional call in every format, and what was printed."""
    words = ["--include", "onnx", "openvino", "torchscript", "--imgsz", "40", "56", "--name", "call"]
    done = subprocess.run(
        [sys.executable, "export.py", "--weights", str(system_file), *words], capture_output=True, text=True,
        cwd=Path(export.__file__).parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return system_file.parent, done.stdout


@needs_export
def test_parity_is_printed_for_every_format_at_ten_shapes(exported):
    folder, text = exported
    lines = [line for line in text.splitlines() if "largest difference to PyTorch" in line]
    assert len(lines) == 3 and all("(10 shapes)" in line and "boxes" in line and "images" in line for line in lines)
    files = {"tiny.pth", "call.onnx", "call_openvino_model", "call.torchscript"}
    assert {path.name for path in folder.iterdir()} == files


@needs_export
def test_onnxruntime_alone_gives_the_boxes_and_images_of_the_system(exported, tmp_path: Path):
    folder, _ = exported
    rng, sizes = np.random.default_rng(0), [(1, 43, 51), (3, 17, 23), (2, 64, 40), (1, 1, 1)]
    given = {str(i): rng.random((b, 3, h, w), dtype=np.float32) for i, (b, h, w) in enumerate(sizes)}
    np.savez(tmp_path / "images.npz", **given)
    words = [str(folder / "call.onnx"), str(tmp_path / "images.npz"), str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_US, *words], capture_output=True, text=True, cwd=tmp_path, env={"PATH": ""}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "{0: 'cat', 1: 'dog'}"
    graph = export_graph(folder / "tiny.pth")
    for index, images in given.items():
        ours = [value.numpy() for value in graph(torch.from_numpy(images))]
        theirs = np.load(tmp_path / f"{index}.npz").values()
        for expected, got, limit in zip(ours, theirs, (1e-2, 1e-4, 0), strict=True):
            assert got.shape == expected.shape and abs(got - expected).max() <= limit


@torch.no_grad()
def export_graph(path: Path, policy: str = "budget=0.25"):
    from deployment.export.graphs import CallGraph
    from loading.systems import load_system
    from models.mask_policy import parse_policy

    return CallGraph(load_system(path), parse_policy(policy)).requires_grad_(False)


@needs_export
def test_openvino_gives_them_too_and_carries_what_yolo_export_writes(exported):
    folder, _ = exported
    run = runtime("openvino", folder / "call_openvino_model" / "call.xml")
    parity = measure_parity(run, export_graph(folder / "tiny.pth"), [(1, 43, 51), (2, 8, 30)], seed=3)
    assert parity.close and parity.boxes < 1e-2 and parity.image < 1e-4
    metadata = yaml.safe_load((folder / "call_openvino_model" / "metadata.yaml").read_text())
    assert metadata["task"] == "detect" and metadata["stride"] == 4 and metadata["imgsz"] == [40, 56]
    assert metadata["names"] == {0: "cat", 1: "dog"} and metadata["policy"] == "budget=0.25" and metadata["scale"] == 4
    extra = {"config.txt": ""}
    torch.jit.load(str(folder / "call.torchscript"), _extra_files=extra)
    assert json.loads(extra["config.txt"])["task"] == "detect"
    from deployment.openvino_core import openvino_core

    model = openvino_core().read_model(folder / "call_openvino_model" / "call.xml")
    told = {key: model.get_rt_info(["model_info", key]).astype(str) for key in ("model_type", "reverse_input_channels")}
    assert told["model_type"] == "YOLO" and told["reverse_input_channels"] == "YES"  # files are BGR
    assert float(model.get_rt_info(["model_info", "scale_values"]).astype(str)) == 255


@needs_export
def test_a_wrong_file_is_found(exported, system_file: Path):
    folder, _ = exported
    other = export_graph(system_file, "budget=0.5")
    parity = measure_parity(runtime("torchscript", folder / "call.torchscript"), other, [(1, 40, 40)])
    assert not parity.close and parity.image > 1e-3


@needs_export
def test_ultralytics_itself_runs_the_onnx_file(exported):
    from models.ultralytics_offline import offline_ultralytics

    with offline_ultralytics():
        from ultralytics import YOLO
    folder, _ = exported
    image = (np.random.default_rng(0).random((40, 56, 3)) * 255).astype(np.uint8)
    (result,) = YOLO(folder / "call.onnx", task="detect")(image, imgsz=(40, 56), conf=0.05, verbose=False)
    assert result.names == {0: "cat", 1: "dog"} and len(result.boxes) > 0
    assert result.boxes.xyxy.max() <= 56


@needs_export
def test_fixed_sizes_and_half_of_an_sr_network(tmp_path: Path, capsys):
    words = ["format=onnx,openvino", "dynamic=False", "half=True", "imgsz=24", "--weights", "espcn_8"]
    assert export.main([*words, "--out", str(tmp_path)]) == 0
    assert "(1 shape)" in capsys.readouterr().out
    run = runtime("onnx", tmp_path / "espcn_8.onnx")
    (sr,) = run(np.full((1, 3, 24, 24), 0.5, np.float32))
    assert sr.shape == (1, 3, 96, 96) and sr.dtype == np.float32 and abs(sr - 0.5).max() < 0.05
    with pytest.raises(Exception, match="invalid dimensions"):
        run(np.zeros((1, 3, 32, 24), np.float32))
    assert (tmp_path / "espcn_8_openvino_model" / "espcn_8.bin").stat().st_size > 0


@pytest.mark.parametrize("name", ["edsr", "carn", "fsrcnn", "span"])
def test_networks_of_the_family_at_ten_shapes(name: str, tmp_path: Path):
    args = {"edsr": {"n_blocks": 1, "n_feats": 8}}.get(name, {})
    network = build_sr(name, 2, args)
    path = tmp_path / f"{name}.pth"
    save_network(path, "sr", name, network.spec["args"], network.state_dict(), {})
    assert export.main(["--weights", str(path), "--include", "torchscript", "--imgsz", "24"]) == 0


@needs_extra("mobile")
def test_executorch_runs_an_sr_network_at_open_sizes(tmp_path: Path, capsys):
    words = ["--include", "executorch", "--imgsz", "24", "32", "--out", str(tmp_path)]
    assert export.main(["--weights", "espcn_8", "--scale", "4", *words]) == 0
    assert "(10 shapes)" in capsys.readouterr().out
    run = runtime("executorch", tmp_path / "espcn_8_executorch_model" / "espcn_8.pte")
    sizes = [run(np.zeros((1, 3, h, w), np.float32))[0].shape[2:] for h, w in ((48, 5), (2, 64), (48, 64))]
    assert sizes == [(192, 20), (8, 256), (192, 256)]
    with pytest.raises(RuntimeError):  # no memory is planned for more
        run(np.zeros((1, 3, 49, 64), np.float32))


@pytest.mark.slow
@needs_extra("mobile")
def test_executorch_runs_a_detector_and_a_whole_call_at_one_size(tmp_path: Path, system_file: Path):
    detector = tiny_system().detector
    path = tmp_path / "d.pth"
    save_network(path, "detector", detector.spec["name"], detector.spec["args"], detector.state_dict(), {})
    words = ["--include", "executorch", "--dynamic", "false", "--out", str(tmp_path), "--imgsz"]
    assert export.main(["--weights", str(path), *words, "64"]) == 0
    assert yaml.safe_load((tmp_path / "d_executorch_model" / "metadata.yaml").read_text())["task"] == "detect"
    assert export.main(["--weights", str(system_file), "--policy", "all_quality", *words, "24"]) == 0


@needs_extra("mobile")
def test_executorch_says_which_sizes_it_can_keep_open(tmp_path: Path):
    words = ["--include", "executorch", "--imgsz", "9", "--out", str(tmp_path / "out"), "--weights", "espcn_8"]
    with pytest.raises(UserError, match="imgsz 9 9: sides are open up to 2 times imgsz, which must be 12 or more"):
        export.main(words)
    assert not (tmp_path / "out").exists()


@needs_extra("mobile")
def test_executorch_keeps_no_sides_of_a_system_open(tmp_path: Path, system_file: Path):
    with pytest.raises(UserError, match="fixed sizes there; add --dynamic false"):
        export.main(["--weights", str(system_file), "--include", "executorch", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@needs_export
def test_a_detector_is_what_yolo_export_makes_of_it(tmp_path: Path):
    detector = tiny_system().detector
    path = tmp_path / "detector.pth"
    save_network(path, "detector", detector.spec["name"], detector.spec["args"], detector.state_dict(), {})
    assert export.main(["--weights", str(path), "--include", "onnx", "--imgsz", "64"]) == 0
    images = torch.rand(2, 3, 48, 80)
    (got,) = runtime("onnx", tmp_path / "detector.onnx")(images.numpy())
    with torch.no_grad():
        expected = detector.net(images)[0]  # Ultralytics' own decoding
    assert abs(got - expected.numpy()).max() < 1e-2 and got.shape == expected.shape


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--weights espcn_8 --include onxx",
            "unknown format 'onxx'; use onnx, openvino, torchscript, executorch, engine",
        ),
        ("--weights missing.pth --include torchscript", "missing.pth: no such file"),
        ("--weights nonsense --include torchscript", "'nonsense' is no file and no name"),
        ("--weights espcn_8 --policy budget=0.5 --include torchscript", "no system with a masker; leave out policy"),
        ("--weights espcn_8 --imgsz 1 2 3 --include torchscript", "give height and width, or one number"),
        ("--include torchscript", "give --weights, or --detector"),
        ("--weights espcn_8 --include", "include: no format is given; name one or more of onnx, openvino"),
        ("--weights espcn_8 --include torchscript int8=True", "int8: torchscript keeps no integers"),
        ("--weights espcn_8 --include torchscript opset=12", "unknown option opset; ONNX files have opset 18"),
        ("--weights espcn_8 --include torchscript --name a/b", "name is 'a/b'; give the stem of the files alone"),
        ("--weights espcn_8 --include torchscript --out SYSTEM", "tiny.pth is a file, so "),
        ("--weights espcn_8 --include torchscript --out SYSTEM/below", "tiny.pth is a file, so "),
        ("--weights SYSTEM --policy learned --include torchscript", "no fixed number of patches"),
    ],
)
def test_what_cannot_be_exported_is_one_line(words: str, message: str, system_file: Path, tmp_path: Path):
    argv = words.replace("SYSTEM", str(system_file)).split()
    with pytest.raises(UserError) as error:
        export.main(["--out", str(tmp_path / "out"), *argv])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists() and system_file.is_file()


def test_the_line_of_an_error_begins_with_the_program(monkeypatch, capsys):
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # those of this process stay as they are
    monkeypatch.setattr(sys, "argv", [export.__file__, "--weights", "espcn_8", "--include", "onxx"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(export.__file__, run_name="__main__")
    said = capsys.readouterr().err
    assert end.value.code == 2 and said.count("\n") == 1, said
    assert said.startswith("export.py: error: include: unknown format 'onxx'; ")


def test_a_file_that_gives_no_numbers_is_found_whichever_image_shows_it():
    class Double(torch.nn.Module):
        outputs, image_output = ("output0",), True

        def forward(self, images):
            return (2 * images,)

    for wrong in range(3):
        seen: list = []

        def run(images, seen=seen, wrong=wrong):
            seen.append(images)
            return [np.full_like(images, np.nan) if len(seen) == wrong + 1 else 2 * images]

        parity = measure_parity(run, Double(), [(1, 8, 8)] * 3)
        assert len(seen) == 3 and not parity.close and not parity.finite, wrong
    assert measure_parity(lambda images: [2 * images], Double(), [(1, 8, 8)]).close


@pytest.mark.parametrize(("wrong", "status"), [(np.nan, 1), (0.1, 0)])
def test_16_bit_may_round_but_has_to_give_numbers(wrong: float, status: int, monkeypatch, tmp_path: Path):
    pytest.importorskip("onnxruntime")
    from deployment.export import parity

    real = parity.runtime

    def other(format_, file):
        run = real(format_, file)
        return lambda images: [value + np.float32(wrong) for value in run(images)]

    monkeypatch.setattr(parity, "runtime", other)
    words = ["--weights", "espcn_8", "--imgsz", "16", "--half", "--out", str(tmp_path)]
    assert export.main([*words, "--include", "onnx"]) == status
    assert export.main([*words, "--include", "torchscript"]) == 1  # which is of 32 bit all the same
    extra = {"config.txt": ""}
    torch.jit.load(str(tmp_path / "espcn_8.torchscript"), _extra_files=extra)
    assert json.loads(extra["config.txt"])["args"]["half"] is False


def test_what_was_there_stays_where_a_file_cannot_be_written_whole(tmp_path: Path, monkeypatch):
    (tmp_path / "espcn_8.torchscript").write_bytes(b"old")

    def full(traced, file, **_):
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.jit, "save", full)
    with pytest.raises(OSError, match="No space"):
        export.main(["--weights", "espcn_8", "--include", "torchscript", "--imgsz", "16", "--out", str(tmp_path)])
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("espcn_8.torchscript", b"old")]


@needs_generative
def test_a_network_that_draws_noise_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="the SR network difiisr_dwt cannot be exported: it draws noise"):
        export.main(["--weights", "difiisr_dwt_x4", "--include", "torchscript", "--out", str(tmp_path)])


def test_an_engine_needs_its_device(tmp_path: Path):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(UserError, match=r"TensorRT .* there is none here|needs onnx"):
        export.main(["--weights", "espcn_8", "--include", "engine", "--out", str(tmp_path)])


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"include openvino needs openvino .*requirements-export.txt|needs onnx"):
        export.main(["--weights", "espcn_8", "--include", "openvino", "--out", str(tmp_path)])


def test_options_of_yolo_export_are_understood():
    words = export.translate(["model=a.pt", "format=onnx,openvino", "half=True", "--imgsz", "64", "80", "--dynamic"])
    assert words == ["--weights=a.pt", "--include=[onnx,openvino]", "--half=True", "--imgsz=[64,80]", "--dynamic"]
    assert export.translate(["--policy", "budget=0.5", "--half"]) == ["--policy", "budget=0.5", "--half"]
    assert export.translate(["--half", "format=onnx", "k=1"]) == ["--half", "--include=[onnx]", "--k=1"]
    assert export.translate(["--include", "onnx", "engine", "--imgsz=32"]) == ["--include=[onnx,engine]", "--imgsz=32"]


@pytest.mark.parametrize(("scale", "side"), [(None, 640), (2, 320), (4, 160)])
def test_the_input_is_what_makes_640_pixels_for_the_detector(scale: int | None, side: int):
    graph = SRGraph(build_sr("bicubic", 2))
    facts = {} if scale is None else {"scale": scale}
    assert options_of(ExportConfig(), Exported(graph, facts)).imgsz == (side, side)
    assert options_of(ExportConfig(imgsz=[64, 80]), Exported(graph, facts)).imgsz == (64, 80)


def test_shapes_are_ten_or_the_one_that_is_fixed():
    shapes = shapes_of(ExportOptions((64, 96)), multiple=32)
    assert len(set(shapes)) >= 6 and len(shapes) == 10 and all(side % 32 == 0 for _, *sides in shapes for side in sides)
    assert shapes_of(ExportOptions((64, 96), batch=2, dynamic=False)) == [(2, 64, 96)]
