"""Warm-up and joint training as one run: the same as three commands, whatever interrupts it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

import stage3_finetune_joint as stage3
from tests.drawn import draw_detection_set
from tests.test_evaluate import TINY
from training.trainer import Trainer
from utils.config import ConfigError

PHASES = ("warm_up_sr_quality", "warm_up", "")
WARM = ["--warm_up.epochs=1", "--warm_up.quality_epochs=1", "--warm_up.batch=2", "--warm_up.lr=1e-3"]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    draw_detection_set(folder / "set", images=4)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    return folder


def arguments(project: Path, out: Path, *options: str) -> list[str]:
    return [
        f"--run.out={out}", "--run.device=cpu", "--run.workers=0", "--run.checkpoint_every=1", "--run.log_every=1",
        f"--data.yaml={project / 'set' / 'data.yaml'}", "--data.imgsz=64", "--data.scale=2", "--masker.patch=8",
        "--masker.budget_dropout=[0.1, 0.9]", "--sr_fast.name=espcn", "--sr_fast.args={n_feats: 8}",
        '--sr_quality.args={"n_blocks": 1, "n_feats": 4}', f"--detector.model={project / 'tiny.yaml'}",
        "--optim.epochs=1", "--optim.batch=2", "--optim.lr=1e-3", "--optim.lr_masker=1e-2", "--optim.warmup=1",
        "--optim.ema=0.9", "--losses.distill=1", "--losses.distill_outputs=0.5", "--val_images=0", *options,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def whole(project: Path) -> Path:
    assert stage3.main(arguments(project, project / "whole", *WARM)) == 0
    return project / "whole"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / stage3.OUTPUT, weights_only=True)["weights"]


def logged(folder: Path) -> list[dict]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "time"} for line in lines]


def assert_same(first: Path, second: Path) -> None:
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    assert [name for name, value in ours.items() if not torch.equal(value, theirs[name])] == []


def test_one_command_is_three_commands(project: Path, whole: Path):
    losses = ["--losses.det=0", "--losses.distill=1", "--losses.distill_outputs=0.5", "--mode=frozen_detector"]
    first = [*losses, "--optim.lr=1e-3", "--optim.lr_sr=1e-3", "--optim.lr_masker=3e-3"]
    one, two, three = (project / name for name in ("one", "two", "three"))
    assert stage3.main(arguments(project, one, *first, "--sr=sr_quality")) == 0
    begun = [f"--sr_quality.weights={one / stage3.OUTPUT}", "--freeze=[sr_quality]"]
    assert stage3.main(arguments(project, two, *first, *begun)) == 0
    assert stage3.main(arguments(project, three, f"--start={two / stage3.OUTPUT}")) == 0
    for name, folder in zip(PHASES, (one, two, three), strict=True):
        assert_same(whole / name, folder)
        assert logged(whole / name) == logged(folder)
    assert not torch.equal(weights(one)["front.head.0.weight"], weights(three)["front.sr_quality.head.0.weight"])


def test_interrupted_in_every_phase(project: Path, whole: Path, monkeypatch, capsys):
    """Stopped after the first step of each phase, and between two of them; nothing is trained twice."""
    optimise, made = Trainer.optimise, []

    def interrupted(self, *inputs):
        if self.step == 1 and self.stage not in made:
            made.append(self.stage)
            raise KeyboardInterrupt
        return optimise(self, *inputs)

    monkeypatch.setattr(Trainer, "optimise", interrupted)
    out, finished = project / "killed", {}
    for life in range(3):
        with pytest.raises(KeyboardInterrupt):
            stage3.main(arguments(project, out, *WARM, *(["--resume"] if life else [])))
        for file in out.rglob(stage3.OUTPUT):
            assert finished.setdefault(file, file.stat().st_mtime_ns) == file.stat().st_mtime_ns
        assert len(finished) == life
    assert stage3.main(arguments(project, out, *WARM, "--resume")) == 0
    assert made == [f"stage 3 ({number} of 3)" for number in (1, 2, 3)]
    for name in PHASES:
        assert_same(whole / name, out / name)
        assert logged(whole / name) == logged(out / name)
    said = capsys.readouterr().out
    assert "stage 3: phase 2 of 3 is finished" in said and "as many are seen as for the published tables" in said
    assert stage3.main(arguments(project, out, *WARM, "--resume")) == 0, "a finished run is left as it is"
    with pytest.raises(ConfigError, match=r"other settings \(warm_up\.epochs\)"):
        stage3.main(arguments(project, out, *WARM, "--warm_up.epochs=2", "--resume"))


def test_each_phase_is_a_run_that_explains_itself(whole: Path):
    stored = {name: yaml.safe_load((whole / name / "config.yaml").read_text()) for name in PHASES}
    assert [stored[name]["mode"] for name in PHASES] == ["frozen_detector", "frozen_detector", "joint"]
    assert stored[""]["warm_up"]["quality_epochs"] == 1 and stored["warm_up"]["freeze"] == ["sr_quality"]
    meta = [torch.load(whole / name / stage3.OUTPUT, weights_only=True)["meta"] for name in PHASES]
    assert [entry["labelled_images"] for entry in meta] == [0, 0, 4]
