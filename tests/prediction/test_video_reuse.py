"""Videos: patches that did not change, time stamps beside the results, and the trackers of Ultralytics."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import yaml
from ultralytics.trackers.bot_sort import BOTSORT
from ultralytics.trackers.byte_tracker import BYTETracker

import inference
from models.detector_yolo import SHIPPED
from models.patch_reuse import ReuseOptions
from prediction.api import ConditionalYOLO
from tests.conftest import ROOT
from tests.extras import needs
from tests.prediction.running import draw_video, infer, noise
from utils.errors import UserError


def draw_still(path: Path, frames: int, height: int = 18, width: int = 22) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (width, height))
    for _ in range(frames):
        writer.write(noise(height, width, 3))
    writer.release()
    return path


def frames_of(out: Path) -> list[dict]:
    return json.loads((out / "predictions.json").read_text())


def test_a_still_video_gives_what_full_processing_gives(weights, tmp_path, capsys):
    source, options = draw_still(tmp_path / "still.avi", 5), ("--save-json", "--save_images", "false", "--save-sr")
    assert infer(weights, source, tmp_path / "full", *options) == 0
    again = ("--reuse", "--reuse-threshold", "0", "--reuse-refresh", "4")
    assert infer(weights, source, tmp_path / "reuse", *options, *again) == 0
    full, reused = frames_of(tmp_path / "full"), frames_of(tmp_path / "reuse")
    assert [frame.pop("reused_share") for frame in reused] == [0, 1, 1, 1, 0] and full == reused
    for number in (2, 5):
        pictures = [(tmp_path / run / "sr" / f"still_{number}.png").read_bytes() for run in ("full", "reuse")]
        assert pictures[0] == pictures[1]
    assert "reused 1.00" in capsys.readouterr().out


def test_another_video_begins_anew(weights, tmp_path):
    for name in ("a", "b"):
        draw_still(tmp_path / f"{name}.avi", 2)
    assert infer(weights, tmp_path / "*.avi", tmp_path / "out", "--save-json", "--reuse", "save=False") == 0
    assert [frame["reused_share"] for frame in frames_of(tmp_path / "out")] == [0, 1, 0, 1]
    twice = ConditionalYOLO(weights).predict([tmp_path / "a.avi"] * 2, reuse=ReuseOptions(), stream=True)
    assert [result.reused_share for result in twice] == [0, 1, 0, 1]


@pytest.mark.parametrize(("stride", "numbers"), [(1, [1, 2, 3, 4, 5]), (2, [1, 3, 5]), (4, [1, 5]), (9, [1])])
def test_every_nth_frame_keeps_its_number_and_time(weights, tmp_path, stride, numbers):
    draw_video(tmp_path / "clip.mp4", 5)
    common = ("--save-json", "--save-sr")
    assert infer(weights, tmp_path / "clip.mp4", tmp_path / "all", *common) == 0
    assert infer(weights, tmp_path / "clip.mp4", tmp_path / "nth", *common, f"vid_stride={stride}") == 0
    every = {frame["frame"]: frame for frame in frames_of(tmp_path / "all")}
    assert frames_of(tmp_path / "nth") == [every[number] for number in numbers]
    for number in numbers:
        pictures = [(tmp_path / run / "sr" / f"clip_{number}.png").read_bytes() for run in ("all", "nth")]
        assert pictures[0] == pictures[1]
    video = cv2.VideoCapture(str(tmp_path / "nth" / "clip.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == len(numbers)
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(10 / stride, rel=1e-3)
    sr_only = ["--sr-only", "--scale", "2", "--device", "cpu", "--vid-stride", str(stride)]
    assert inference.main([*sr_only, "--source", str(tmp_path / "clip.mp4"), "--out", str(tmp_path / "sr")]) == 0
    assert cv2.VideoCapture(str(tmp_path / "sr" / "clip.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == len(numbers)


def test_every_nth_frame_with_reuse_and_in_the_api(weights, tmp_path):
    source = draw_still(tmp_path / "still.avi", 6)
    more = ("--save-json", "--reuse", "--reuse-refresh", "2", "--vid-stride", "2", "save=False")
    assert infer(weights, source, tmp_path / "out", *more) == 0
    found = [(frame["frame"], frame["reused_share"]) for frame in frames_of(tmp_path / "out")]
    assert found == [(1, 0), (3, 1), (5, 0)]
    model = ConditionalYOLO(weights)
    with pytest.warns(UserWarning, match="a list holds every frame"):
        results = model.predict(source, reuse=ReuseOptions(refresh=2), vid_stride=2)
    assert [(result.frame_index, result.reused_share) for result in results] == found
    for wrong in (0, 1.5, "2"):
        with pytest.raises(UserError, match=r"vid_stride is .*; give a whole number, 1 or more"):
            model.predict(source, vid_stride=wrong)


def test_results_carry_their_time(weights, tmp_path):
    draw_video(tmp_path / "clip.mp4", 4)
    assert infer(weights, tmp_path / "clip.mp4", tmp_path / "out", "--save-json", "--save-txt", "--conf", "0.1") == 0
    frames = frames_of(tmp_path / "out")
    assert [frame["seconds"] for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3], abs=1e-3)
    head, *lines = (tmp_path / "out" / "labels" / "clip_frames.csv").read_text().splitlines()
    assert head == "frame,seconds,objects"
    for frame, line in zip(frames, lines, strict=True):
        number, seconds, objects = line.split(",")
        assert (int(number), int(objects)) == (frame["frame"], len(frame["detections"]))
        assert float(seconds) == frame["seconds"]
        labels = tmp_path / "out" / "labels" / f"clip_{number}.txt"
        assert len(labels.read_text().splitlines() if labels.exists() else []) == int(objects)


def test_reuse_needs_patches_and_single_frames(weights, plain_weights, good, tmp_path, capsys):
    assert infer(plain_weights, good, tmp_path / "out", "--reuse") == 2
    assert "reuse: this system has no patches" in capsys.readouterr().err
    assert infer(weights, good, tmp_path / "out", "--reuse", "--batch", "2") == 2
    assert "leave out --batch" in capsys.readouterr().err
    assert infer(weights, good, tmp_path / "out", "--reuse-refresh", "2") == 2
    assert "belong to --reuse" in capsys.readouterr().err
    with pytest.raises(UserError, match="reuse: this system has no patches"):
        ConditionalYOLO(plain_weights).predict(good, reuse=ReuseOptions())


@needs("lap")
@pytest.mark.parametrize(("kind", "settings"), [(BYTETracker, "bytetrack.yaml"), (BOTSORT, "botsort.yaml")])
def test_trackers_of_ultralytics_take_the_results(yolov8n_weights, tmp_path, kind, settings):
    source = draw_still(tmp_path / "still.avi", 8)
    options = yaml.safe_load((SHIPPED / "trackers" / settings).read_text())
    options |= {"new_track_thresh": 0.1, "track_high_thresh": 0.1}
    tracker, seen = kind(SimpleNamespace(**options)), []
    model = ConditionalYOLO(yolov8n_weights)
    for result in model.predict(source, stream=True, conf=0.1, max_det=5, reuse=ReuseOptions(), vid_stride=2):
        tracks = tracker.update(result.boxes.cpu().numpy(), result.orig_img)
        assert tracks.shape[1] == 8 and len(tracks)
        result.update(boxes=torch.as_tensor(tracks[:, :-1]))
        seen.append(set(result.boxes.id.int().tolist()))
        assert np.isin(result.boxes.cls.numpy(), (0, 1)).all()
    assert seen[1] == seen[2] == seen[3] and len(seen[3]) > 1


@needs("lap")
def test_the_code_of_the_page(weights, tmp_path, monkeypatch, capsys):
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "inference.md").read_text("utf-8"), re.M | re.S)
    shutil.copyfile(weights, tmp_path / "system.pth")
    draw_still(tmp_path / "clip.mp4", 3)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "docs/inference.md", "exec"), {})
    assert "0.20 s: " in capsys.readouterr().out
