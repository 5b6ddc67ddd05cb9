"""Stage 2's validation: pictures as files and in TensorBoard, LR folders, the time left."""

from __future__ import annotations

import re
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from data.sr_pairs import benchmark_pairs
from evaluation.sr_eval import validation_sets
from stage2_pretrain_sr import main
from tests.drawn import draw_photographs
from training import tasks
from training.sr_phases import Phase
from training.tasks.pixel import PixelTask
from utils.errors import UserError
from utils.resize import resize


@pytest.fixture(autouse=True)
def fresh_accelerate():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    return draw_photographs(tmp_path / "photos", size=(48, 40))


def train(data: Path, out: Path, *more: str) -> None:
    assert main([
        f"--run.out={out}", "--run.device=cpu", "--run.threads=1", "--run.workers=0", "--scale=2",
        f"--data.train=[{data}]", f"--data.val=[{data}]", "--data.patch=12", "--data.samples_per_epoch=8",
        "--sr_fast.name=bicubic", "--sr_fast.args={}", "--sr_quality.name=espcn", "--sr_quality.args={n_feats: 4}",
        "--val_every=2", "--optim_quality.epochs=3", "--optim_quality.batch=4", *more,
    ]) == 0  # fmt: skip


def drawn(folder: Path) -> dict[str, list[int]]:
    """{tag: steps} of the pictures in TensorBoard."""
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    return {tag: [image.step for image in events.Images(tag)] for tag in events.Tags()["images"]}


def test_each_validation_draws_lr_sr_and_hr(photographs: Path, tmp_path: Path):
    train(photographs, tmp_path / "run", "--val_images=2")
    folder = tmp_path / "run" / "sr_quality"
    files = sorted(file.name for file in (folder / "pictures").iterdir())
    assert files == [f"{epoch}_photos_{image}.png" for epoch in ("0002", "0003") for image in "02"]
    assert drawn(folder) == {"val/photos/0": [4, 6], "val/photos/2": [4, 6]}
    picture = np.asarray(Image.open(folder / "pictures" / files[0]))
    _, lr, hr = benchmark_pairs(photographs, 2)[0]
    bar, gap = picture.shape[0] - 48, (picture.shape[1] - 3 * 40) // 2
    parts = [picture[bar:, i * (40 + gap) :][:, :40] for i in range(3)]
    assert (parts[0] == resize(lr, 48, 40)).all() and (parts[2] == hr).all()
    assert 0 < np.abs(parts[1].astype(int) - hr).mean() < 60, "no SR image in the middle"


def test_none_are_drawn_on_demand(photographs: Path, tmp_path: Path):
    train(photographs, tmp_path / "run", "--val_images=0")
    assert not (tmp_path / "run/sr_quality/pictures").exists() and not drawn(tmp_path / "run/sr_quality")
    assert not (tmp_path / "run/sr_fast").exists(), "bicubic is not trained"


def test_every_phase_tells_its_own_time_left(photographs: Path, tmp_path: Path, monkeypatch, capsys):
    def phases(network, config, optim, device):
        one = Phase("first", replace(optim, epochs=2), lambda numbers: PixelTask(network))
        return [one, replace(one, name="second", optim=optim)]

    module = types.ModuleType("phases_of_two")
    module.phases = phases
    monkeypatch.setitem(sys.modules, "phases_of_two", module)
    monkeypatch.setitem(tasks.SR_PHASES, "espcn", "phases_of_two")
    train(photographs, tmp_path / "run")
    told = re.findall(r"stage 2 sr_quality (\w+) epoch (\d)/(\d): .* (\d:\d\d:\d\d) left", capsys.readouterr().out)
    assert [row[:3] for row in told] == [("first", str(i), "2") for i in (1, 2)] + [
        ("second", str(i), "3") for i in (1, 2, 3)
    ]
    assert told[1][3] == told[4][3] == "0:00:00"
    assert [*(tmp_path / "run/sr_quality/second/pictures").iterdir()], "the last phase is validated"
    assert not (tmp_path / "run/sr_quality/first/pictures").exists()


def test_lr_images_of_their_own_for_validation(photographs: Path, tmp_path: Path):
    (tmp_path / "lr").mkdir()
    for name, lr, _ in benchmark_pairs(photographs, 2):
        Image.fromarray(255 - lr).save(tmp_path / "lr" / f"{name}.png")
    made = validation_sets([photographs], [2], 10**6)["photos"][1]
    given = validation_sets([photographs], [2], 10**6, [tmp_path / "lr"])["photos"][1]
    assert all((255 - one[1] == other[1]).all() for one, other in zip(made, given, strict=True))
    for scales, folders, message in (
        ([2], [tmp_path / "lr"] * 2, r"data\.lr_val names 2 folders, but data\.val 1"),
        ([2, 3], [tmp_path / "lr"], "of one scale, but there are several"),
    ):
        with pytest.raises(UserError, match=message):
            validation_sets([photographs], scales, 10**6, folders)
