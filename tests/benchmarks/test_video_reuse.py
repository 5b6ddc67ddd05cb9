"""The benchmark of reused patches: videos of moving pictures, agreement of boxes, and its page."""

from __future__ import annotations

from argparse import Namespace

import numpy as np
import torch
from PIL import Image

from benchmarks.video_reuse import SCENES, SIZE, main, matched, page, write_video
from data.sources import list_sources, read_frames
from models.detector_yolo import YoloDetector


def test_the_videos_move_and_are_read_back(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [np.full((SIZE[1], SIZE[0], 3), value, np.uint8) for value in (60, 120, 180, 240)]
    for picture in pictures:
        picture[::7, ::5] = 0
    for scene, draw in SCENES.items():
        frames = list(draw(pictures, 6, rng))
        assert all(frame.shape == (SIZE[1], SIZE[0], 3) and frame.dtype == np.uint8 for frame in frames)
        assert (frames[0] != frames[5]).any()
        codec = write_video(tmp_path / f"{scene}.mp4", iter(frames))
        assert codec.startswith(("H.264", "MPEG-4"))
        found = list(read_frames(list_sources(tmp_path / f"{scene}.mp4"), 10**6))
        assert len(found) == 6
        assert np.abs(found[5].image.astype(int) - frames[5]).mean() < 12


def test_agreement_of_boxes():
    full = torch.tensor([[0, 0, 10, 10, 0.9, 0], [20, 20, 30, 30, 0.8, 1.0]])
    near = torch.tensor([[1, 0, 11, 10, 0.7, 0], [1, 1, 10, 10, 0.6, 0], [20, 20, 30, 30, 0.8, 0.0]])
    assert matched(full, full) == 2
    assert matched(near, full) == 1  # the second would be the same box again, the third is of another class
    assert matched(full[:0], full) == matched(full, full[:0]) == 0


def test_the_page_holds_every_row():
    rows = [{"threshold": 4.0, "saved": 0.5, "f1": 0.987, "boxes": 12}]
    rows += [{"threshold": 8.0, "saved": 0.6, "f1": None, "boxes": 0}]
    options = Namespace(frames=3, scale=4, policy="edge=0.25", refresh=30, seed=0)
    text = page({"fixed camera": {"codec": "H.264", "rows": rows}}, options, "python -m benchmarks.video_reuse")
    assert "| 4 | 0.500 | 0.987 | 12 |\n| 8 | 0.600 | - | 0 |" in text and "## Fixed camera, H.264" in text


def test_it_runs_at_toy_size(tmp_path):
    torch.save(YoloDetector("yolo11n.yaml", ("a", "b")).net.state_dict(), tmp_path / "tiny.pt")
    (tmp_path / "in").mkdir()
    for index in range(4):
        Image.effect_noise((40, 30), 40).convert("RGB").save(tmp_path / "in" / f"{index}.png")
    argv = ["--detector", str(tmp_path / "tiny.pt"), "--images", str(tmp_path / "in"), "--scale", "2", "--frames", "2"]
    assert main([*argv, "--refresh", "7", "--seed=3", "--out", str(tmp_path / "new folder")]) == 0
    text = (tmp_path / "new folder" / "video.md").read_text(encoding="utf-8")
    command = "--detector tiny.pt --images in --scale 2 --frames 2 --refresh 7 --seed=3 --out 'new folder'`"
    assert text.count("| 0 | ") == 2 and f"`python -m benchmarks.video_reuse {command}" in text
    assert "x2, policy `edge=0.25`, a full refresh every 7 frames, seed 3" in text
