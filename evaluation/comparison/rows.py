"""The catalogue of rows, in two families: each is fair within itself, figures of one do not answer for the other.

*frozen*: a deployed HR detector that nobody may touch; only what stands in front of it learns. *retrained*: the
detector may learn; every row, the HR row too, starts from the same detector, with the same labelled images and epochs
(with `sweep_unlabelled`, which lets rows keep images without labels: the same labelled images).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from utils.errors import UserError

FAMILIES = ("frozen", "retrained")
LABEL_FREE = {"losses.det": 0.0}
NOTHING_TO_COMPARE = {"losses.rec": 0.0}  # the detector's images are not of the HR images' size, or are the HR images
HR, BICUBIC = "hr", "bicubic"
CONTROLS = ("random", "edge", "oracle")
WARM_UP = {  # the row that warms up a front end, without labels
    "sr_fast": "frozen/sr_fast_tuned_unlabelled",
    "sr_quality": "frozen/sr_quality_tuned_unlabelled",
    "conditional": "frozen/conditional_unlabelled",
}


@dataclass(frozen=True)
class RowSpec:
    """One row, or a conditional system with a row per mask policy.

    Args:
        name: with its family in front.
        shown: stock: measured without training; system: stage-3 checkpoint that sees LR images; hr: one that sees HR
            images; sliced: sliced inference with the detector of another row.
        stage3: keys in which its training differs from the base YAML, by dotted name.
        distilled: matches the features and outputs of the detector on HR images.
        warm: row without labels whose front end, trained through the same detector, it starts from.
        labels: its training looks at labels.
        of: the row whose checkpoint `sliced` takes; None: the deployed detector.
    """

    name: str
    shown: Literal["stock", "system", "hr", "sliced"] = "system"
    stage3: dict[str, Any] = field(default_factory=dict)
    distilled: bool = False
    labels: bool = True
    warm: str | None = None
    of: str | None = None

    @property
    def family(self) -> str:
        return self.name.partition("/")[0]

    @property
    def trained(self) -> bool:
        return self.shown in ("system", "hr")


def front_end(name: str, sr: str) -> list[RowSpec]:
    """A front end trained through the frozen detector, with labels and without; always with HR features to match."""
    keys = {"mode": "frozen_detector", "sr": sr}
    unlabelled = f"frozen/{name}_unlabelled"
    return [
        RowSpec(f"frozen/{name}", stage3=keys, distilled=True, warm=unlabelled),
        RowSpec(unlabelled, stage3=keys | LABEL_FREE, distilled=True, labels=False),
    ]


def retrained(name: str, **keys: Any) -> list[RowSpec]:
    """A detector retrained on what a front end makes, with and without what HR images alone can tell: matching its own
    features on them, and a front end that was warmed up on them."""
    warm = WARM_UP.get(keys["sr"])
    plain = RowSpec(f"retrained/{name}", stage3=keys)
    return [plain, RowSpec(f"retrained/{name}_distilled", stage3=keys, distilled=True, warm=warm)]


ROWS = (
    RowSpec("frozen/hr", "stock", labels=False),
    RowSpec("frozen/lr", "stock", labels=False),
    RowSpec("frozen/bicubic", "stock", labels=False),
    RowSpec("frozen/bicubic_2x", "stock", labels=False),
    RowSpec("frozen/sliced", "sliced", labels=False),
    RowSpec("frozen/sr_fast", "stock", labels=False),
    RowSpec("frozen/sr_quality", "stock", labels=False),
    *front_end("sr_fast_tuned", "sr_fast"),
    *front_end("sr_quality_tuned", "sr_quality"),
    *front_end("conditional", "conditional"),
    RowSpec("retrained/hr", "hr", {"mode": "detector_only", "sr": HR} | NOTHING_TO_COMPARE),
    *retrained("bicubic", mode="detector_only", sr=BICUBIC),
    *retrained("sr_fast", mode="detector_only", sr="sr_fast"),
    *retrained("sr_quality", mode="detector_only", sr="sr_quality"),
    *retrained("conditional", mode="joint", sr="conditional"),
    RowSpec("retrained/bicubic_2x", stage3={"mode": "detector_only", "sr": BICUBIC, "upscale": 2} | NOTHING_TO_COMPARE),
    RowSpec("retrained/sliced", "sliced", of="retrained/bicubic"),
)
# What evaluate.py makes of a stage-1 detector.
STOCK = ("hr", "lr", "bicubic", "bicubic_2x", "sr_fast", "sr_quality")
REFERENCES = {family: (f"{family}/{HR}", f"{family}/{BICUBIC}") for family in FAMILIES}


def chosen(names: list[str]) -> list[RowSpec]:
    """The rows of these names, in the order of the catalogue, with those that they are compared with; all for [].

    Raises:
        ValueError: there is no row of a name.
    """
    known = {row.name: row for row in ROWS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"rows: there is no row {unknown[0]!r}; choose among {', '.join(known)}")
    families = {known[name].family for name in names}
    wanted = set(names) | {name for family in families for name in REFERENCES[family]}
    wanted |= {known[name].of for name in names if known[name].of}
    return [row for row in ROWS if not names or row.name in wanted]


def spec_of(name: str) -> RowSpec | None:
    """The catalogue's row behind a row of a table: `frozen/conditional_unlabelled_budget_0.25` is a policy of
    `frozen/conditional_unlabelled`; None where there is none."""
    starts = [row for row in ROWS if name == row.name or name.startswith(f"{row.name}_")]
    return max(starts, key=lambda row: len(row.name), default=None)


def is_control(name: str) -> bool:
    """Whether the row is one of the controls of a conditional system."""
    row = spec_of(name)
    policy = name.removeprefix(row.name).lstrip("_") if row in ROWS else ""
    return policy.startswith(CONTROLS)


def short(name: str) -> str:
    """The row's name without its family."""
    return name.partition("/")[2]
