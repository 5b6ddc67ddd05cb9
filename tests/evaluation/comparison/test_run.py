"""The runner with stand-ins for the stage scripts: caching, failures, interruption, two runners with one cache."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from configs.compare_schema import CompareConfig
from evaluation.comparison.jobs import ROOT, JobPlan
from evaluation.comparison.plan import build_plan
from evaluation.comparison.run import Outcome, Runner, locked, spent_seconds, tail


def small(config: CompareConfig, **changes) -> CompareConfig:
    """One seed, one label share, two trained rows."""
    changes = {"seeds": [0], "label_shares": [1.0], "rows": ["retrained/bicubic", "retrained/conditional"]} | changes
    return replace(config, **changes)


def run(config: CompareConfig, said: list[str] | None = None, jobs: int = 2) -> tuple[JobPlan, Outcome]:
    plan = build_plan(config)
    return plan, Runner(plan, config.cache, jobs, (said if said is not None else []).append).run()


def times_run(config: CompareConfig) -> dict[str, int]:
    """How often each script ran, by the folder's name without its hash."""
    files = sorted(Path(config.cache).glob("*/run/runs.txt"))
    return {file.parents[1].name[:-13]: len(file.read_text().split()) for file in files}


def test_everything_is_trained_once_and_found_again(comparison: CompareConfig):
    config, said = small(comparison), []
    plan, outcome = run(config, said)
    assert outcome.finished.keys() == plan.jobs.keys() and not outcome.failed and not outcome.skipped
    assert (
        len(plan.jobs) == 5 and said[-1] == "[5/5] measure-labels1-seed0: finished after " + said[-1].split()[-2] + " s"
    )
    before, again = times_run(config), []
    assert set(before.values()) == {1}
    _, second = run(config, again)
    assert second.finished == outcome.finished and times_run(config) == before
    assert [line.rpartition(": ")[2] for line in again] == ["found"] * 5


def test_a_training_starts_from_the_checkpoint_that_it_needs(comparison: CompareConfig):
    config = small(comparison)
    _, outcome = run(config)
    detector = outcome.finished["stage1-labels1-seed0"] / "fake1.pth"
    meta = json.loads((outcome.finished["retrained/bicubic-labels1-seed0"] / "fake3.pth").read_text())
    assert meta["from"] == 1
    given = json.loads(meta["config"])
    assert given["detector"]["weights"] == str(detector) and given["run"]["resume"] is True
    note = json.loads((outcome.finished["retrained/bicubic-labels1-seed0"].parent / "job.json").read_text())
    assert note["name"] == "retrained/bicubic-labels1-seed0" and note["seconds"] > 0 and len(note["key"]) == 64


@pytest.mark.slow
def test_what_changed_is_trained_again_what_did_not_is_found(comparison: CompareConfig):
    config = small(comparison)
    run(config)
    changed = replace(config, overrides={"retrained/conditional": {"optim.lr": 0.5}})
    _, outcome = run(changed)
    assert len(outcome.finished) == 5
    folders = [folder.name[:-13] for folder in Path(config.cache).iterdir()]
    twice = {"retrained_conditional-labels1-seed0", "measure-labels1-seed0"}
    assert {name for name in folders if folders.count(name) == 2} == twice and len(folders) == 7


def test_two_names_for_one_training_share_it(comparison: CompareConfig):
    config = small(comparison)
    _, first = run(config)
    plan = build_plan(config)
    job = plan.jobs.pop("retrained/bicubic-labels1-seed0")
    renamed = JobPlan({name: job for name, job in plan.jobs.items() if job.stage == "stage1"})
    renamed.add(replace(job, name="study-base"))
    outcome = Runner(renamed, config.cache, say=lambda line: None).run()
    assert outcome.finished["study-base"] == first.finished["retrained/bicubic-labels1-seed0"]


def test_a_failure_stops_only_what_depends_on_it(comparison: CompareConfig, monkeypatch):
    config, said = small(comparison), []
    monkeypatch.setenv("FAKE_FAILS", "retrained_bicubic-")
    _, outcome = run(config, said)
    assert list(outcome.failed) == ["retrained/bicubic-labels1-seed0"]
    assert outcome.skipped == ["measure-labels1-seed0"]
    assert {"retrained/hr-labels1-seed0", "retrained/conditional-labels1-seed0"} <= outcome.finished.keys()
    message = outcome.failed["retrained/bicubic-labels1-seed0"]
    assert message in said and "failed with status 2" in message and "log.txt" in message
    assert "it was asked to fail" in message.splitlines()[-1]
    monkeypatch.delenv("FAKE_FAILS")
    _, outcome = run(config)
    assert not outcome.failed and len(outcome.finished) == 5
    assert times_run(config)["retrained_bicubic-labels1-seed0"] == 2


