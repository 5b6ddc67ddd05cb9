"""Jobs of a comparison: which script runs with which configuration, and whose checkpoint goes into it."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.evaluate_schema import EvaluateConfig
from configs.schema import Stage1Config
from configs.stage3_schema import Stage3Config
from loading.stage3_checks import check_stage3
from utils.config import ConfigError, load_config
from utils.errors import UserError
from utils.extras import require
from utils.yaml_strict import dump_yaml, load_yaml

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Stage:
    """A script that a job runs.

    Args:
        script: path of the script.
        config: its configuration class.
        output: file in its run folder whose presence says that it is finished.
        version: raised by hand when the same configuration begins to mean something else; part of every hash.
        check: refuses combinations of keys that make no sense together, as the script does when it starts.
    """

    script: Path
    config: type
    output: str
    version: int = 1
    check: Callable[[Any], None] | None = None


def check_libraries(config: EvaluateConfig) -> None:
    """Raises MissingExtra where a row needs a library that is not installed: before hours of training."""
    for name, options in config.sliced.items():
        if options.library is not None:
            require(options.library, "integrations", name)


STAGES = {
    "stage1": Stage(ROOT / "stage1_pretrain_yolo.py", Stage1Config, "yolo_pretrained_hr.pth"),
    "stage3": Stage(
        ROOT / "stage3_finetune_joint.py",
        Stage3Config,
        "conditional_sr_yolo_jointly_tuned.pth",
        version=2,
        check=check_stage3,
    ),
    "evaluate": Stage(ROOT / "evaluate.py", EvaluateConfig, "results.json", version=4, check=check_libraries),
}


@dataclass(frozen=True)
class Trained:
    """Stands in a configuration for the checkpoint that another job writes."""

    job: str


@dataclass(frozen=True)
class Job:
    """One run of a stage script.

    Args:
        name: unique in its plan.
        stage: key of STAGES.
        config: nested keys as in a YAML, with `Trained` where another job's checkpoint goes.
        alone: timed, so nothing else may run beside it.
    """

    name: str
    stage: str
    config: dict[str, Any]
    alone: bool = False

    @property
    def needs(self) -> list[str]:
        """Names of the jobs that have to be finished before."""
        return list(dict.fromkeys(needed(self.config)))


@dataclass(frozen=True)
class Measurement:
    """What one evaluation answers for: a seed, a label share, and the rows that were trained for it."""

    job: str
    seed: int
    label_share: float


@dataclass
class JobPlan:
    """Jobs by name, each after those that it needs."""

    jobs: dict[str, Job] = field(default_factory=dict)
    measurements: list[Measurement] = field(default_factory=list)

    def add(self, job: Job) -> Trained:
        self.jobs.setdefault(job.name, job)
        return Trained(job.name)


# ------------------------------------------------------------------------------------------------------ configurations


def needed(tree: Any) -> Iterator[str]:
    """Names of the jobs whose checkpoints a configuration names."""
    if isinstance(tree, Trained):
        yield tree.job
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from needed(value)


def with_keys(tree: dict[str, Any], keys: dict[str, Any]) -> dict[str, Any]:
    """A copy of a nested mapping with the values of these dotted names."""
    tree = copy.deepcopy(tree)
    for name, value in keys.items():
        *sections, last = name.split(".")
        section = tree
        for part in sections:
            section[part] = section.get(part) or {}
            section = section[part]
        section[last] = copy.deepcopy(value)
    return tree


def fill(tree: Any, checkpoints: dict[str, str]) -> Any:
    """A copy in which every `Trained` is the text that `checkpoints` has for its job."""
    if isinstance(tree, dict):
        return {key: fill(value, checkpoints) for key, value in tree.items()}
    return checkpoints[tree.job] if isinstance(tree, Trained) else copy.deepcopy(tree)


def read_base(path: str, stage: str) -> dict[str, Any]:
    """A base YAML as nested mappings, checked against its class. Raises ConfigError."""
    load_config(STAGES[stage].config, path)
    return load_yaml(path) or {}


def resolved(job: Job, checkpoints: dict[str, str]) -> Any:
    """The configuration of a job, as its script will read it. Raises ConfigError naming job and key."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(dump_yaml(fill(job.config, checkpoints)), encoding="utf-8")
        try:
            return load_config(STAGES[job.stage].config, file)
        except ConfigError as error:
            message = str(error).removeprefix(str(file)).partition(": ")[2]
            raise ConfigError(f"{job.name}: {message} (from the base YAML or `overrides`)") from None


def check_jobs(plan: JobPlan) -> None:
    """Every configuration is accepted by its script.

    Raises:
        ConfigError: see `resolved`.
        ValueError: keys that make no sense together; names the job.
        FileNotFoundError: there is no data-set YAML.
    """
    for job in plan.jobs.values():
        config, check = resolved(job, dict.fromkeys(plan.jobs, "checkpoint.pth")), STAGES[job.stage].check
        try:
            if check is not None:
                check(config)
        except ValueError as error:
            raise UserError(f"{job.name}: {error}") from None
