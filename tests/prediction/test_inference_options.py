"""inference.py as users of `yolo predict` call it: several sources, classes, crops, labels, drawing, pages, streams."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import re
import signal
import threading
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import inference
from data.labels import parse_label_file
from models.detector_yolo import YoloDetector
from prediction.prediction_writer import PredictionWriter
from tests.prediction.running import digests, draw_video, entries, infer, noise


@pytest.fixture
def fixed_boxes(monkeypatch):
    """A detector that finds two cats, and a dog upon one of them, in every image of 3 x the size."""
    rows = torch.tensor([[6.0, 6, 30, 24, 0.9, 0], [7, 6, 31, 24, 0.8, 1], [36, 30, 48, 45, 0.6, 0]])

    def predict(self, images, conf, iou, max_det, classes=None, agnostic=False):
        found = rows[:1] if agnostic else rows
        kept = [row for row in found if classes is None or int(row[5]) in classes]
        return [torch.stack(kept) if kept else rows[:0]] * len(images)

    monkeypatch.setattr(YoloDetector, "predict", predict)


def draw(path: Path, height: int = 17, width: int = 23, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(height, width, 3, seed=seed)).save(path)
    return path


def run(weights: Path, out: Path, *argv: str) -> int:
    return inference.main(["--weights", str(weights), "--out", str(out), "--device", "cpu", *argv])


def test_several_sources_and_a_list(plain_weights, tmp_path, fixed_boxes):
    one, two = draw(tmp_path / "a" / "x.png"), draw(tmp_path / "b" / "x.png")
    (tmp_path / "list.txt").write_text("a/x.png\nb/x.png\ngone.png\n")
    both = ("--source", str(one), str(two), "--save-json")
    assert run(plain_weights, tmp_path / "out", *both) == 0
    assert [*entries(tmp_path / "out")] == [str(one), str(two)]
    assert {"x.png", "x-2.png"} <= set(digests(tmp_path / "out"))
    assert run(plain_weights, tmp_path / "of_list", f"source={tmp_path / 'list.txt'}", "save_json=True") == 1
    assert [*entries(tmp_path / "of_list")] == [str(one), str(two)]
    assert {"a/x.png", "b/x.png"} <= set(digests(tmp_path / "of_list"))


def test_five_columns_are_what_training_takes(plain_weights, tmp_path, fixed_boxes):
    source = draw(tmp_path / "images" / "x.png")
    assert run(plain_weights, tmp_path / "out", "--source", str(source), "--save-txt") == 0
    text = (tmp_path / "out" / "labels" / "x.txt").read_text()
    assert [len(line.split()) for line in text.splitlines()] == [5, 5, 5]
    assert len(parse_label_file(tmp_path / "out" / "labels" / "x.txt", 2)[0]) == 3
    assert run(plain_weights, tmp_path / "conf", "--source", str(source), "--save-txt", "--save-conf") == 0
    lines = (tmp_path / "conf" / "labels" / "x.txt").read_text().splitlines()
    assert [float(line.split()[5]) for line in lines] == pytest.approx([0.9, 0.8, 0.6])


def test_only_the_classes_that_are_asked_for(plain_weights, tmp_path, fixed_boxes, capsys):
    source = str(draw(tmp_path / "x.png"))
    for name, argv, labels in (
        ("all", [], [0, 1, 0]), ("one", ["classes=1"], [1]), ("two", ["--classes", "0", "1"], [0, 1, 0]),
        ("agnostic", ["--agnostic-nms"], [0]),
    ):  # fmt: skip
        assert run(plain_weights, tmp_path / name, "--source", source, "--save-json", *argv) == 0
        (entry,) = entries(tmp_path / name).values()
        assert [found["class"] for found in entry["detections"]] == labels
    assert run(plain_weights, tmp_path / "no", "--source", source, "--classes", "2") == 2
    assert "no class 2; it has 0 cat, 1 dog" in capsys.readouterr().err


def test_crops_are_what_lies_in_the_boxes(plain_weights, tmp_path, fixed_boxes):
    source = str(draw(tmp_path / "x.png"))
    assert run(plain_weights, tmp_path / "out", "--source", source, "--save-crop", "--save-sr") == 0
    sr = np.asarray(Image.open(tmp_path / "out" / "sr" / "x.png"))
    crops = {name: np.asarray(Image.open(tmp_path / "out" / "crops" / name)) for name in
             ("cat/x.png", "cat/x-2.png", "dog/x.png")}  # fmt: skip
    assert np.array_equal(crops["cat/x.png"], sr[6:24, 6:30])
    assert np.array_equal(crops["cat/x-2.png"], sr[30:45, 36:48])
    assert np.array_equal(crops["dog/x.png"], sr[6:24, 7:31])


def test_drawing_as_asked_for(plain_weights, tmp_path, fixed_boxes):
    source = str(draw(tmp_path / "x.png", 60, 80))
    pictures = {}
    for name, argv in {"plain": [], "bare": ["--hide-labels"], "quiet": ["--hide-conf"],
                       "wide": ["--line-width", "5", "--hide-labels"]}.items():  # fmt: skip
        assert run(plain_weights, tmp_path / name, "--source", source, "--save-sr", *argv) == 0
        sr = np.asarray(Image.open(tmp_path / name / "sr" / "x.png")).astype(int)
        pictures[name] = (np.asarray(Image.open(tmp_path / name / "x.png")) != sr).any(2).sum()
    assert pictures["bare"] < pictures["quiet"] < pictures["plain"] and pictures["wide"] > 2 * pictures["bare"]


def test_pages_get_numbers_that_no_other_file_has(plain_weights, tmp_path, fixed_boxes, capsys):
    pages = [Image.fromarray(noise(9, 8, 3, seed=index)) for index in range(3)]
    (tmp_path / "in").mkdir()
    pages[0].save(tmp_path / "in" / "scan.tif", save_all=True, append_images=pages[1:])
    draw(tmp_path / "in" / "scan_2.png")
    assert infer(plain_weights, tmp_path / "in", tmp_path / "out", "--save-txt", "--save-sr") == 0
    expected = {"scan_2.png", *(f"scan-2_{number}.png" for number in (1, 2, 3))}
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == expected
    assert {path.stem for path in (tmp_path / "out" / "labels").iterdir()} == {name[:-4] for name in expected}
    assert "scan.tif (page 3): 8x9" in capsys.readouterr().out
    argv = ["--sr-only", "--weights", "weights/espcn_8_x4.safetensors", "--source", str(tmp_path / "in" / "scan.tif")]
    assert inference.main([*argv, "--out", str(tmp_path / "sr"), "--device", "cpu"]) == 0
    assert {path.name for path in (tmp_path / "sr").glob("*.png")} == {f"scan_{number}.png" for number in (1, 2, 3)}


@pytest.fixture
def server(tmp_path):
    """Address of a server on this machine that holds a video and an image."""
    (tmp_path / "www").mkdir()
    draw_video(tmp_path / "www" / "clip.mp4", 4)
    Image.fromarray(noise(17, 23, 3)).save(tmp_path / "www" / "x.png")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "www")
    handler.func.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def test_videos_and_images_behind_addresses(plain_weights, tmp_path, server, fixed_boxes, capsys):
    address = server.replace("//", "//me:secret@")
    assert run(plain_weights, tmp_path / "out", "--source", f"{address}/clip.mp4?k=secret", "--save-json") == 0
    frames = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [frame["frame"] for frame in frames] == [1, 2, 3, 4] and frames[0]["file"] == f"{server}/clip.mp4"
    (video,) = (tmp_path / "out").glob("*.mp4")
    assert cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT) == 4
    assert run(plain_weights, tmp_path / "image", "--source", f"{server}/x.png", "--save-json") == 0
    (entry,) = entries(tmp_path / "image").values()
    assert "frame" not in entry and (entry["width"], entry["height"]) == (23, 17)
    captured = capsys.readouterr()
    assert "secret" not in captured.out + captured.err


class MotionJpeg(http.server.BaseHTTPRequestHandler):
    """Sends pictures one after the other as network cameras do, so many for each connection; then there is nothing.

    Attributes:
        left: pictures of the connections to come.
        sent: called with the number of pictures that were sent.
    """

    left: ClassVar[list[int]] = []
    count = 0
    sent = staticmethod(lambda count: None)

    def do_GET(self):
        if not self.left:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for _ in range(self.left.pop(0)):
            type(self).count += 1
            picture = cv2.imencode(".jpg", np.full((32, 48, 3), self.count % 250, np.uint8))[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
            try:
                self.wfile.write(head.encode() + picture + b"\r\n")
            except OSError:  # nobody listens any more
                return
            self.sent(self.count)

    def log_message(self, *_):
        pass


@pytest.fixture
def camera(monkeypatch):
    """camera(left, sent) -> address of a network camera on this machine; see MotionJpeg."""
    monkeypatch.setattr("data.capture.PAUSE", 0.05)
    with contextlib.ExitStack() as running:

        def start(left: list[int], sent=lambda count: None) -> str:
            state = {"left": left, "count": 0, "sent": staticmethod(sent)}
            handler = type("Camera", (MotionJpeg,), state)
            server = running.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            running.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_address[1]}/video"

        yield start


def test_a_network_camera_that_breaks_off_is_opened_again(plain_weights, tmp_path, camera, fixed_boxes, capsys):
    options = ("--save-json", "--save-txt", "--vid-stride", "3")
    address = camera([40, 30])
    assert run(plain_weights, tmp_path / "out", "--source", address, *options) == 1
    captured = capsys.readouterr()
    assert f"warning: {address}: broke off after " in captured.err
    last = int(re.search(r"skipped, broke off after (\d+) frames and did not come back", captured.out)[1])
    frames = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [entry["frame"] for entry in frames] == list(range(1, last + 1, 3)) and last > 40
    (video,) = (tmp_path / "out").glob("*.mp4")
    assert cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT) == len(frames)
    seconds = [entry["seconds"] for entry in frames]
    assert seconds == sorted(seconds) and seconds[0] == 0


def test_ctrl_c_leaves_whole_files_of_a_stream(plain_weights, tmp_path, camera, fixed_boxes, monkeypatch, capsys):
    written, write = [], PredictionWriter.write

    def stopped(self, frame, result):
        write(self, frame, result)
        written.append(frame.index)
        if len(written) == 4:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(PredictionWriter, "write", stopped)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        source = camera([10_000])
        assert run(plain_weights, tmp_path / "out", "--source", source, "--save-json", "--save-txt") == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert "stopped; what was saved until here is in" in capsys.readouterr().err
    frames = json.loads((tmp_path / "out" / "predictions.json").read_text())
    (video,) = (tmp_path / "out").glob("*.mp4")
    assert len(frames) == cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT) == len(written) == 4


@pytest.mark.parametrize("source", ["7", "rtsp://127.0.0.1:9/live", "http://127.0.0.1:9/a.mp4"])
def test_a_stream_that_does_not_answer_is_named(plain_weights, tmp_path, capsys, source):
    assert run(plain_weights, tmp_path / "out", "--source", source) == 1
    error = capsys.readouterr().err
    assert f"skipped stream 1/1 {source}: no " in error and "Traceback" not in error
