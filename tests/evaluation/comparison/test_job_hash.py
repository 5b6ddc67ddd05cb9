"""When two jobs are the same: what counts in a hash and what does not."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.compare_schema import CompareConfig
from configs.evaluate_schema import EvaluateConfig, SlicedConfig
from configs.stage3_schema import SlicesConfig, Stage3Config
from evaluation.comparison import job_hash as hashing
from evaluation.comparison.job_hash import data_hash, hashed_content, job_hash
from evaluation.comparison.plan import build_plan
from tests.drawn import draw_detection_set
from tests.evaluation.comparison.fake_stages import FakeNetwork
from utils.config import config_to_dict

NAMES = st.text("abc", min_size=1, max_size=2)


def key_of(config: CompareConfig, name: str = "frozen/conditional-labels1-seed0") -> str:
    data_hash.cache_clear()
    job = build_plan(config).jobs[name]
    detector = Path(config.stage1).parent / "detector.pth"
    if not detector.exists():
        detector.write_bytes(b"weights")
    return job_hash(job, dict.fromkeys(job.needs, str(detector)))


def test_where_and_how_it_runs_does_not_count(comparison: CompareConfig):
    key = key_of(comparison)
    assert key == key_of(replace(comparison, out="elsewhere", cache="there", threads=3, device="cpu", jobs=4))
    assert key == key_of(replace(comparison, seeds=[0], label_shares=[1.0]))
    timed = "measure-labels1-seed0"
    assert key_of(comparison, timed) != key_of(replace(comparison, threads=3), timed), "threads change milliseconds"
    untimed = "measure-labels0.2-seed0"
    assert key_of(comparison, untimed) == key_of(replace(comparison, threads=3), untimed)


def test_keys_weights_and_detector_count(comparison: CompareConfig, tmp_path: Path):
    keys = [key_of(comparison), key_of(replace(comparison, overrides={"frozen": {"optim.lr": 0.5}}))]
    (tmp_path / "fast.safetensors").write_bytes(b"trained longer")
    keys.append(key_of(comparison))
    (tmp_path / "detector.pth").write_bytes(b"another detector")
    keys.append(key_of(comparison))
    base = yaml.safe_load((tmp_path / "stage3.yaml").read_text())
    (tmp_path / "stage3.yaml").write_text(yaml.safe_dump(base | {"sr_fast": {"args": {"n": 1}}}))
    keys.append(key_of(comparison))
    assert len(set(keys)) == len(keys)


def test_networks_that_a_row_does_not_have_do_not_count(comparison: CompareConfig, tmp_path: Path):
    names = [name for name, job in build_plan(comparison).jobs.items() if job.stage == "stage3"]
    before = {name: key_of(comparison, name) for name in names}
    other = replace(comparison, overrides={"stage3": {"sr_fast.args": {"n": 1}}})
    (tmp_path / "fast.safetensors").write_bytes(b"another network")
    same = {name for name in names if key_of(other, name) == before[name]}
    jobs = build_plan(comparison).jobs
    assert same == {name for name in names if jobs[name].config["sr"] not in ("conditional", "sr_fast")}
    assert {"retrained/bicubic-labels1-seed0", "frozen/sr_quality_tuned_unlabelled-seed0"} <= same
    measured = "measure-labels1-seed0"  # shows stock SR_Fast too
    assert key_of(comparison, measured) != key_of(replace(comparison, sr_fast=comparison.sr_quality), measured)


def test_defaults_of_networks_that_a_row_does_not_have_do_not_count(comparison: CompareConfig, monkeypatch):
    bicubic, conditional = "retrained/bicubic-labels1-seed0", "frozen/conditional-labels1-seed0"
    before = [key_of(comparison, name) for name in (bicubic, conditional)]
    real = hashing.resolved

    def other_default(job, checkpoints):
        return replace(real(job, checkpoints), sr_fast=FakeNetwork(args={"n": 7}))

    monkeypatch.setattr(hashing, "resolved", other_default)
    after = [key_of(comparison, name) for name in (bicubic, conditional)]
    assert after[0] == before[0] and after[1] != before[1]


def test_a_moved_file_is_the_same_file(comparison: CompareConfig, tmp_path: Path):
    key = key_of(comparison)
    (tmp_path / "fast.safetensors").rename(tmp_path / "renamed.safetensors")
    assert key_of(replace(comparison, sr_fast=str(tmp_path / "renamed.safetensors"))) == key


def test_images_and_labels_count_their_place_does_not(comparison: CompareConfig, tmp_path: Path):
    key = key_of(comparison)
    moved = draw_detection_set(tmp_path / "moved", images=2)
    assert key_of(replace(comparison, data=str(moved))) == key
    label = tmp_path / "moved" / "labels" / "train" / "0.txt"
    label.write_text("0 0.5 0.5 0.1 0.1\n")
    changed = key_of(replace(comparison, data=str(moved)))
    (tmp_path / "moved" / "images" / "train" / "1.png").unlink()
    fewer = key_of(replace(comparison, data=str(moved)))
    assert len({key, changed, fewer}) == 3


def test_each_job_reads_its_own_splits(comparison: CompareConfig, tmp_path: Path):
    moved = draw_detection_set(tmp_path / "moved", images=2)
    before = [
        key_of(replace(comparison, data=str(moved)), name)
        for name in ("stage1-labels1-seed0", "measure-labels0.2-seed0")
    ]
    (tmp_path / "moved" / "labels" / "train" / "0.txt").unlink()
    after = [
        key_of(replace(comparison, data=str(moved)), name)
        for name in ("stage1-labels1-seed0", "measure-labels0.2-seed0")
    ]
    assert before[0] != after[0] and before[1] == after[1], "evaluation on val reads no training labels"


def test_file_content_is_read_again_when_it_changes(tmp_path: Path):
    file = tmp_path / "weights.pth"
    file.write_bytes(b"one")
    first = hashed_content({"a": [str(file), 3]}, set())
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    assert hashed_content({"a": [str(file), 3]}, set()) != first and first["a"][1] == 3


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(NAMES, st.integers(), max_size=4), st.sets(NAMES))
def test_free_keys_never_count(tree: dict, free: set):
    kept = {key: value for key, value in tree.items() if key not in free}
    assert hashed_content(tree, free) == kept
    assert hashed_content({"a": tree}, {f"a.{key}" for key in free}) == {"a": kept}


def test_what_older_versions_trained_stays_found():
    """Keys that came later are no part of a hash while they say nothing."""
    tree = config_to_dict(Stage3Config())
    assert tree["upscale"] == 1.0 and "slices" in tree
    hashing.as_before("stage3", tree)
    assert "slices" not in tree and json.dumps(tree["upscale"]) == "1"
    tree = config_to_dict(Stage3Config(slices=SlicesConfig(rows=2), upscale=1.5))
    hashing.as_before("stage3", tree)
    assert tree["slices"]["rows"] == 2 and tree["upscale"] == 1.5
    rows = {"one": SlicedConfig(), "two": SlicedConfig(library="sahi")}
    tree = config_to_dict(EvaluateConfig(sliced=rows))
    hashing.as_before("evaluate", tree)
    assert "library" not in tree["sliced"]["one"] and tree["sliced"]["two"]["library"] == "sahi"
