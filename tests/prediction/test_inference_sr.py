"""`inference.py --sr-only`: folders and videos in, super-resolved ones out; clear refusals."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from inference import main
from loading.cmsr_files import TableFile, network_fingerprint, save_tables
from models import build_sr
from models.conditional_sr import ConditionalSR
from models.detector_yolo import YoloDetector
from models.masker import Masker
from models.single_sr import SingleSR
from models.system import ConditionalSRDetector
from tests.drawn import draw_photographs
from utils.checkpoint import save_network
from utils.convert import to_image, to_tensor


@pytest.fixture
def network(tmp_path: Path) -> torch.nn.Module:
    network = build_sr("espcn", 2, {"n_feats": 8}).eval()
    with torch.no_grad():  # as built it is symmetric interpolation
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    save_network(tmp_path / "sr.pth", "sr", network.spec["name"], network.spec["args"], network.state_dict(), {})
    return network


def run_sr_only(tmp_path: Path, *options: str, source: Path | None = None) -> int:
    options = ["--weights", str(tmp_path / "sr.pth"), *options]
    source = source or tmp_path / "images"
    return main(["--sr-only", "--source", str(source), "--out", str(tmp_path / "out"), "--device=cpu", *options])


def test_folders_are_mirrored(tmp_path: Path, network: torch.nn.Module, capsys):
    draw_photographs(tmp_path / "images" / "sub", images=2, size=(20, 31))
    Image.open(tmp_path / "images" / "sub" / "0.png").save(tmp_path / "images" / "a.jpg")
    (tmp_path / "images" / "bad.png").write_bytes(b"no image")
    assert run_sr_only(tmp_path) == 1
    found = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png"))
    assert found == ["a.png", "sub/0.png", "sub/1.png"]
    lr = np.array(Image.open(tmp_path / "images" / "sub" / "1.png"))
    with torch.no_grad():
        expected = to_image(network(to_tensor(lr, "cpu")))
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "out" / "sub" / "1.png")), expected)
    shown = capsys.readouterr()
    assert "bad.png: skipped" in shown.out and "31x20 -> 62x40" in shown.out
    assert "4 files, 3 images, 1 files skipped" in shown.out


def test_tiles_ensemble_and_half(tmp_path: Path, network: torch.nn.Module):
    draw_photographs(tmp_path / "images", images=1, size=(24, 24))
    for options in ([], ["--tile=8"], ["--self-ensemble"], ["--half"]):
        assert run_sr_only(tmp_path, *options) == 0
    plain, tiled, ensemble, half = (
        np.array(Image.open(tmp_path / f"out{number}" / "0.png")).astype(int) for number in ("", 2, 3, 4)
    )
    assert np.abs(plain - tiled).max() <= 1 and np.abs(plain - half).max() <= 8
    assert np.abs(plain - ensemble).max() > 0


def test_videos(tmp_path: Path, network: torch.nn.Module):
    writer = cv2.VideoWriter(str(tmp_path / "v.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 5, (32, 24))
    for shade in (40, 90, 140):
        writer.write(np.full((24, 32, 3), shade, np.uint8))
    writer.release()
    assert run_sr_only(tmp_path, source=tmp_path / "v.mp4") == 0
    capture = cv2.VideoCapture(str(tmp_path / "out" / "v.mp4"))
    frames = [capture.read()[1] for _ in range(3)]
    assert all(frame.shape == (48, 64, 3) for frame in frames) and frames[2].mean() > frames[0].mean() + 50
    assert not capture.read()[0]


def test_any_scale(tmp_path: Path):
    network = build_sr("lm_liif", 3.0, {"n_blocks": 1, "n_feats": 8})
    save_network(tmp_path / "sr.pth", "sr", network.spec["name"], network.spec["args"], network.state_dict(), {})
    draw_photographs(tmp_path / "images", images=1, size=(20, 30))
    for options, size in ((["--scale=2.35"], (70, 47)), ([], (90, 60)), (["--scale=1", "--tile=8"], (30, 20))):
        assert run_sr_only(tmp_path, *options) == 0
        newest = max(tmp_path.glob("out*"), key=lambda path: path.stat().st_mtime_ns)
        assert Image.open(newest / "0.png").size == size


def test_cmsr_tables(tmp_path: Path, capsys):
    network = build_sr("lm_lte", 6, {"n_blocks": 1, "n_feats": 8}).eval()
    save_network(tmp_path / "sr.pth", "sr", network.spec["name"], network.spec["args"], network.state_dict(), {})
    draw_photographs(tmp_path / "images", images=1, size=(20, 30))
    save_tables(tmp_path / "t.yaml", TableFile({6: {1: 1.0}}, network_fingerprint(network)))
    tables = f"--cmsr={tmp_path / 't.yaml'}"
    assert run_sr_only(tmp_path) == 0 and run_sr_only(tmp_path, tables) == 0
    full, multiscale = (np.array(Image.open(tmp_path / f"out{n}" / "0.png")).astype(int) for n in ("", 2))
    assert full.shape == multiscale.shape == (120, 180, 3) and np.abs(full - multiscale).max() > 0
    save_tables(tmp_path / "t.yaml", TableFile({6: {1: 1.0}}, "ab"))
    for options, message in (
        ([tables], "t.yaml: belongs to the network with the fingerprint ab, not to lm_lte"),
        ([tables, "--tile=8"], "cmsr and tile exclude each other"),
    ):
        assert run_sr_only(tmp_path, *options) == 2
        assert message in capsys.readouterr().err


def save_system(path: Path, front: torch.nn.Module) -> None:
    detector = YoloDetector({"nc": 1, "backbone": [[-1, 1, "Conv", [8, 3, 2]] for _ in range(5)],
                             "head": [[[2, 3, 4], 1, "Detect", ["nc"]]], "yaml_file": "tiny.yaml"}, ("a",))  # fmt: skip
    system = ConditionalSRDetector(front, detector)
    save_network(path, "system", "x", system.spec["args"], system.state_dict(), {})


def test_the_sr_network_of_a_stage_3(tmp_path: Path, network: torch.nn.Module):
    draw_photographs(tmp_path / "images", images=1)
    save_system(tmp_path / "system.pth", SingleSR(network))
    assert (
        run_sr_only(tmp_path)
        == run_sr_only(tmp_path, f"--weights={tmp_path / 'system.pth'}", f"--out={tmp_path / 'b'}")
        == 0
    )
    one, other = (cv2.imread(str(next((tmp_path / folder).rglob("*.png")))) for folder in ("out", "b"))
    assert np.array_equal(one, other)


def test_refusals(tmp_path: Path, network: torch.nn.Module, capsys):
    draw_photographs(tmp_path / "images", images=1)
    front = ConditionalSR(Masker(4, 4), build_sr("espcn", 2), build_sr("espcn", 2))
    save_system(tmp_path / "system.pth", front)
    for options, message in (
        (["--scale=3"], "sr.pth: espcn(scale=2, n_feats=8): it is for x2, not x3; name its own scale"),
        ([f"--weights={tmp_path / 'system.pth'}"], "a whole stage-3 system; leave out --sr-only and add --save-sr"),
        (["--weights=gone.pth"], "gone.pth: does not exist"),
        (["--weights=", "--scale=7"], "no weights given, and none are shipped for x7"),
        (["--policy=edge=0.5"], "belong to detection"),
        (["--save-txt"], "belong to detection"),
        (["--profile=latency.json"], "belong to detection"),
        (["--sr-only=false", "--tile=8"], "self_ensemble, tile and cmsr belong to --sr-only"),
    ):
        assert run_sr_only(tmp_path, *options) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nan_skips_the_image(tmp_path: Path, network: torch.nn.Module, capsys, monkeypatch):
    draw_photographs(tmp_path / "images", images=1)
    monkeypatch.setattr("prediction.sr_inference.SRInference.__call__", lambda *_: torch.full((1, 3, 8, 8), torch.nan))
    assert run_sr_only(tmp_path) == 1
    assert "skipped, the network gives NaN; compute in fp32" in capsys.readouterr().out
    assert not list((tmp_path / "out").rglob("*.png"))


def test_out_of_memory_skips_the_image(tmp_path: Path, network: torch.nn.Module, capsys, monkeypatch):
    draw_photographs(tmp_path / "images", images=2)

    def fail(*arguments):
        raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setattr("prediction.sr_inference.SRInference.__call__", fail)
    assert run_sr_only(tmp_path) == 1
    assert "use tiles (--tile 256)" in capsys.readouterr().err
