"""What no comparison can be made of is refused before anything is trained, and what can is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from configs.compare_schema import CompareConfig
from configs.evaluate_schema import SlicedConfig
from evaluation.comparison.catalogue import BY_NAME, FAMILIES
from evaluation.comparison.jobs import STAGES, check_jobs
from evaluation.comparison.plan import Planner, build_plan
from tests.evaluation.comparison.test_plan import stage3_jobs
from utils.config import ConfigError


@pytest.mark.parametrize("row", ["retrained/bicubic", "frozen/sr_quality_tuned"])
def test_a_key_that_changes_nothing_is_refused(comparison: CompareConfig, row: str):
    with pytest.raises(ValueError, match=f"overrides.{row}: masker.patch changes nothing, for a row with sr"):
        build_plan(replace(comparison, overrides={row: {"masker.patch": 4}}))
    with pytest.raises(ConfigError, match="nme"):
        check_jobs(build_plan(replace(comparison, rows=[row], overrides={"stage3": {"sr_fast.nme": "edsr"}})))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"overrides": {"elsewhere": {"optim.lr": 1.0}}}, ValueError, "overrides.elsewhere: no such group"),
        ({"overrides": {"retrained": {"detector.weights": "x.pth"}}}, ValueError, "detector.weights is set by the"),
        ({"overrides": {"stage3": {"run.seed": 3}}}, ValueError, "run.seed is set by the comparison itself"),
        (
            {"overrides": {"retrained/hr": {"optim.epochs": 3}}},
            ValueError,
            "share optim.epochs; set it for retrained or",
        ),
        ({"sliced": SlicedConfig(weights="a.pth")}, ValueError, "sliced.weights is set by the comparison itself"),
        ({"overrides": {"frozen": {"data.imgsz": 32}}}, ValueError, "both families share data.imgsz"),
        (
            {"overrides": {"retrained": {"masker.patch": 8}}},
            ValueError,
            "conditional_distilled-labels1-seed0: masker.patch is 8, but .* in frozen/conditional_unlabelled-seed0",
        ),
        ({"overrides": {"frozen/conditional": {"masker.channels": 8}}}, ValueError, "masker.channels is 8"),
        (
            {"overrides": {"frozen": {"sr_quality.args.n_blocks": 3}, "retrained": {"sr_quality.args.n_blocks": 2}}},
            ValueError,
            "sr_quality.args is .*'n_blocks': 2",
        ),
        ({"seeds": []}, ValueError, "seeds is"),
        ({"seeds": [1, 1]}, ValueError, "each once"),
        ({"rows": ["frozen/sr_fast"]}, ValueError, "rows: nothing is trained in"),
        ({"sweep_rows": ["frozen/magic"]}, ValueError, "sweep_rows: there is no row 'frozen/magic'"),
        ({"distill": 0.0, "distill_outputs": 0.0}, ValueError, "distill and distill_outputs are both 0"),
        ({"sweep_seeds": []}, ValueError, r"sweep_seeds is \[\]"),
        ({"sweep_seeds": [7]}, ValueError, r"sweep_seeds is \[7\]; choose among seeds, \[0, 1\]"),
        ({"repeat_rows": ["nothing"]}, ValueError, "repeat_rows: there is no row 'nothing'; choose among frozen/hr"),
        ({"rows": ["hr"]}, ValueError, "no row 'hr'"),
        ({"sr_fast": "nowhere.safetensors"}, FileNotFoundError, "sr_fast: nowhere.safetensors does not exist"),
        ({"stage3": "nowhere.yaml"}, ConfigError, "nowhere.yaml: does not exist"),
    ],
)
def test_bad_input_is_refused(comparison: CompareConfig, changes: dict, error: type, words: str):
    with pytest.raises(error, match=words):
        build_plan(replace(comparison, **changes))


def test_without_a_warm_up_front_ends_may_differ(comparison: CompareConfig):
    plan = build_plan(replace(comparison, warm_up=False, overrides={"retrained": {"masker.patch": 8}}))
    jobs = {family: stage3_jobs(plan, f"{family}/conditional")[0] for family in FAMILIES}
    patches = {family: job.config.get("masker", {}).get("patch") for family, job in jobs.items()}
    assert patches["retrained"] == 8 != patches["frozen"]


def test_a_row_that_starts_from_nothing_may_have_any_front_end(comparison: CompareConfig):
    overrides = {"retrained/conditional": {"masker.patch": 8, "sr_quality.args.n_blocks": 3}}
    plan = build_plan(replace(comparison, overrides=overrides))
    assert plan.jobs["retrained/conditional-labels1-seed0"].config["masker"]["patch"] == 8


def test_a_study_refuses_what_does_not_fit_the_warm_up(comparison: CompareConfig):
    row = BY_NAME["retrained/conditional_distilled"]
    with pytest.raises(ValueError, match=r"other-labels1-seed0: masker.patch is 4, but"):
        Planner(comparison).row(row, 0, 1.0, {"masker.patch": 4}, "other")
    Planner(comparison).row(row, 0, 1.0, {"masker.patch": 4, "start": None}, "other")


def test_a_misspelt_override_is_named_with_its_job(comparison: CompareConfig):
    plan = build_plan(replace(comparison, overrides={"retrained": {"optim.lrr": 0.1}}))
    with pytest.raises(
        ConfigError, match=r"retrained/hr-labels1-seed0: unknown key 'optim.lrr'; did you mean optim.lr"
    ):
        check_jobs(plan)


def test_keys_that_contradict_each_other_are_named_before_anything_starts(comparison: CompareConfig, monkeypatch):
    def refuse(config):
        raise ValueError("these keys make no sense together")

    monkeypatch.setitem(STAGES, "stage3", replace(STAGES["stage3"], check=refuse))
    with pytest.raises(ValueError, match=r"^frozen/sr_fast_tuned_unlabelled-seed0: these keys make no sense"):
        check_jobs(build_plan(comparison))
