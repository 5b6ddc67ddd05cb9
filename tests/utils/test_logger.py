"""Run folders refuse to mix runs, say where a result comes from, and forget what will be logged again."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from configs.schema import OptimConfig, RunConfig
from configs.stage3_schema import Stage3Config
from utils.config import ConfigError, load_config
from utils.logger import MetricsLog, environment, git_state, open_run, versions


def config(folder: Path, **run) -> Stage3Config:
    return Stage3Config(run=RunConfig(out=str(folder), **run))


def begin(folder: Path) -> Path:
    """A run that has done something."""
    open_run(config(folder))
    (folder / "metrics.jsonl").write_text("{}\n")
    return folder


# ----------------------------------------------------------------------------------------------------------- run folder


def test_a_new_folder_holds_config_and_environment(tmp_path: Path):
    folder = open_run(config(tmp_path / "deep" / "run", seed=3))
    assert folder == tmp_path / "deep" / "run"
    assert sorted(p.name for p in folder.iterdir()) == ["config.yaml", "environment.json"]
    assert load_config(Stage3Config, folder / "config.yaml") == config(folder, seed=3)
    known = json.loads((folder / "environment.json").read_text())
    assert known["versions"] == versions() and known["command"] and known["cpu"] and "git" in known


def test_another_run_is_not_overwritten(tmp_path: Path):
    folder = begin(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"run\.out: .*run holds another run; continue it with --run\.resume true or"):
        open_run(config(folder))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"run\.out: .*file is a file; give a folder"):
        open_run(config(tmp_path / "file"))


def test_a_run_that_stopped_before_doing_anything_is_replaced(tmp_path: Path):
    open_run(config(tmp_path / "run", seed=1))
    open_run(config(tmp_path / "run", seed=2))
    assert load_config(Stage3Config, tmp_path / "run" / "config.yaml").run.seed == 2


def test_resume_takes_the_same_settings_only(tmp_path: Path):
    folder = begin(tmp_path / "run")
    assert open_run(config(folder, resume=True, workers=7, device="cpu", log_every=3)) == folder
    assert load_config(Stage3Config, folder / "config.yaml") == config(folder), "the settings it began with stay"
    assert len(json.loads((folder / "environment.json").read_text())["resumed"]) == 1
    changed = replace(config(folder, resume=True, seed=5), optim=OptimConfig(epochs=99))
    with pytest.raises(ConfigError, match=r"run\.resume: .* begun with other settings \(run\.seed, optim\.epochs.*\)"):
        open_run(changed)


def test_the_number_of_epochs_may_change_where_the_script_says_so(tmp_path: Path, capsys):
    folder = begin(tmp_path / "run")
    optim = replace(config(folder).optim, epochs=99)
    longer = replace(config(folder, resume=True, workers=7), optim=optim)
    assert open_run(longer, extends={"optim.epochs": 0}) == folder
    assert f"run.resume: optim.epochs is 99, was {config(folder).optim.epochs};" in capsys.readouterr().out
    expected = replace(config(folder), optim=optim)
    assert load_config(Stage3Config, folder / "config.yaml") == expected, "that of the next resume; the rest stays"
    other = replace(longer, optim=replace(optim, epochs=100, lr=1.0))
    with pytest.raises(ConfigError, match=r"begun with other settings \(optim\.lr\)"):
        open_run(other, extends={"optim.epochs": 0})
    assert load_config(Stage3Config, folder / "config.yaml") == expected and not capsys.readouterr().out
    shorter = replace(longer, optim=replace(optim, epochs=5))
    assert open_run(shorter, extends={"optim.epochs": 99}) == folder, "a finished run is left as it is"
    assert load_config(Stage3Config, folder / "config.yaml") == expected and not capsys.readouterr().out


def test_resume_without_a_run_begins_one(tmp_path: Path):
    assert (open_run(config(tmp_path / "run", resume=True)) / "config.yaml").exists()


def test_a_damaged_environment_does_not_stop_a_resume(tmp_path: Path):
    folder = begin(tmp_path / "run")
    (folder / "environment.json").write_text("{half")
    open_run(config(folder, resume=True))
    assert len(json.loads((folder / "environment.json").read_text())["resumed"]) == 1


def test_further_processes_write_nothing(tmp_path: Path):
    assert open_run(config(tmp_path / "run"), main=False) == tmp_path / "run"
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------------------- environment


def test_environment_is_json_and_names_libraries():
    known = environment()
    assert json.loads(json.dumps(known)) == known
    for name in ("python", "torch", "torchvision", "ultralytics", "numpy", "accelerate"):
        assert known["versions"][name][0].isdigit()


def test_git_state(tmp_path: Path):
    def git(*words: str) -> None:
        identity = ["-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *words], check=True, capture_output=True)

    assert git_state(tmp_path) is None
    git("init", "-q")
    assert git_state(tmp_path) is None, "no commit yet"
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-q", "-m", "first")
    clean = git_state(tmp_path)
    assert len(clean["commit"]) == 40 and not clean["dirty"]
    (tmp_path / "untracked").write_text("1")
    assert git_state(tmp_path) == clean
    (tmp_path / "a").write_text("2")
    assert git_state(tmp_path) == {**clean, "dirty": True}
    (tmp_path / "copy").mkdir()
    assert git_state(tmp_path / "copy") is None, "somebody else's repository"


# -------------------------------------------------------------------------------------------------------------- metrics


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def events(folder: Path, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    reader.Reload()
    return [(event.step, event.value) for event in reader.Scalars(tag)]


def test_metrics_in_both_places(tmp_path: Path):
    log = MetricsLog(tmp_path / "run")
    log.resume_from(0)
    log.scalars({"train/loss": 2.5, "val/psnr": None}, 1)
    log.scalars({"train/loss": float("nan"), "val/psnr": float("inf")}, 2)
    log.scalars({}, 3)
    log.images("val/0", np.zeros((4, 6, 3), np.uint8), 2)
    log.close()
    assert rows(log.folder) == [{"step": 1, "train/loss": 2.5}, {"step": 2, "train/loss": None, "val/psnr": None}]
    assert events(log.folder, "train/loss")[0] == (1, 2.5)


def test_resume_forgets_later_steps(tmp_path: Path):
    first = MetricsLog(tmp_path)
    first.resume_from(0)
    for step in range(1, 6):
        first.scalars({"loss": float(step)}, step)
    first.close()
    with first.path.open("a") as file:
        file.write('{"step": 3, "lo')  # killed in the middle of a line
    second = MetricsLog(tmp_path)
    second.resume_from(3)
    assert rows(tmp_path) == [{"step": step, "loss": float(step)} for step in (1, 2, 3)]
    second.scalars({"loss": 40.0}, 4)
    second.close()
    assert rows(tmp_path)[3:] == [{"step": 4, "loss": 40.0}]
    assert events(tmp_path, "loss") == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]
    MetricsLog(tmp_path).resume_from(0)
    assert rows(tmp_path) == []


def test_only_the_main_process_logs(tmp_path: Path):
    log = MetricsLog(tmp_path, main=False)
    log.resume_from(3)
    log.scalars({"loss": 1.0}, 4)
    log.images("x", np.zeros((2, 2, 3), np.uint8), 4)
    log.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["program.py"], ["-m", "package.program"]])
def test_the_command_is_the_one_that_was_given(tmp_path: Path, words):
    """Python itself makes an absolute path of a module's name."""
    for file in (tmp_path / "program.py", tmp_path / "package/program.py"):
        file.parent.mkdir(exist_ok=True)
        file.write_text("from utils.logger import environment\nprint(environment()['command'])")
    given = [*words, "--out", "a b"]
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).resolve().parents[2])])
    done = subprocess.run(
        [sys.executable, *given], cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.stdout.strip() == shlex.join([Path(sys.executable).name, *given]), done.stderr
