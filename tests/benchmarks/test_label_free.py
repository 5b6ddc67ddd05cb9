"""The benchmark of label-free training: crops, draws of whole photographs, leads, and the whole at toy size."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import label_free
from benchmarks.label_free import VARIANTS, main, of_photographs, stage3, write_crops
from data.images import read_rgb
from tests.drawn import draw_detection_set
from tests.test_adapt import attentive_detector
from utils.errors import UserError


def test_crops_are_native_and_do_not_overlap(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (70, 100, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    Image.fromarray(picture[:20]).save(tmp_path / "small.png")
    write_crops([tmp_path / "small.png", tmp_path / "a.png"], tmp_path / "crops", 32)
    files = sorted((tmp_path / "crops").iterdir())
    assert [file.name for file in files] == [f"00001__{index}.png" for index in range(6)]
    assert (read_rgb(files[4], 10**6) == picture[32:64, 32:64]).all()


def test_too_few_and_too_small_pictures_are_named(tmp_path):
    (tmp_path / "small").mkdir()
    Image.new("RGB", (40, 20)).save(tmp_path / "small/a.png")
    options = SimpleNamespace(out=str(tmp_path / "out"), held=[str(tmp_path / "small")], batch=4)
    with pytest.raises(UserError, match=r"--held: .*small hold no picture of 32 x 32 pixels"):
        label_free.crops_of(options, "held", 32)
    with pytest.raises(UserError, match="--train: 3 pictures are fewer than --batch 4"):
        stage3(VARIANTS["base"], options, 3)


def test_crops_of_a_photograph_are_drawn_together():
    records = [SimpleNamespace(image=SimpleNamespace(stem=stem)) for stem in ("a__0", "b__0", "a__1", "c__0")]
    draws = of_photographs(SimpleNamespace(records=records), 50, seed=0)
    assert draws.shape == (51, 4) and (draws[0] == 1).all()
    assert (draws[:, 0] == draws[:, 2]).all() and (draws[1:, 0] != draws[1:, 1]).any()
    assert (draws[1:, [0, 1, 3]].sum(1) == 3).all()


def test_variants_differ_from_the_base_in_what_they_say():
    options = SimpleNamespace(steps=10, batch=2, out="o", seed=0, threads=1, side=64)
    base, more = (
        stage3(VARIANTS["base"], options, 8),
        stage3(VARIANTS["four times the steps, pixels as well"], options, 8),
    )
    assert (base.losses.distill, base.losses.distill_outputs, base.losses.rec, base.losses.det) == (1.0, 0.5, 0.0, 0.0)
    assert (base.optim.epochs, more.optim.epochs, more.losses.rec) == (3, 10, 10.0)
    assert stage3(VARIANTS["features alone"], options, 8).losses.distill_outputs == 0
    assert stage3(VARIANTS["outputs alone"], options, 8).losses.distill == 0
    assert not VARIANTS["whole photographs, shrunk"].native


def test_it_runs_at_toy_size_and_goes_on(tmp_path, monkeypatch):
    data = draw_detection_set(tmp_path / "set", images=6)
    monkeypatch.setattr(label_free, "SHIPPED", {"sr_fast": label_free.SHIPPED["sr_fast"],
                                                label_free.BASE: label_free.SHIPPED[label_free.BASE]})  # fmt: skip
    pictures = [read_rgb(path, 10**6) for path in sorted((tmp_path / "set/images/train").iterdir())]
    torch.manual_seed(0)
    detector = attentive_detector(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255)
    torch.save({"model": detector.net, "train_args": {}}, tmp_path / "tiny.pt")
    images = str(tmp_path / "set/images/train")
    argv = ["--detector", str(tmp_path / "tiny.pt"), "--train", images, "--held", images, "--data", str(data)]
    argv += ["--side", "64", "--crop", "64", "--imgsz", "64", "--steps", "2", "--batch", "2", "--resamples", "20"]
    argv += ["--variants", "base", "--sure", "0.3", "--out", str(tmp_path / "out")]
    assert main([*argv, "--train-only"]) == 0 and not (tmp_path / "out/label_free.md").exists()
    before = (tmp_path / "out/trained/base/system.pth").stat().st_mtime_ns
    assert main(argv) == 0
    assert (tmp_path / "out/trained/base/system.pth").stat().st_mtime_ns == before
    content = json.loads((tmp_path / "out/label_free.json").read_text())
    found = content["results"]["held-out crops"]
    assert found["agreement"]["hr"]["value"] == pytest.approx(1) and found["boxes"] > 0
    assert list(found["agreement"]) == ["hr", "bicubic", "sr_fast", label_free.BASE, "base"]
    assert str(tmp_path) not in json.dumps(content) and "images/train" in content["command"]
    assert content["steps"] == {"base": 3}
    text = (tmp_path / "out/label_free.md").read_text()
    assert "Steps: base: 3." in text and f"{found['boxes']} sure boxes" in text and "Above the shipped weights" in text
