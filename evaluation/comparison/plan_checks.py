"""What no comparison can be made of, refused before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from configs.compare_schema import CompareConfig, Overrides
from evaluation.comparison.catalogue import BY_NAME, FAMILIES, RowSpec
from evaluation.comparison.jobs import Job
from utils.errors import UserError

# Set by the plan itself; then what makes a family fair, which only the family as a whole may change.
FIXED = (
    *("run.out", "run.seed", "run.resume", "mode", "sr", "upscale", "start", "freeze", "detector.weights"),
    *(
        "sr_fast.weights",
        "sr_quality.weights",
        "data.yaml",
        "data.scale",
        "data.label_share",
        "data.label_seed",
        "data.unlabelled",
    ),
)
SHARED = ("data.", "augment.", "detector.", "optim.epochs", "optim.batch")
USED_BY = {  # sections of stage 3, and the values of `sr` for which they say something
    "masker": ("conditional",),
    "gumbel": ("conditional",),
    "sr_fast": ("conditional", "sr_fast"),
    "sr_quality": ("conditional", "sr_quality"),
}
FRONT_END = {  # what a front end has to agree in with the warm-up that it starts from
    "conditional": (
        "masker.patch",
        "masker.channels",
        "masker.shared_stem",
        "sr_fast.name",
        "sr_fast.args",
        "sr_quality.name",
        "sr_quality.args",
    ),
    "sr_fast": ("sr_fast.name", "sr_fast.args"),
    "sr_quality": ("sr_quality.name", "sr_quality.args"),
}


def check_comparison(config: CompareConfig, rows: list[RowSpec]) -> None:
    """Raises ValueError or FileNotFoundError for what no comparison can be made of, naming the key."""
    for key in ("seeds", "label_shares"):
        values = getattr(config, key)
        if not values or len(set(values)) < len(values):
            raise UserError(f"{key} is {values}; give at least one, each once")
    if config.sweep_seeds is not None and not (config.sweep_seeds and set(config.sweep_seeds) <= set(config.seeds)):
        raise UserError(f"sweep_seeds is {config.sweep_seeds}; choose among seeds, {config.seeds}, or null for all")
    for key in ("repeat_rows", "sweep_rows"):
        unknown = sorted(set(getattr(config, key)) - set(BY_NAME))
        if unknown:
            raise UserError(f"{key}: there is no row {unknown[0]!r}; choose among {', '.join(BY_NAME)}")
    if not any(row.trained for row in rows):
        raise UserError(
            f"rows: nothing is trained in {config.rows}; add a row, or measure a detector as it is by evaluate.py"
        )
    if config.distill + config.distill_outputs <= 0:
        raise UserError("distill and distill_outputs are both 0; rows that match HR features need a weight above 0")
    for key in ("weights", "library"):
        if getattr(config.sliced, key):
            raise UserError(f"sliced.{key} is set by the comparison itself; remove it")
    for key in ("sr_fast", "sr_quality"):
        if not Path(getattr(config, key)).is_file():
            raise FileNotFoundError(f"{key}: {getattr(config, key)} does not exist; stage2_pretrain_sr.py writes such")
    check_overrides(config.overrides, rows)


def check_overrides(overrides: Overrides, rows: list[RowSpec]) -> None:
    """Raises ValueError for a group that does not exist and for keys that would make the comparison unfair."""
    groups = ("stage1", "stage3", *FAMILIES)
    trained = {row.name: row for row in rows if row.trained}
    for group, keys in overrides.items():
        if group not in groups and group not in trained:
            raise UserError(f"overrides.{group}: no such group; choose among {', '.join((*groups, *trained))}")
        if group in trained:
            check_used(f"overrides.{group}", trained[group].stage3["sr"], keys)
        for key in keys:
            fixed = key in FIXED or key.startswith(("slices.", "warm_up."))
            if fixed and not (group == "stage1" and key == "detector.weights"):  # what stage 1 itself starts from
                raise UserError(f"overrides.{group}: {key} is set by the comparison itself; remove it")
            if group in FAMILIES and key.startswith("data."):
                raise UserError(f"overrides.{group}: both families share {key}; set it for stage3 instead")
            if group not in groups and key.startswith(SHARED):
                family = trained[group].family
                raise UserError(
                    f"overrides.{group}: all rows of the family share {key}; set it for {family} or stage3 instead"
                )


def check_used(place: str, sr: str, keys: Iterable[str]) -> None:
    """Raises ValueError for a key of one row whose section that row does not have."""
    for key in keys:
        section = key.partition(".")[0]
        if sr not in USED_BY.get(section, (sr,)):
            raise UserError(f"{place}: {key} changes nothing, for a row with sr {sr} has no {section}; remove it")


def check_start(name: str, tree: dict[str, Any], start: Job) -> None:
    """Raises ValueError where a front end cannot take over that of its warm-up."""
    for key in FRONT_END[tree["sr"]]:
        section, _, last = key.partition(".")
        own, theirs = ((config.get(section) or {}).get(last) for config in (tree, start.config))
        if own != theirs:
            raise UserError(
                f"{name}: {key} is {own}, but {theirs} in {start.name}, from which it starts; set it in the overrides "
                "of stage3 for all, or warm_up: false (in a recipe study: start: null)"
            )


def check_halo(halo: int | Literal["exact"] | None, job: Job) -> None:
    """Raises ValueError where a system trained on tiles would be measured with another halo than theirs."""
    masker = job.config.get("masker", {})
    if halo is not None and masker.get("train") == "tiles" and masker.get("halo") != halo:
        raise UserError(
            f"measure.halo is {halo}, but {job.name} is trained on tiles with its own masker.halo: set that, and "
            "measure.halo to null"
        )
