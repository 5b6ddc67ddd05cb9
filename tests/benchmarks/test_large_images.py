"""The memory benchmark at toy size, one process."""

from __future__ import annotations

import copy
import json

import torch
from PIL import Image

from benchmarks import large_images
from tests.prediction.running import NAMES, noise
from tests.test_evaluate import talkative_detector


def test_a_row_tells_start_up_from_the_large_image(tmp_path, capsys):
    torch.save({"model": copy.deepcopy(talkative_detector(NAMES).net), "train_args": {}}, tmp_path / "best.pt")
    Image.fromarray(noise(16, 24, 3)).save(tmp_path / "small.png")
    words = ["--detector", str(tmp_path / "best.pt"), "--image", str(tmp_path / "small.png"), "--lr", "120x100"]
    words += ["--folder", str(tmp_path / "work"), "--json", str(tmp_path / "out.json"), "--memory-mb", "16"]
    (tmp_path / "work").mkdir()
    Image.fromarray(noise(100, 120, 3)).save(tmp_path / "work" / "120x100.png")
    assert large_images.main([*words, "--save-sr", "--one"]) == 0
    printed = capsys.readouterr().out
    row = json.loads(printed.splitlines()[-1])
    assert " parts" in printed and row["start_up_mb"] > 100 and 0 <= row["beyond_mb"] < 500 and row["save_sr"]
    assert Image.open(tmp_path / "work" / "large" / "sr" / "120x100.png").size == (480, 400)


def test_the_large_picture_is_the_small_one_repeated(tmp_path):
    Image.fromarray(noise(16, 24, 3)).save(tmp_path / "small.png")
    options = type("Options", (), {"lr": "50x40", "image": tmp_path / "small.png", "folder": tmp_path / "work"})
    large_images.draw(options)
    large = Image.open(tmp_path / "work" / "50x40.png")
    assert large.size == (50, 40) and large.crop((24, 16, 48, 32)).tobytes() == Image.open(options.image).tobytes()
