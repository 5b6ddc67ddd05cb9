"""inference.py from the command line's side: what it writes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import inference
from data.sources import list_sources
from loading.systems import load_system
from models import build_sr
from models.detector_yolo import YoloDetector
from models.single_sr import HRImages, SingleSR
from prediction.prediction_writer import label_lines
from prediction.predictor import Predictor, to_image_pixels
from prediction.run_folder import new_run_folder, output_names
from tests.prediction.running import NAMES, digests, draw_video, entries, infer, noise, save_plain

CPU = torch.device("cpu")


# ---------------------------------------------------------------------------------------------------------- results


def test_folder_with_all_results(weights, good, tmp_path, capsys):
    before, out = digests(good), tmp_path / "out"
    everything = (
        "--save-sr",
        "--save-mask",
        "--save-txt",
        "--save-conf",
        "--save-json",
        "--max-det",
        "7",
        "--conf",
        "0.1",
    )
    assert infer(weights, good, out, *everything) == 0
    assert digests(good) == before
    stems = ["deep", "dot", "grey", "odd", "sub/odd"]
    pictures = {"deep.png", "dot.png", "grey.jpg", "odd.png", "sub/odd.png"}
    written = set(digests(out))
    assert pictures | {f"{kind}/{stem}.png" for kind in ("sr", "masks") for stem in stems} <= written
    for path, entry in entries(out).items():
        height, width = entry["height"], entry["width"]
        name = Path(path).relative_to(good).with_suffix("").as_posix()
        assert Image.open(out / "sr" / f"{name}.png").size == (4 * width, 4 * height)
        mask = np.asarray(Image.open(out / "masks" / f"{name}.png"))
        assert mask.shape == (height, width) and set(np.unique(mask)) <= {0, 255}
        check_labels(out / "labels" / f"{name}.txt", entry)
    assert {Path(path).name: (e["width"], e["height"]) for path, e in entries(out).items()} == {
        "deep.tif": (8, 9), "dot.png": (1, 1), "grey.jpg": (24, 16), "odd.png": (23, 17)
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert f"image 4/5 {good / 'odd.png'}: 23x17 " in printed and "kept 0." in printed
    assert "5 files, 5 images" in printed and "ms SR" in printed and "ms detection" in printed


def check_labels(path: Path, entry: dict) -> None:
    """Labels and predictions.json tell the same, inside of the image."""
    height, width, detections = entry["height"], entry["width"], entry["detections"]
    assert 0 <= entry["kept_share"] <= 1
    assert path.exists() == bool(detections)
    lines = path.read_text().splitlines() if detections else []
    assert len(lines) == len(detections) <= 7
    for line, found in zip(lines, detections, strict=True):
        label, cx, cy, w, h, score = map(float, line.split())
        assert (int(label), NAMES[int(label)]) == (found["class"], found["name"])
        assert score == pytest.approx(found["score"], abs=1e-4) and score >= 0.1
        corners = ((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height)
        assert found["box"] == pytest.approx(corners, abs=2e-3)
        x1, y1, x2, y2 = found["box"]
        assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height


def test_there_is_something_to_compare(weights, good, tmp_path):
    assert infer(weights, good, tmp_path / "out", "--save_json", "--save_images", "false") == 0
    found = [entry["detections"] for entry in entries(tmp_path / "out").values()]
    kept = [entry["kept_share"] for entry in entries(tmp_path / "out").values()]
    assert sum(map(len, found)) > 5 and any(0 < share < 1 for share in kept)


@pytest.mark.parametrize("policy", ["learned", "budget=0.25", "random=0.5", "edge=0.3", "all_fast", "all_quality"])
def test_batch_gives_what_singles_give(weights, tmp_path, policy):
    folder = tmp_path / "in"
    folder.mkdir()
    for index, (height, width) in enumerate([(17, 23), (20, 24), (24, 17), (9, 9), (24, 24), (1, 1), (8, 3)]):
        Image.fromarray(noise(height, width, 3, seed=index)).save(folder / f"{index}.png")
    for name, batch in (("one", "1"), ("many", "3")):
        options = ("--policy", policy, "--batch", batch, "--save_json", "--save_sr", "--save_images", "false")
        assert infer(weights, folder, tmp_path / name, *options) == 0
    one, many = entries(tmp_path / "one"), entries(tmp_path / "many")
    assert list(one) == list(many)
    for path in one:
        assert one[path]["kept_share"] == many[path]["kept_share"]
        assert len(one[path]["detections"]) == len(many[path]["detections"])
        for a, b in zip(one[path]["detections"], many[path]["detections"], strict=True):
            assert a["class"] == b["class"] and a["score"] == pytest.approx(b["score"], abs=1e-4)
            assert a["box"] == pytest.approx(b["box"], abs=1e-2)
        pictures = [np.asarray(Image.open(tmp_path / run / "sr" / f"{Path(path).stem}.png")) for run in ("one", "many")]
        assert np.abs(pictures[0].astype(int) - pictures[1]).max() <= 1


def test_policies_decide_the_kept_share(weights, good, tmp_path):
    shares = {"all_fast": 0, "all_quality": 1, "budget=0.5": 0.5}
    for policy, share in shares.items():
        out = tmp_path / policy
        assert infer(weights, good / "odd.png", out, "--policy", policy, "--save-json", "save_images=False") == 0
        (entry,) = entries(out).values()
        assert entry["kept_share"] == share


def test_another_halo_gives_another_image(weights, good, tmp_path):
    pictures = {}
    for halo in ("null", "0", "1", "exact"):
        out = tmp_path / halo
        options = ("--policy", "budget=0.5", "--halo", halo, "--save-sr", "--save_images", "false")
        assert infer(weights, good / "odd.png", out, *options) == 0
        pictures[halo] = np.asarray(Image.open(out / "sr" / "odd.png")).astype(int)
    assert np.array_equal(pictures["null"], pictures["1"])  # that of the checkpoint
    assert np.abs(pictures["0"] - pictures["exact"]).max() > 0


def test_half_is_close(weights, good, tmp_path):
    for name, options in (("full", ()), ("half", ("--half",))):
        assert infer(weights, good / "odd.png", tmp_path / name, "--policy", "all_quality", "--save-sr", *options) == 0
    full, half = (np.asarray(Image.open(tmp_path / n / "sr" / "odd.png")).astype(int) for n in ("full", "half"))
    assert np.abs(full - half).max() > 0 and np.abs(full - half).mean() < 3


def test_video(weights, tmp_path, capsys):
    draw_video(tmp_path / "clip.mp4", 5)
    options = ("--save-txt", "--save-json", "--save-sr", "--save-mask", "--batch", "2", "--conf", "0.1")
    assert infer(weights, tmp_path / "clip.mp4", tmp_path / "out", *options) == 0
    frames = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [frame["frame"] for frame in frames] == [1, 2, 3, 4, 5]
    labels = {f"clip_{frame['frame']}.txt" for frame in frames if frame["detections"]}
    assert labels and {p.name for p in (tmp_path / "out" / "labels").iterdir()} == labels | {"clip_frames.csv"}
    assert Image.open(tmp_path / "out" / "sr" / "clip_5.png").size == (88, 72)
    assert Image.open(tmp_path / "out" / "masks" / "clip_5.png").size == (22, 18)
    capture = cv2.VideoCapture(str(tmp_path / "out" / "clip.mp4"))
    size = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
    assert size == (88, 72) and capture.get(cv2.CAP_PROP_FRAME_COUNT) == 5
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    assert f"video 1/1 {tmp_path / 'clip.mp4'} (frame 3): 22x18 " in capsys.readouterr().out


def test_video_of_odd_size(plain_weights, tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (17, 21, 3), dtype=np.uint8)).save(tmp_path / "clip.gif")
    assert infer(plain_weights, tmp_path / "clip.gif", tmp_path / "out") == 0
    good, frame = cv2.VideoCapture(str(tmp_path / "out" / "clip.mp4")).read()
    assert good and frame.shape == (50, 62, 3)


def test_glob_and_config_file(weights, good, tmp_path):
    config = tmp_path / "inference.yaml"
    config.write_text(f"weights: {weights}\nsource: {good}/**/odd.png\nsave_json: true\nout: {tmp_path / 'out'}\n")
    assert inference.main(["--config", str(config), "device=cpu"]) == 0
    assert [Path(path).relative_to(good).as_posix() for path in entries(tmp_path / "out")] == ["odd.png", "sub/odd.png"]


def test_system_without_masker(plain_weights, good, tmp_path, capsys):
    assert infer(plain_weights, good, tmp_path / "out", "--save-json", "--save-sr") == 0
    assert {entry["kept_share"] for entry in entries(tmp_path / "out").values()} == {None}
    assert Image.open(tmp_path / "out" / "sr" / "odd.png").size == (69, 51)
    assert "kept" not in capsys.readouterr().out
    assert infer(plain_weights, good, tmp_path / "out", "--policy", "budget=0.5") == 2
    assert "no masker" in capsys.readouterr().err
    assert infer(plain_weights, good, tmp_path / "out", "--halo", "1") == 2
    assert "no masker" in capsys.readouterr().err


def test_boxes_lie_where_the_object_is(plain_weights, tmp_path, monkeypatch):
    def bright_pixels(self, images, conf, iou, max_det):
        rows, columns = (images[0].mean(0) > 0.75).nonzero().unbind(1)
        ends = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
        return [torch.cat([ends, torch.tensor([0.9, 1.0])])[None]]

    monkeypatch.setattr(YoloDetector, "predict", bright_pixels)
    image = np.zeros((17, 23, 3), np.uint8)
    image[3:9, 15:23] = 255
    Image.fromarray(image).save(tmp_path / "a.png")
    assert infer(plain_weights, tmp_path / "a.png", tmp_path / "out", "--save-json", "--save-sr") == 0
    (entry,) = entries(tmp_path / "out").values()
    assert entry["detections"][0]["box"] == pytest.approx([15, 3, 23, 9], abs=0.5)
    sr = np.asarray(Image.open(tmp_path / "out" / "sr" / "a.png"))
    assert sr[12:24, 48:66].min() > 230 and sr[:6, :60].max() < 30 and sr[:45, :42].max() < 30
    drawn = np.asarray(Image.open(tmp_path / "out" / "a.png")).astype(int)
    rows, columns = np.abs(drawn - sr).max(2).nonzero()
    assert rows.max() in range(25, 29) and columns.max() == 68

    doubled = save_plain(tmp_path / "doubled.pth", SingleSR(build_sr("bicubic", 3, {"upscale": 2}), zoom=2))
    assert infer(doubled, tmp_path / "a.png", tmp_path / "twice", "--save-json", "--save-sr") == 0
    (entry,) = entries(tmp_path / "twice").values()
    assert entry["detections"][0]["box"] == pytest.approx([15, 3, 23, 9], abs=0.5), "in pixels of the image"
    assert Image.open(tmp_path / "twice" / "sr" / "a.png").size == (6 * 23, 6 * 17)
    drawn, sr = (np.asarray(Image.open(tmp_path / "twice" / where)).astype(int) for where in ("a.png", "sr/a.png"))
    rows, columns = np.abs(drawn - sr).max(2).nonzero()
    assert rows.max() in range(50, 58) and columns.max() == 137

    as_it_is = save_plain(tmp_path / "hr.pth", HRImages())
    assert infer(as_it_is, tmp_path / "a.png", tmp_path / "hr", "--save-json", "--save-sr") == 0
    (entry,) = entries(tmp_path / "hr").values()
    assert entry["detections"][0]["box"] == pytest.approx([15, 3, 23, 9])
    assert np.array_equal(np.asarray(Image.open(tmp_path / "hr" / "sr" / "a.png")), image)


# ------------------------------------------------------------------------------------------------ nothing overwritten


def test_a_second_run_gets_a_folder_of_its_own(weights, good, tmp_path):
    out = tmp_path / "runs" / "out"
    assert infer(weights, good / "dot.png", out) == 0
    first = digests(out)
    assert infer(weights, good / "dot.png", out) == infer(weights, good / "dot.png", out) == 0
    assert digests(out) == first and (tmp_path / "runs" / "out3" / "dot.png").exists()
    assert new_run_folder(out) == tmp_path / "runs" / "out4"


def test_names_are_never_used_twice(tmp_path):
    given = ["a.jpg", "a.png", "A.tif", "sr/x.png", "x.png", "labels/x.png", "clip_7.png", "a-2.png", "n/a.png"]
    given += ["clip.mp4", "n/clip.mp4", "a.avi"]
    for name in given:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [name.as_posix() for name in output_names(list_sources(tmp_path)).values()]
    assert len({name.casefold() for name in names}) == len(given)
    assert {"sr_/x", "labels_/x", "x", "n/a", "n/clip", "clip-2", "clip_7"} <= set(names)
    frames = {f"{name}_7" for name in names[-3:]}
    assert frames.isdisjoint(names[:-3])


def test_names_stay_in_the_run_folder(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "x.png").touch()
    monkeypatch.chdir(tmp_path / "a")
    (name,) = output_names(list_sources("*/../../x.png")).values()
    assert name.as_posix() == "b/x"


# --------------------------------------------------------------------------------------------------------------- parts


def test_padding_reaches_whole_strides(weights, plain_weights, tmp_path):
    doubled = save_plain(tmp_path / "doubled.pth", SingleSR(build_sr("bicubic", 4, {"upscale": 2}), zoom=2))
    files = (weights, plain_weights, doubled)
    by_four, by_three, by_eight = (Predictor(load_system(file), CPU) for file in files)
    assert [by_eight.padded_size(h, w) for h, w in ((1, 1), (5, 8), (9, 7))] == [(4, 4), (8, 8), (12, 8)]
    assert [by_four.padded_size(h, w) for h, w in ((1, 1), (8, 9), (128, 160))] == [(8, 8), (8, 16), (128, 160)]
    assert by_three.padded_size(1, 33) == (32, 64)


def test_boxes_are_clipped_and_those_in_the_padding_dropped():
    boxes = np.array([[-8, 4, 44, 20, 0.9, 0], [41, 0, 60, 20, 0.8, 1], [4, 4, 8, 8, 0.7, 1]], np.float32)
    found = to_image_pixels(boxes, 4, height=4, width=10)
    assert found.tolist() == [[0, 1, 10, 4, np.float32(0.9), 0], [1, 1, 2, 2, np.float32(0.7), 1]]


def test_label_lines():
    boxes = np.array([[0, 5, 10, 10, 0.5, 3]], np.float32)
    assert label_lines(boxes, height=20, width=40) == "3 0.125 0.375 0.25 0.25\n"
    assert label_lines(boxes, height=20, width=40, scores=True) == "3 0.125 0.375 0.25 0.25 0.5\n"


def test_help_is_fast_and_loads_no_torch():
    code = "import sys, inference\ntry: inference.main(['--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    start, folder = time.perf_counter(), Path(inference.__file__).parent
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert "--save_json" in done.stdout and done.stdout.endswith("False\n"), done.stderr
    assert time.perf_counter() - start < 10  # far above the second that it takes on an idle machine
