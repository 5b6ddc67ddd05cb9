"""Small stand-ins for the stage scripts, driven exactly as the real ones: by a YAML, with --resume, one output file.

They do at once, and without torch, what a test can check: a training writes what it was started from, an evaluation
writes results.json with all rows that its configuration asks for.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from configs.schema import RunConfig
from utils.cli import run
from utils.config import config_to_dict, parse_config
from utils.errors import UserError


@dataclass(frozen=True)
class FakeData:
    yaml: str = ""
    imgsz: int = 64
    scale: int = 4
    lr_folder: str | None = None
    label_share: float = 1.0
    label_seed: int = 0
    unlabelled: bool = False


@dataclass(frozen=True)
class FakeNetwork:
    weights: str | None = None
    args: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class FakeOptim:
    epochs: int = 2
    lr: float = 1e-3


@dataclass(frozen=True)
class FakeLosses:
    det: float = 1.0
    rec: float = 0.0
    distill: float = 0.0
    distill_outputs: float = 0.0


@dataclass(frozen=True)
class FakeSlices:
    rows: int = 1
    columns: int = 1
    overlap: float = 0.2
    full: bool = True


@dataclass(frozen=True)
class FakeWarmUp:
    epochs: int = 0


@dataclass(frozen=True)
class FakeStage1Config:
    run: RunConfig = field(default_factory=RunConfig)
    data: FakeData = field(default_factory=FakeData)
    detector: FakeNetwork = field(default_factory=FakeNetwork)
    epochs: int = 2


@dataclass(frozen=True)
class FakeStage3Config:
    run: RunConfig = field(default_factory=RunConfig)
    data: FakeData = field(default_factory=FakeData)
    mode: str = "joint"
    sr: str = "conditional"
    upscale: float = 1
    slices: FakeSlices = field(default_factory=FakeSlices)
    start: str | None = None
    warm_up: FakeWarmUp = field(default_factory=FakeWarmUp)
    freeze: list[str] = field(default_factory=list)
    sr_fast: FakeNetwork = field(default_factory=FakeNetwork)
    sr_quality: FakeNetwork = field(default_factory=FakeNetwork)
    detector: FakeNetwork = field(default_factory=FakeNetwork)
    optim: FakeOptim = field(default_factory=FakeOptim)
    losses: FakeLosses = field(default_factory=FakeLosses)


@dataclass(frozen=True)
class FakeEvaluateConfig:
    run: RunConfig = field(default_factory=RunConfig)
    data: FakeData = field(default_factory=FakeData)
    split: str = "val"
    detector: str = ""
    baselines: list[str] = field(default_factory=list)
    sr_fast: str | None = None
    sr_quality: str | None = None
    systems: dict[str, str] = field(default_factory=dict)
    detectors: dict[str, str] = field(default_factory=dict)
    sliced: dict[str, dict[str, bool | int | float | str | None]] = field(default_factory=dict)
    records: dict[str, dict[str, float | str | None]] = field(default_factory=dict)
    budgets: list[float] = field(default_factory=list)
    batch: int = 8
    limit: int = 0
    halo: int | None = None
    timing_runs: int = 0
    overlays: int = 0
    save_detections: bool = False
    backend: str = "native"


CLASSES = {
    "stage1": (FakeStage1Config, "fake1.pth"),
    "stage3": (FakeStage3Config, "fake3.pth"),
    "evaluate": (FakeEvaluateConfig, "results.json"),
}


def behave(folder: Path) -> None:
    """What the environment asks for: to take a while, to fail once or always; each run is counted in runs.txt."""
    with (folder / "runs.txt").open("a") as file:
        file.write(f"{os.getpid()}\n")
    for trigger in os.environ.get("FAKE_FAILS", "").split():
        if trigger in str(folder):
            raise UserError(f"{folder}: it was asked to fail")
    time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))


def train(stage: int, config: FakeStage1Config | FakeStage3Config, output: str) -> int:
    folder = Path(config.run.out)
    folder.mkdir(parents=True, exist_ok=True)
    behave(folder)
    start = config.detector.weights
    number = config.run.seed + config.data.label_share + (config.optim.lr if stage == 3 else 0)
    meta = {"stage": stage, "metrics": {"val/map50_95": number / 10}, "config": json.dumps(config_to_dict(config))}
    meta |= {"from": json.loads(Path(start).read_text())["stage"] if start else None}
    (folder / output).write_text(json.dumps(meta))
    return 0


def evaluate(config: FakeEvaluateConfig) -> int:
    from evaluation.row_key import STOCK, RowKey
    from tests.evaluation.comparison.synthetic import results_of

    folder = Path(config.run.out)
    folder.mkdir(parents=True, exist_ok=True)
    behave(folder)
    keys = [STOCK[name] for name in config.baselines]
    for name in (*config.systems, *config.detectors, *config.sliced):
        key = RowKey(**config.records[name])
        assert key.name == name
        shares = [(kind, share) for kind in ("budget", "random", "edge", "oracle") for share in config.budgets]
        policies = [("learned", None), *shares, ("all_fast", None), ("all_quality", None)]
        keys += [key.under(*policy) for policy in policies] if key.system == "conditional" else [key]
    results = results_of(keys, config.run.seed, timed=config.timing_runs > 0)
    (folder / "results.json").write_text(json.dumps(results))
    return 0


def main() -> int:
    name, sys.argv[1:] = sys.argv[1], sys.argv[2:]
    if name == "stage1":
        return train(1, parse_config(FakeStage1Config, ""), "fake1.pth")
    if name == "stage3":
        return train(3, parse_config(FakeStage3Config, ""), "fake3.pth")
    return evaluate(parse_config(FakeEvaluateConfig, ""))


if __name__ == "__main__":
    run(main)
