"""A small project: base YAMLs, a drawn data set, and stand-ins for the stage scripts in their places."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from configs.compare_schema import CompareConfig, MeasureConfig
from evaluation.comparison import jobs
from evaluation.comparison.job_hash import data_hash
from tests.drawn import draw_detection_set
from tests.evaluation.comparison.fake_stages import CLASSES

WRAPPER = "import sys\nsys.path.insert(0, {root!r})\nsys.argv.insert(1, {stage!r})\nfrom utils.cli import run\n"


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch) -> None:
    """Stage scripts that finish at once, see fake_stages.py."""
    for stage, (config, output) in CLASSES.items():
        script = tmp_path / f"{stage}.py"
        text = WRAPPER.format(root=str(jobs.ROOT), stage=stage)
        script.write_text(f"{text}from tests.evaluation.comparison.fake_stages import main\nrun(main)\n")
        monkeypatch.setitem(jobs.STAGES, stage, jobs.Stage(script, config, output))


@pytest.fixture
def comparison(tmp_path: Path, fakes) -> CompareConfig:
    """A comparison of all rows with two seeds and two label shares, everything below tmp_path."""
    data_hash.cache_clear()
    data = draw_detection_set(tmp_path / "set", images=2)
    for name, content in {
        "stage1": {"run": {"workers": 0}, "data": {"yaml": str(data)}, "epochs": 3},
        "stage3": {"run": {"workers": 0}, "data": {"yaml": str(data), "scale": 4}, "optim": {"epochs": 2}},
    }.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    for name in ("fast", "quality"):
        (tmp_path / f"{name}.safetensors").write_bytes(name.encode())
    return CompareConfig(
        out=str(tmp_path / "out"),
        cache=str(tmp_path / "cache"),
        stage1=str(tmp_path / "stage1.yaml"),
        stage3=str(tmp_path / "stage3.yaml"),
        sr_fast=str(tmp_path / "fast.safetensors"),
        sr_quality=str(tmp_path / "quality.safetensors"),
        seeds=[0, 1],
        label_shares=[0.2, 1.0],
        measure=MeasureConfig(split="val", budgets=[0.25, 0.5]),
    )
