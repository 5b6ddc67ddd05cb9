"""Which trainings a comparison asks for: fair families, shared jobs, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from configs.compare_schema import CompareConfig
from configs.evaluate_schema import SlicedConfig
from configs.schema import OptimConfig
from configs.stage3_schema import Stage3Config
from evaluation.comparison.catalogue import BY_NAME, FAMILIES, REFERENCES, ROWS, chosen, spec_of
from evaluation.comparison.jobs import Job, JobPlan, Trained, check_jobs, fill, needed, with_keys
from evaluation.comparison.plan import Planner, build_plan
from evaluation.row_key import RowKey
from utils.config import config_to_dict, load_config


def stage3_jobs(plan: JobPlan, family: str | tuple[str, ...]) -> list[Job]:
    return [job for job in plan.jobs.values() if job.stage == "stage3" and job.name.startswith(family)]


def test_catalogue_has_both_families_and_unique_names():
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names) and {row.family for row in ROWS} == {"frozen", "retrained"}
    keys = {row.key for row in ROWS}
    assert {key for pair in REFERENCES.values() for key in pair} <= keys and len(keys) == len(ROWS)
    assert {key for row in ROWS for key in (row.of, row.warm) if key} <= keys
    assert chosen([]) == list(ROWS)


def test_chosen_rows_bring_what_they_are_compared_with():
    assert [row.name for row in chosen(["frozen/conditional"])] == ["frozen/hr", "frozen/bicubic", "frozen/conditional"]
    assert "retrained/bicubic" in {row.name for row in chosen(["retrained/sliced"])}
    with pytest.raises(ValueError, match="rows: there is no row 'frozen/magic'; choose among frozen/hr"):
        chosen(["frozen/magic"])


@pytest.mark.parametrize(
    ("key", "row"),
    [
        (RowKey("conditional", "frozen", policy="budget", budget=0.25), "frozen/conditional"),
        (RowKey("conditional", "frozen", "unlabelled", policy="learned"), "frozen/conditional_unlabelled"),
        (RowKey("bicubic", "retrained", upscale=2.0), "retrained/bicubic_2x"),
        (RowKey("hr", "frozen"), "frozen/hr"),
        (RowKey("hr"), None),
        (RowKey("else", "somebody"), None),
    ],
)
def test_the_row_behind_a_policy(key: RowKey, row: str | None):
    found = spec_of(key)
    assert (found and found.name) == row


def test_every_job_stands_after_those_that_it_needs(comparison: CompareConfig):
    seen = set()
    for job in build_plan(comparison).jobs.values():
        assert set(job.needs) <= seen, job.name
        seen.add(job.name)


def test_all_configurations_are_accepted(comparison: CompareConfig):
    check_jobs(build_plan(comparison))


def test_sizes_can_be_overridden_in_the_yaml(comparison: CompareConfig, tmp_path: Path):
    tree = config_to_dict(comparison) | {
        "overrides": {"stage1": {"data.imgsz": [64, 96]}, "stage3": {"data.imgsz": 64}}
    }
    (tmp_path / "compare.yaml").write_text(yaml.safe_dump(tree))
    plan = build_plan(load_config(CompareConfig, tmp_path / "compare.yaml"))
    sides = plan.jobs["stage1-labels1-seed0"].config["data"]["imgsz"]
    assert sides == [64, 96] and all(isinstance(side, int) for side in sides)


def test_retrained_rows_start_alike_and_see_the_same_labels(comparison: CompareConfig):
    plan = build_plan(comparison)
    for share in ("0.2", "1"):
        jobs = [job for job in stage3_jobs(plan, "retrained") if f"-labels{share}-seed1" in job.name]
        assert len(jobs) == len([row for row in ROWS if row.family == "retrained" and row.trained])
        for job in jobs:
            assert job.config["detector"]["weights"] == Trained(f"stage1-labels{share}-seed1")
            assert job.config["data"] == jobs[0].config["data"] and job.config["optim"] == jobs[0].config["optim"]
            assert job.config["data"].get("label_share", 1.0) == float(share)


def test_the_frozen_detector_knows_all_labels(comparison: CompareConfig):
    plan = build_plan(comparison)
    jobs = stage3_jobs(plan, "frozen")
    assert all(
        job.config["detector"]["weights"].job == f"stage1-labels1-seed{job.config['run']['seed']}" for job in jobs
    )
    assert all(job.config["mode"] == "frozen_detector" for job in jobs)
    shared = build_plan(replace(comparison, shared_detector=True))
    assert {job.config["detector"]["weights"].job for job in stage3_jobs(shared, "frozen")} == {"stage1-labels1-seed0"}


def test_rows_without_labels_are_trained_once_for_all_shares(comparison: CompareConfig):
    unlabelled = [job for job in stage3_jobs(build_plan(comparison), "frozen") if "_unlabelled" in job.name]
    assert len(unlabelled) == 3 * len(comparison.seeds)
    for job in unlabelled:
        assert job.config["losses"]["det"] == 0 and job.config["losses"]["distill"] == comparison.distill
        assert "label_share" not in job.config["data"]


def test_only_distilled_rows_distil(comparison: CompareConfig):
    overrides = {"stage3": {"losses.distill": 0.7, "losses.distill_outputs": 0.3}}
    for job in stage3_jobs(build_plan(replace(comparison, overrides=overrides)), ""):
        losses = job.config["losses"]
        distilled = "_distilled" in job.name or not job.name.startswith("retrained/")
        assert (losses["distill"], losses["distill_outputs"]) == ((0.7, 0.3) if distilled else (0.0, 0.0))


def test_rows_with_hr_features_start_from_a_front_end_that_saw_no_labels(comparison: CompareConfig):
    plan = build_plan(replace(comparison, unlabelled_epochs=7, epochs=3))
    for job in stage3_jobs(plan, ""):
        warm = ("_distilled" in job.name and "bicubic" not in job.name) or job.name.startswith("frozen/")
        warm = warm or "warmed_up" in job.name
        warm = warm and "_unlabelled" not in job.name
        assert ("start" in job.config) == warm, job.name
        assert job.config["optim"]["epochs"] == (3 if job.config["losses"].get("det", 1) else 7)
        if warm:  # through the very detector, so with no more labels than it has seen itself
            front = plan.jobs[job.config["start"].job]
            assert front.config["detector"] == job.config["detector"] and front.config["losses"]["det"] == 0
            assert front.config["run"]["seed"] == job.config["run"]["seed"]
            assert front.config["sr"] == job.config["sr"], "every kind of front end has a warm-up of its own"
    few = plan.jobs["retrained/conditional_distilled-labels0.2-seed1"].config["start"]
    assert few == Trained("warm_up-conditional_unlabelled-stage1-labels0.2-seed1")
    cold = stage3_jobs(build_plan(replace(comparison, warm_up=False)), "")
    assert not any("start" in job.config for job in cold)


def test_halo_of_the_measurements(comparison: CompareConfig):
    measured = replace(comparison, measure=replace(comparison.measure, halo=1))
    jobs = [job for job in build_plan(measured).jobs.values() if job.stage == "evaluate"]
    assert jobs and {job.config["halo"] for job in jobs} == {1}
    assert {job.config["halo"] for job in build_plan(comparison).jobs.values() if job.stage == "evaluate"} == {None}
    tiles = {"stage3": {"masker.train": "tiles", "masker.halo": 2}}
    with pytest.raises(ValueError, match=r"measure.halo is 1, but \S+ is trained on tiles"):
        build_plan(replace(measured, overrides=tiles))
    build_plan(replace(comparison, overrides=tiles))


def test_rows_of_the_smaller_shares(comparison: CompareConfig):
    plan = build_plan(replace(comparison, sweep_rows=["retrained/conditional_distilled"]))
    few = {
        job.name.partition("-labels")[0]
        for job in stage3_jobs(plan, ("frozen/", "retrained/"))
        if "labels0.2" in job.name
    }
    assert few == {"retrained/hr", "retrained/bicubic", "retrained/conditional_distilled"}
    assert len([m for m in plan.measurements if m.label_share == 0.2]) == len(comparison.seeds)
    unlabelled = build_plan(replace(comparison, sweep_rows=["frozen/conditional_unlabelled"]))
    assert not [m for m in unlabelled.measurements if m.label_share == 0.2], "nothing that labels change"


def test_the_masker_can_learn_beside_a_finished_sr_quality(comparison: CompareConfig):
    plan = build_plan(replace(comparison, unlabelled_epochs=7, masker_epochs=2))
    names = {"frozen/conditional_unlabelled-seed1": "frozen/sr_quality_tuned_unlabelled-seed1"}
    few = "stage1-labels0.2-seed1"
    names[f"warm_up-conditional_unlabelled-{few}"] = f"warm_up-sr_quality_tuned_unlabelled-{few}"
    for name, quality in names.items():
        config = plan.jobs[name].config
        assert config["sr_quality"]["weights"] == Trained(quality) and config["freeze"] == ["sr_quality"]
        assert config["optim"]["epochs"] == 2 and plan.jobs[quality].config["optim"]["epochs"] == 7
        assert plan.jobs[quality].config["detector"] == config["detector"]
    others = [job for job in stage3_jobs(plan, "") if job.name not in names and "conditional_unl" not in job.name]
    assert others and not any("freeze" in job.config for job in others)
    check_jobs(plan)
    overrides = {"frozen/conditional_unlabelled": {"sr_quality.args": {"n_blocks": 2}}}
    with pytest.raises(ValueError, match=r"sr_quality\.args is .* but .* in frozen/sr_quality_tuned_unlabelled-seed0"):
        build_plan(replace(comparison, masker_epochs=2, overrides=overrides))


def test_a_study_can_leave_the_warm_up_out(comparison: CompareConfig):
    planner = Planner(comparison)
    row = BY_NAME["retrained/conditional_distilled"]
    cold, warm = (planner.row(row, 0, 1.0, keys, name).job for keys, name in (({"start": None}, "cold"), ({}, "warm")))
    assert planner.plan.jobs[cold].config["start"] is None
    assert planner.plan.jobs[warm].config["start"] == Trained("frozen/conditional_unlabelled-seed0")


def test_one_detector_for_all_seeds(comparison: CompareConfig):
    plan = build_plan(replace(comparison, shared_detector=True, sweep_seeds=[1]))
    trained = {name for name in plan.jobs if name.startswith("stage1")}
    assert trained == {"stage1-labels1-seed0", "stage1-labels0.2-seed1"}
    assert [(m.seed, m.label_share) for m in plan.measurements] == [(0, 1.0), (1, 1.0), (1, 0.2)]


def test_few_labels_for_a_detector_that_has_seen_all(comparison: CompareConfig):
    plan = build_plan(replace(comparison, stage1_labels="all"))
    few = plan.jobs["retrained/conditional_distilled-labels0.2-seed1"].config
    assert few["detector"]["weights"] == Trained("stage1-labels1-seed1")
    assert few["start"] == Trained("frozen/conditional_unlabelled-seed1")
    assert few["data"]["label_share"] == 0.2
    assert not any(name.startswith("stage1-labels0.2") for name in plan.jobs)


@pytest.mark.parametrize(("sweep_epochs", "epochs"), [(1, {10}), (3, {30}), (5, {50}), (9, {50})])
def test_few_labels_are_seen_more_often(comparison: CompareConfig, sweep_epochs: float, epochs: set):
    changes = {"epochs": None, "unlabelled_epochs": None, "sweep_epochs": sweep_epochs}
    plan = build_plan(replace(comparison, **changes, overrides={"stage3": {"optim.epochs": 10}}))
    found = {True: set(), False: set()}
    for job in stage3_jobs(plan, FAMILIES):  # not the warm-ups, which look at no labels
        found["labels0.2" in job.name].add(job.config["optim"]["epochs"])
    assert found == {True: epochs, False: {10}}
    default = build_plan(replace(comparison, **changes, overrides={}))
    few = default.jobs["retrained/hr-labels0.2-seed0"].config.get("optim", {}).get("epochs", OptimConfig().epochs)
    assert few == min(5, sweep_epochs) * load_config(Stage3Config, comparison.stage3).optim.epochs


@pytest.mark.parametrize(("shares", "few", "expected"), [([1.0, 0.4], "0.4", 8), ([0.5, 0.1], "0.1", 15)])
def test_epochs_make_up_for_the_missing_images(comparison: CompareConfig, shares: list, few: str, expected: int):
    """2.5 times 3 epochs are rounded; the largest share is what others are held against."""
    plan = build_plan(replace(comparison, label_shares=shares, sweep_epochs=9, epochs=3))
    assert plan.jobs[f"retrained/bicubic-labels{few}-seed0"].config["optim"]["epochs"] == expected


def test_images_without_labels_stay_for_rows_that_match_hr_features(comparison: CompareConfig):
    changes = {"sweep_unlabelled": ["frozen", "retrained"], "sweep_epochs": 3, "epochs": 4}
    rows = stage3_jobs(build_plan(replace(comparison, **changes)), ("frozen/", "retrained/"))
    jobs = [job for job in rows if "-labels0.2" in job.name]
    kept = {job.name for job in jobs if job.config["data"].get("unlabelled", False)}
    assert kept == {job.name for job in jobs if "_distilled" in job.name or job.name.startswith("frozen/")}
    for job in jobs:
        assert job.config["data"]["label_share"] == 0.2
        assert job.config["optim"]["epochs"] == (4 if job.name in kept else 12), job.name
    one = build_plan(replace(comparison, **changes | {"sweep_unlabelled": ["frozen"]}))
    few = [job for job in stage3_jobs(one, ("frozen/", "retrained/")) if "-labels0.2" in job.name]
    assert {j.name for j in few if "unlabelled" in j.config["data"]} == {n for n in kept if n.startswith("frozen/")}
    full = [job for job in rows if "-labels1" in job.name]
    assert full and not any("unlabelled" in job.config["data"] for job in full)


def test_one_detector_for_all_seeds_and_shares(comparison: CompareConfig):
    plan = build_plan(replace(comparison, shared_detector=True, stage1_labels="all"))
    assert {name for name in plan.jobs if name.startswith("stage1")} == {"stage1-labels1-seed0"}


def test_some_rows_alone_are_repeated(comparison: CompareConfig):
    plan = build_plan(replace(comparison, repeat_rows=["retrained/conditional"]))
    first, second = (plan.jobs[f"measure-labels1-seed{seed}"].config for seed in (0, 1))
    assert set(second["systems"]) == {"retrained/conditional", "retrained/bicubic"} < set(first["systems"])
    assert set(second["detectors"]) == {"retrained/hr"} and "detector" not in second
    assert len(stage3_jobs(plan, FAMILIES)) < len(stage3_jobs(build_plan(comparison), FAMILIES))


def test_only_the_first_seed_with_most_labels_is_timed_and_runs_alone(comparison: CompareConfig):
    plan = build_plan(replace(comparison, label_shares=[0.2, 1.0]))
    timed = [name for name, job in plan.jobs.items() if job.alone]
    assert timed == ["measure-labels1-seed0"] == [n for n, j in plan.jobs.items() if j.config.get("timing_runs")]
    assert [(m.seed, m.label_share) for m in plan.measurements] == [(0, 1.0), (0, 0.2), (1, 1.0), (1, 0.2)]


def test_rows_that_labels_do_not_change_are_measured_once(comparison: CompareConfig):
    plan = build_plan(comparison)
    few, many = (plan.jobs[f"measure-labels{share}-seed0"].config for share in ("0.2", "1"))
    assert "detector" in many and "detector" not in few
    assert "frozen/conditional_unlabelled" in many["systems"] and "frozen/conditional_unlabelled" not in few["systems"]
    assert "retrained/hr" in few["detectors"]
    assert few["sliced"]["retrained/sliced"]["weights"] == Trained("retrained/bicubic-labels0.2-seed0")
    assert many["sliced"]["frozen/sliced"]["weights"] == Trained("stage1-labels1-seed0") == many["detector"]
    assert set(few["sliced"]) == {"retrained/sliced", "retrained/sliced_on_slices"}


def test_slices_of_a_detector_that_was_trained_on_slices(comparison: CompareConfig):
    config = replace(comparison, sliced=SlicedConfig(rows=3, columns=2, overlap=0.1, full=False))
    plan = build_plan(config)
    job = plan.jobs["retrained/sliced_on_slices-labels1-seed0"]
    assert job.config["slices"] == {"rows": 3, "columns": 2, "overlap": 0.1, "full": False}
    assert (job.config["mode"], job.config["sr"]) == ("detector_only", "bicubic")
    measured = plan.jobs["measure-labels1-seed0"].config["sliced"]
    assert measured["retrained/sliced_on_slices"]["weights"] == Trained(job.name)
    assert measured["frozen/sahi"] == measured["frozen/sliced"] | {"library": "sahi"}
    others = {name: made.config for name, made in plan.jobs.items() if made.stage == "stage3"}
    assert {name for name, made in others.items() if "slices" in made} == {
        f"retrained/sliced_on_slices-labels{share}-seed{seed}" for share in ("0.2", "1") for seed in (0, 1)
    }
    with pytest.raises(ValueError, match=r"slices\.rows is set by the comparison itself"):
        build_plan(replace(comparison, overrides={"retrained": {"slices.rows": 2}}))
    with pytest.raises(ValueError, match=r"sliced\.library is set by the comparison itself"):
        build_plan(replace(comparison, sliced=SlicedConfig(library="sahi")))


@pytest.mark.parametrize("masker_epochs", [None, 5])
@pytest.mark.parametrize(
    ("ours", "rival"),
    [
        ("frozen/conditional", "frozen/sr_fast_tuned"),
        ("frozen/conditional_unlabelled", "frozen/sr_fast_tuned_unlabelled"),
        ("retrained/conditional_distilled", "retrained/sr_fast_distilled"),
        ("retrained/conditional_1.5x_warmed_up", "retrained/sr_fast_1.5x_warmed_up"),
    ],
)
def test_sr_fast_everywhere_learns_exactly_as_long(comparison: CompareConfig, ours: str, rival: str, masker_epochs):
    """All epochs of the chain of trainings that ends in a row, each training once."""
    config = replace(comparison, epochs=3, unlabelled_epochs=11, masker_epochs=masker_epochs)
    plan = build_plan(replace(config, label_shares=[1.0], seeds=[0]))

    def epochs(row: str) -> int:
        name = f"{row}-seed0" if row.endswith("_unlabelled") else f"{row}-labels1-seed0"
        chain, waiting = set(), [name]
        while waiting:
            name = waiting.pop()
            if plan.jobs[name].stage == "stage3" and name not in chain:
                chain.add(name)
                waiting += plan.jobs[name].needs
        return sum(plan.jobs[name].config["optim"]["epochs"] for name in chain)

    assert epochs(ours) == epochs(rival) == (0 if "unlabelled" in ours else 3) + 11 + (masker_epochs or 0)


def test_a_larger_input_is_trained_and_called_so(comparison: CompareConfig):
    plan = build_plan(replace(comparison, masker_epochs=2))
    names = {"bicubic": "bicubic", "sr_fast": "sr_fast", "conditional": "conditional"}
    for upscale in (1.25, 1.5):
        for sr in names:
            row = f"retrained/{sr}_{upscale:g}x" + ("" if sr == "bicubic" else "_warmed_up")
            job = plan.jobs[f"{row}-labels1-seed0"].config
            assert (job["upscale"], job["sr"]) == (upscale, sr) and job["losses"]["distill"] == 0
            record = plan.jobs["measure-labels1-seed0"].config["records"][row]
            assert record["upscale"] == upscale and RowKey(**record).name == row
    assert "bicubic_1.5x" in plan.jobs["measure-labels1-seed0"].config["baselines"]
    check_jobs(plan)


def test_the_warm_up_of_the_base_is_a_training_of_its_own(comparison: CompareConfig):
    base = Path(comparison.stage3)
    base.write_text(yaml.safe_dump(yaml.safe_load(base.read_text()) | {"warm_up": {"epochs": 3}}))
    jobs = stage3_jobs(build_plan(comparison), "")
    assert jobs and not any("warm_up" in job.config for job in jobs)
    with pytest.raises(ValueError, match=r"warm_up\.epochs is set by the comparison itself"):
        build_plan(replace(comparison, overrides={"stage3": {"warm_up.epochs": 2}}))


def test_measurements_say_what_every_row_is(comparison: CompareConfig):
    jobs = build_plan(replace(comparison, rows=["frozen/conditional_unlabelled", "retrained/sliced"])).jobs
    config = jobs["measure-labels1-seed0"].config
    assert config["baselines"] == ["hr", "bicubic"], "no rows that nobody asked for"
    record = {"system": "conditional", "family": "frozen", "recipe": "unlabelled", "upscale": 1}
    assert config["records"]["frozen/conditional_unlabelled"] == record
    assert set(config["records"]) == {*config["systems"], *config["detectors"], *config["sliced"]}
    assert jobs["measure-labels0.2-seed0"].config["baselines"] == []


def test_overrides_go_from_the_general_to_the_special(comparison: CompareConfig):
    overrides = {"stage3": {"optim.lr": 1.0, "optim.epochs": 9}, "retrained": {"optim.lr": 2.0}}
    overrides |= {"retrained/bicubic": {"optim.lr": 3.0}, "stage1": {"epochs": 5}}
    plan = build_plan(replace(comparison, overrides=overrides))
    rate = {name: job.config["optim"]["lr"] for name, job in plan.jobs.items() if job.stage == "stage3"}
    assert rate["frozen/conditional-labels1-seed0"] == 1.0 and rate["retrained/hr-labels1-seed0"] == 2.0
    assert rate["retrained/bicubic-labels1-seed0"] == 3.0
    assert plan.jobs["stage1-labels1-seed0"].config["epochs"] == 5
    assert all(job.config["optim"]["epochs"] == 9 for job in stage3_jobs(plan, ""))
    plan = build_plan(replace(comparison, scale=2, epochs=4))
    assert all(job.config["data"]["scale"] == 2 for job in stage3_jobs(plan, ""))
    assert all(job.config["optim"]["epochs"] == 4 for job in stage3_jobs(plan, ""))
    assert "scale" not in plan.jobs["stage1-labels1-seed0"].config["data"], "one detector serves several scales"
    assert plan.jobs["measure-labels1-seed0"].config["data"]["scale"] == 2


def test_stage_1_may_start_from_other_weights(comparison: CompareConfig):
    plan = build_plan(replace(comparison, overrides={"stage1": {"detector.weights": "coco.pt"}}))
    assert plan.jobs["stage1-labels1-seed0"].config["detector"]["weights"] == "coco.pt"
    assert plan.jobs["retrained/hr-labels1-seed0"].config["detector"]["weights"] == Trained("stage1-labels1-seed0")


NAMES = st.text("abc", min_size=1, max_size=2)
TREES = st.recursive(
    st.one_of(st.integers(), st.text("xyz", max_size=3), st.builds(Trained, st.sampled_from(["one", "two"]))),
    lambda below: st.dictionaries(NAMES, below, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(NAMES, TREES, max_size=3))
def test_filling_leaves_nothing_open_and_the_original_as_it_was(tree: dict):
    before = repr(tree)
    filled = fill(tree, {"one": "1.pth", "two": "2.pth"})
    assert not list(needed(filled)) and repr(tree) == before
    assert fill(filled, {}) == filled


@given(st.dictionaries(NAMES, st.dictionaries(NAMES, st.integers(), max_size=3), max_size=3), NAMES, NAMES)
def test_with_keys_sets_one_key_and_keeps_the_others(tree: dict, section: str, key: str):
    before = repr(tree)
    changed = with_keys(tree, {f"{section}.{key}": "new"})
    assert changed[section][key] == "new" and repr(tree) == before
    changed[section].pop(key)
    rest = {name: {k: v for k, v in keys.items() if (name, k) != (section, key)} for name, keys in tree.items()}
    assert changed == {section: {}} | rest


# ---------------------------------------------------------------------- what a hash depends on
