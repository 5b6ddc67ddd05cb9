"""The recipe study: its jobs, its figures, its table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from configs.compare_schema import AblationConfig, CompareConfig
from evaluation.comparison import ablation
from evaluation.comparison.ablation import metric_of, plan_ablations, study_markdown, study_results
from evaluation.comparison.jobs import check_jobs
from evaluation.comparison.plan import build_plan
from evaluation.comparison.run import Outcome
from utils.checkpoint import save_network

VARIANTS = {"fast": {"optim.lr": 0.1}, "longer": {"optim.epochs": 9}}
STUDY = AblationConfig("x.yaml", row="frozen/conditional", seeds=[0, 1], variants=VARIANTS)


def test_variants_differ_from_the_row_in_their_keys_only(comparison: CompareConfig):
    plan, names = plan_ablations(STUDY, comparison)
    check_jobs(plan)
    assert list(names) == ["base", "fast", "longer"] and all(len(jobs) == 2 for jobs in names.values())
    base, fast, longer = (plan.jobs[names[variant][1]].config for variant in names)
    assert fast["optim"] == {"epochs": 2, "lr": 0.1} and longer["optim"] == {"epochs": 9}
    assert {k: v for k, v in base.items() if k != "optim"} == {k: v for k, v in fast.items() if k != "optim"}
    row = build_plan(comparison).jobs["frozen/conditional-labels1-seed1"]
    assert row.config == base, "the unchanged row is the comparison's own training"
    assert not any(job.stage == "evaluate" for job in plan.jobs.values()), "the test split is never looked at"


def test_few_labels(comparison: CompareConfig):
    plan, names = plan_ablations(replace(STUDY, row="retrained/bicubic", label_share=0.2), comparison)
    job = plan.jobs[names["fast"][0]]
    assert job.config["data"]["label_share"] == 0.2 and job.needs == ["stage1-labels0.2-seed0"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"row": "frozen/bicubic"}, "row: there is no trained row 'frozen/bicubic'"),
        ({"variants": {"base": {}}}, "variants.base: this name is the unchanged row's"),
        ({"variants": {"x": {"run.seed": 1}}}, "variants.x: run.seed is set by the study itself"),
    ],
)
def test_bad_input_is_refused(comparison: CompareConfig, changes: dict, words: str):
    with pytest.raises(ValueError, match=words):
        plan_ablations(replace(STUDY, **changes), comparison)


def test_figures_and_differences_within_a_seed(monkeypatch):
    values = {"b0": 0.30, "b1": 0.40, "f0": 0.32, "f1": 0.43, "l0": 0.25}
    monkeypatch.setattr(ablation, "metric_of", lambda checkpoint, metric: values[checkpoint.parent.name])
    names = {"base": ["b0", "b1"], "fast": ["f0", "f1"], "longer": ["l0", "l1"]}
    content = study_results(STUDY, names, Outcome({name: Path(name) for name in values}), "out.pth")
    base, fast, longer = content["variants"]
    assert base["figure"]["mean"] == pytest.approx(0.35) and base["over_base"]["mean"] == 0
    assert fast["over_base"] == {"mean": pytest.approx(0.025), "std": pytest.approx(0.00707, abs=1e-5), "n": 2}
    assert longer["figure"]["n"] == 1 and longer["over_base"]["mean"] == pytest.approx(-0.05)
    lines = study_markdown(content).splitlines()
    assert [line.split("|")[1].strip() for line in lines[4:]] == ["fast", "base", "longer"]
    assert "optim.lr 0.1" in lines[4] and "validation split" in lines[0]


def test_metric_is_read_from_the_checkpoint(tmp_path: Path):
    file = tmp_path / "system.pth"
    save_network(file, "system", "x", {}, {"w": torch.zeros(1)}, {"metrics": {"val/map50_95": 0.31}})
    assert metric_of(file, "val/map50_95") == 0.31 and metric_of(file, "val/psnr") is None
