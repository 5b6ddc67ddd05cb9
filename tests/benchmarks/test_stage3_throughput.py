"""The throughput benchmark of stage 3 trains what stage 3 trains, and its figures fit each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import stage3_finetune_joint as stage3
from benchmarks import stage3_throughput
from tests.drawn import draw_detection_set
from training.trainer import Trainer


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch):
    monkeypatch.setattr(stage3_throughput, "WARMUP", 1)
    monkeypatch.setattr(stage3_throughput, "ROUNDS", 2)


def arguments(data: Path, out: Path, *more: str) -> list[str]:
    return [
        f"--run.out={out}", "--run.device=cpu", "--run.workers=0", f"--data.yaml={data}", "--data.imgsz=64",
        "--data.scale=2", "--sr_fast.name=espcn", "--sr_fast.args={n_feats: 8}", "--sr_quality.name=edsr",
        '--sr_quality.args={"n_blocks": 1, "n_feats": 4}', "--masker.patch=8", "--optim.epochs=1", "--optim.batch=4",
        "--optim.micro_batch=2", "--val_images=0", *more,
    ]  # fmt: skip


RECIPE = [
    "--losses.distill=1", "--losses.rec=1", "--losses.objects=0.5", "--masker.budget_dropout=[0.1, 0.8]",
    "--data.label_share=0.5", "--data.unlabelled=true", "--optim.ema=0.9",
]  # fmt: skip


@pytest.mark.parametrize("more", [[], RECIPE], ids=["plain", "recipe"])
def test_figures_fit_each_other(tmp_path: Path, more: list[str]):
    data = draw_detection_set(tmp_path / "set", images=8)
    assert stage3_throughput.main(arguments(data, tmp_path / "run", *more)) == 0
    found = json.loads((tmp_path / "run" / "throughput.json").read_text())
    parts = {"front", "detector", "optimizer"} | ({"teacher"} if more else set())
    assert set(found["ms"]) == parts | {"step"} and all(ms > 0 for ms in found["ms"].values())
    assert (found["micro_batch"], found["accumulate"], found["rounds"]) == (2, 2, 2)
    whole = found["ms"]["optimizer"] + 2 * sum(found["ms"][name] for name in parts - {"optimizer"})
    assert found["sum_of_parts_ms"] == pytest.approx(whole)
    assert found["step_over_parts"] == pytest.approx(found["ms"]["step"] / whole)
    assert 0 <= found["data_wait_share"] < 1 and found["environment"]["threads"] > 0


@pytest.mark.parametrize("more", [[], RECIPE], ids=["plain", "recipe"])
def test_its_steps_are_those_of_stage_3(tmp_path: Path, monkeypatch, more: list[str]):
    data, seen, optimise = draw_detection_set(tmp_path / "set", images=8), [], Trainer.optimise

    def noted(self, batches, epoch):
        losses, waited = optimise(self, batches, epoch)
        seen.append(losses)
        return losses, waited

    monkeypatch.setattr(Trainer, "optimise", noted)
    assert stage3.main(arguments(data, tmp_path / "stage3", *more)) == 0
    trained, seen = seen, []
    config = stage3_throughput.parse_config(
        stage3_throughput.Stage3Config, "", arguments(data, tmp_path / "run", *more)
    )
    steps = stage3_throughput.steps_of(stage3_throughput.stage3_trainer(config, tmp_path / "run"))
    for _ in trained:
        next(steps)
    assert len(trained) == 2 and seen == trained