def test_a_script_that_ends_without_its_output_has_failed(comparison: CompareConfig, monkeypatch, tmp_path: Path):
    from evaluation.comparison.jobs import STAGES

    empty = tmp_path / "empty.py"
    empty.write_text("print('done nothing')\n")
    monkeypatch.setitem(STAGES, "stage1", replace(STAGES["stage1"], script=empty))
    _, outcome = run(small(comparison))
    assert "done nothing" in outcome.failed["stage1-labels1-seed0"] and not outcome.finished
    assert len(outcome.skipped) == 4


@pytest.mark.slow
def test_as_many_at_a_time_as_allowed_and_timed_ones_alone(comparison: CompareConfig, monkeypatch):
    monkeypatch.setenv("FAKE_SECONDS", "0.3")
    config = small(comparison, rows=["retrained/bicubic", "retrained/sr_fast", "retrained/sr_quality"], seeds=[0, 1])
    plan, seen = build_plan(config), []

    class Watched(Runner):
        def start(self, job, folder):
            begun = super().start(job, folder)
            seen.append([entry.job for entry in self.running])
            return begun

    outcome = Watched(plan, config.cache, 3, lambda line: None).run()
    assert len(outcome.finished) == len(plan.jobs)
    assert max(map(len, seen)) == 3
    timed = [jobs for jobs in seen if any(job.alone for job in jobs)]
    assert timed and all(len(jobs) == 1 for jobs in timed)


def compare_in_a_process(config: CompareConfig, tmp_path: Path, **environment: str) -> subprocess.Popen:
    """A runner of its own process, so that it can be killed."""
    script = tmp_path / "runner.py"
    stages = {name: str(tmp_path / f"{name}.py") for name in ("stage1", "stage3", "evaluate")}
    script.write_text(
        f"import signal, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        "from evaluation.comparison.jobs import STAGES, Stage\n"
        "from evaluation.comparison.plan import build_plan\n"
        "from evaluation.comparison.run import Runner\n"
        "from configs.compare_schema import CompareConfig, MeasureConfig\n"
        "from configs.evaluate_schema import SlicedConfig\n"
        "from pathlib import Path\n"
        "from tests.evaluation.comparison.fake_stages import CLASSES\n"
        f"for name, path in {stages!r}.items():\n"
        "    STAGES[name] = Stage(Path(path), *CLASSES[name])\n"
        f"config = {config!r}\n"
        "Runner(build_plan(config), config.cache, 2).run()\n"
    )
    return subprocess.Popen([sys.executable, str(script)], cwd=ROOT, env={**os.environ, **environment})


def wait_for(condition, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at Linux processes")
@pytest.mark.parametrize("request_", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_takes_its_scripts_along_and_goes_on_later(comparison, tmp_path: Path, request_):
    config = small(comparison)
    process = compare_in_a_process(config, tmp_path, FAKE_SECONDS="60")
    started = Path(config.cache)
    wait_for(
        lambda: list(started.glob("stage1*/run/runs.txt")) and next(started.glob("stage1*/run/runs.txt")).read_text()
    )
    pid = int(next(started.glob("stage1*/run/runs.txt")).read_text())
    assert alive(pid)
    process.send_signal(request_)
    assert process.wait(90) != 0
    wait_for(lambda: not alive(pid))
    _, outcome = run(config)
    assert len(outcome.finished) == 5 and times_run(config)["stage1-labels1-seed0"] == 2


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at Linux processes")
def test_what_a_killed_runner_left_running_is_waited_for(comparison: CompareConfig, tmp_path: Path):
    config = small(comparison)
    process = compare_in_a_process(config, tmp_path, FAKE_SECONDS="4")
    started = Path(config.cache)
    wait_for(
        lambda: list(started.glob("stage1*/run/runs.txt")) and next(started.glob("stage1*/run/runs.txt")).read_text()
    )
    process.kill()
    process.wait(10)
    said: list[str] = []
    _, outcome = run(config, said)
    assert "another process is at it" in said[0] and len(outcome.finished) == 5
    assert times_run(config)["stage1-labels1-seed0"] == 1, "it was not trained twice"


def test_a_lock_is_held_by_one(tmp_path: Path):
    first = locked(tmp_path / "lock")
    assert locked(tmp_path / "lock") is None
    first.close()
    assert locked(tmp_path / "lock") is not None


def test_tail_shows_the_last_state_of_a_progress_bar(tmp_path: Path):
    log = tmp_path / "log.txt"
    log.write_bytes(b"".join(b"line %d\n" % i for i in range(30)) + b"  1%\r 50%\r100% done\n")
    lines = tail(log).splitlines()
    assert lines[-2:] == ["    line 29", "    100% done"] and len(lines) == 12
    assert tail(tmp_path / "absent.txt") == ""


def test_seconds_of_an_unknown_folder(tmp_path: Path):
    (tmp_path / "job.json").write_text("{")
    assert spent_seconds(tmp_path) == 0 and spent_seconds(tmp_path / "nowhere") == 0
