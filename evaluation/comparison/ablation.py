"""The recipe study: variants of one row, each trained as the comparison would, one number on the validation split."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from configs.compare_schema import AblationConfig, CompareConfig
from evaluation.comparison.aggregate import figure
from evaluation.comparison.catalogue import BY_NAME, ROWS
from evaluation.comparison.jobs import JobPlan
from evaluation.comparison.plan import Planner
from evaluation.comparison.plan_checks import check_used
from evaluation.comparison.report import figure_text
from evaluation.comparison.run import Outcome
from evaluation.detection_report import markdown
from utils.atomic_file import replace_text
from utils.config import load_config
from utils.errors import UserError

BASE = "base"
FIXED = ("run.out", "run.seed", "run.resume", "data.yaml", "data.label_share", "data.label_seed", "detector.weights")


def load_comparison(config: AblationConfig) -> CompareConfig:
    """The comparison that the study belongs to, for the study's seeds and data.

    Raises:
        ConfigError: its YAML cannot be used.
    """
    comparison = load_config(CompareConfig, config.comparison)
    changes = {"seeds": config.seeds, "sweep_seeds": None} | ({"data": config.data} if config.data else {})
    return replace(comparison, **changes)


def plan_ablations(config: AblationConfig, comparison: CompareConfig) -> tuple[JobPlan, dict[str, list[str]]]:
    """The jobs, and for every variant (the unchanged row first) the names of its jobs, seed by seed.

    Raises:
        ValueError: unknown row, one without a training, or a key that a variant cannot change.
    """
    row = BY_NAME.get(config.row)
    if row is None or not row.trained:
        names = ", ".join(row.name for row in ROWS if row.trained)
        raise UserError(f"row: there is no trained row {config.row!r}; choose among {names}")
    if BASE in config.variants:
        raise UserError(f"variants.{BASE}: this name is the unchanged row's; choose another")
    for name, keys in {"": config.common, **config.variants}.items():
        wrong = [key for key in keys if key in FIXED]
        if wrong:
            section = f"variants.{name}" if name else "common"
            raise UserError(f"{section}: {wrong[0]} is set by the study itself; remove it")
        check_used(f"variants.{name}" if name else "common", row.stage3["sr"], keys)
    planner = Planner(comparison)
    names: dict[str, list[str]] = {}
    for variant, keys in {BASE: {}, **config.variants}.items():
        label = f"{row.name}+{variant}"
        keys = config.common | keys
        names[variant] = [planner.row(row, seed, config.label_share, keys, label).job for seed in config.seeds]
    return planner.plan, names


def study_results(config: AblationConfig, names: dict[str, list[str]], outcome: Outcome, output: str) -> dict:
    """Content of ablations.json: for every variant its keys, its figure, and the difference to the unchanged row.

    Args:
        config: of the study.
        names: jobs of every variant.
        outcome: of running them.
        output: checkpoint within a run folder.
    """
    values = {
        variant: [
            metric_of(outcome.finished[job] / output, config.metric) if job in outcome.finished else None
            for job in jobs
        ]
        for variant, jobs in names.items()
    }
    variants = []
    for variant, found in values.items():
        pairs = zip(found, values[BASE], strict=True)
        differences = [a - b for a, b in pairs if a is not None and b is not None]
        keys = config.variants.get(variant, {})
        variants.append({"name": variant, "keys": keys, "figure": figure(found), "over_base": figure(differences)})
    content = {"row": config.row, "metric": config.metric, "split": "val", "seeds": config.seeds}
    return content | {"label_share": config.label_share, "common": config.common, "variants": variants}


def metric_of(checkpoint: Path, metric: str) -> float | None:
    """A number that stage 3 measured at its end, on the validation split; None where it did not."""
    from utils.checkpoint import load_network

    return load_network(checkpoint)["meta"]["metrics"].get(metric)


def study_markdown(content: dict) -> str:
    """The table, best variant first, the unchanged row in its place."""
    ranked = sorted(content["variants"], key=lambda v: -(v["figure"] or {"mean": float("-inf")})["mean"])
    head = ["variant", "changed keys", content["metric"].removeprefix("val/"), "over base"]
    lines = [
        [v["name"], keys_text(v["keys"]), figure_text("", v["figure"]), figure_text("", v["over_base"])] for v in ranked
    ]
    seeds = ", ".join(map(str, content["seeds"]))
    about = (
        f"Variants of {content['row']}, {content['label_share']:.0%} of the labels, seeds {seeds}; validation split, "
        "mean ± standard deviation (n - 1), differences taken within a seed."
    )
    if content["common"]:
        about += f" All of them with {keys_text(content['common'])}."
    return f"{about}\n\n{markdown([head, *lines], left=2)}\n"


def keys_text(keys: dict) -> str:
    return ", ".join(f"{key} {json.dumps(value)}" for key, value in keys.items()) or "-"


def write_study(folder: Path, content: dict) -> str:
    """Write ablations.md and ablations.json; returns the Markdown text."""
    text = study_markdown(content)
    replace_text(folder / "ablations.md", text)
    replace_text(folder / "ablations.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    return text
