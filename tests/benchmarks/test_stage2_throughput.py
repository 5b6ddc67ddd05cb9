"""The throughput benchmark of stage 2 runs through the data pipeline, and its figures fit each other."""

from __future__ import annotations

import json

import pytest
import torch
from accelerate.state import AcceleratorState

from benchmarks import stage2_throughput
from benchmarks.stage2_throughput import StepTiming, ratio
from tests.drawn import draw_photographs

DEGRADED = [
    "--data.degradation.kind=realesrgan", "--data.degradation.pool=4", "--data.degradation.first.kernel=[3, 5]",
    "--data.degradation.second.kernel=[3, 5]",
]  # fmt: skip


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Few steps; PyTorch's threads and accelerate's precision as they were."""
    threads = torch.get_num_threads()
    AcceleratorState._reset_state(reset_partial_state=True)
    for name, value in {"WARMUP": 1, "ROUNDS": 2, "LOADED": 2, "SECONDS": 0.0}.items():
        monkeypatch.setattr(stage2_throughput, name, value)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(threads)


def measured(tmp_path, *more: str) -> dict:
    photographs = draw_photographs(tmp_path / "photos")
    options = [
        f"--run.out={tmp_path / 'run'}", "--run.device=cpu", "--run.workers=0", "--scale=2",
        f"--data.train=[{photographs}]", "--data.patch=8", "--data.samples_per_epoch=8",
        "--sr_quality.args={n_blocks: 1, n_feats: 4}", "--optim_fast.batch=4", "--optim_quality.batch=4",
        "--optim_quality.micro_batch=2", "--optim_quality.ema=0.9", *more,
    ]  # fmt: skip
    assert stage2_throughput.main(options) == 0
    return json.loads((tmp_path / "run" / "throughput.json").read_text())


@pytest.mark.parametrize("more", [[], ["--run.workers=1", "--data.cache=disk"], DEGRADED], ids=["0", "1", "degraded"])
def test_figures_fit_each_other(tmp_path, more):
    results = measured(tmp_path, *more)
    workers = 1 if "--run.workers=1" in more else 0
    assert (results["threads"], results["workers"], results["rounds"]) == (1, workers, 2)
    assert results["environment"]["threads"] == 1 and results["precision"] == "fp32"
    for role, name, micro in (("sr_fast", "edsr", 4), ("sr_quality", "edsr", 2)):
        row = results[role]
        assert (row["network"]["name"], row["batch"], row["micro_batch"], row["patch"]) == (name, 4, micro, 8)
        assert set(row["ms"]) == set(row["cpu_ms"]) == {"pure", "step", "with_data"} and row["loading_cpu_ms"] > 0
        for kind, ms in row["ms"].items():
            assert row["patches_per_second"][kind] == pytest.approx(4e3 / ms)
        for kind in ("with", "without"):
            assert row[f"{kind}_data_over_pure"] > 0 and row[f"{kind}_data_over_pure_cpu"] > 0
        assert 0 <= row["waiting_for_data"] < 1


def test_a_ratio_is_the_median_of_the_rounds_ratios():
    """One round on a busy machine, where everything takes ten times as long, changes nothing."""
    rounds = [
        {"pure": StepTiming(1.0, 0.5, 0), "step": StepTiming(1.25, 1.0, 0)},
        {"pure": StepTiming(10.0, 0.5, 0), "step": StepTiming(12.5, 2.0, 0)},
        {"pure": StepTiming(1.0, 0.5, 0), "step": StepTiming(2.0, 0.5, 0)},
    ]
    assert ratio(rounds, "step", "wall") == pytest.approx(0.8)
    assert ratio(rounds, "step", "cpu") == pytest.approx(0.5)
