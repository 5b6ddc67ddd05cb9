"""The catalogue of rows, in two families: each is fair within itself, figures of one do not answer for the other.

*frozen*: a deployed HR detector that nobody may touch; only what stands in front of it learns. *retrained*: the
detector may learn; every row, the HR row too, starts from the same detector, with the same labelled images and epochs
(with `sweep_unlabelled`, which lets rows keep images without labels: the same labelled images).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from evaluation.row_key import RowKey
from utils.errors import UserError

FAMILIES = ("frozen", "retrained")
LABEL_FREE = {"losses.det": 0.0}
NOTHING_TO_COMPARE = {"losses.rec": 0.0}  # the detector's images are not of the HR images' size, or are the HR images
HR, BICUBIC = "hr", "bicubic"
FRONT_END_RECIPES = {  # of a front end trained with labels, and without
    "sr_fast": ("tuned", "tuned_unlabelled"),
    "sr_quality": ("tuned", "tuned_unlabelled"),
    "conditional": (None, "unlabelled"),
}
WARM_UP = {  # the row that warms up a front end, without labels
    sr: RowKey(sr, "frozen", unlabelled) for sr, (_, unlabelled) in FRONT_END_RECIPES.items()
}


@dataclass(frozen=True)
class RowSpec:
    """One row, or a conditional system with a row per mask policy.

    Args:
        key: of the row, or of the system as a whole.
        shown: stock: measured without training; system: stage-3 checkpoint that sees LR images; hr: one that sees HR
            images; sliced: sliced inference with its own detector or that of another row; sahi: the same by that
            package.
        stage3: keys in which its training differs from the base YAML, by dotted name.
        distilled: matches the features and outputs of the detector on HR images.
        warm: row without labels whose front end, trained through the same detector, it starts from.
        labels: its training looks at labels.
        of: the row whose checkpoint `sliced` takes where it has no training; None: the deployed detector.
    """

    key: RowKey
    shown: Literal["stock", "system", "hr", "sliced", "sahi"] = "system"
    stage3: dict[str, Any] = field(default_factory=dict)
    distilled: bool = False
    labels: bool = True
    warm: RowKey | None = None
    of: RowKey | None = None

    @property
    def name(self) -> str:
        """As configurations name the row."""
        return self.key.name

    @property
    def family(self) -> str:
        return self.key.family

    @property
    def trained(self) -> bool:
        return bool(self.stage3)

    @property
    def slices(self) -> bool:
        """Its detector looks at slices."""
        return self.shown in ("sliced", "sahi")


def front_end(sr: str) -> list[RowSpec]:
    """A front end trained through the frozen detector, with labels and without; always with HR features to match."""
    keys = {"mode": "frozen_detector", "sr": sr}
    labelled, unlabelled = FRONT_END_RECIPES[sr]
    return [
        RowSpec(RowKey(sr, "frozen", labelled), stage3=keys, distilled=True, warm=WARM_UP[sr]),
        RowSpec(RowKey(sr, "frozen", unlabelled), stage3=keys | LABEL_FREE, distilled=True, labels=False),
    ]


def retrained(sr: str, mode: str) -> list[RowSpec]:
    """A detector retrained on what a front end makes, with and without what HR images alone can tell: matching its own
    features on them, and a front end that was warmed up on them."""
    keys, warm = {"mode": mode, "sr": sr}, WARM_UP.get(sr)
    plain = RowSpec(RowKey(sr, "retrained"), stage3=keys)
    return [plain, RowSpec(RowKey(sr, "retrained", "distilled"), stage3=keys, distilled=True, warm=warm)]


def larger(sr: str, upscale: float, mode: str = "detector_only") -> RowSpec:
    """A detector retrained at a larger input, and what stands in front of it; a front end that learns was warmed up at
    the usual size, and there are no HR images of the larger one to match."""
    keys = {"mode": mode, "sr": sr, "upscale": upscale} | NOTHING_TO_COMPARE
    recipe = "warmed_up" if sr in WARM_UP else None
    return RowSpec(RowKey(sr, "retrained", recipe, upscale), stage3=keys, warm=WARM_UP.get(sr))


DETECTOR_ONLY = {"mode": "detector_only"}
ON_SLICES = RowKey("sliced", "retrained", "on_slices")
ROWS = (
    RowSpec(RowKey(HR, "frozen"), "stock", labels=False),
    RowSpec(RowKey("lr", "frozen"), "stock", labels=False),
    RowSpec(RowKey(BICUBIC, "frozen"), "stock", labels=False),
    RowSpec(RowKey(BICUBIC, "frozen", upscale=1.5), "stock", labels=False),
    RowSpec(RowKey(BICUBIC, "frozen", upscale=2), "stock", labels=False),
    RowSpec(RowKey("sliced", "frozen"), "sliced", labels=False),
    RowSpec(RowKey("sahi", "frozen"), "sahi", labels=False),
    RowSpec(RowKey("sr_fast", "frozen"), "stock", labels=False),
    RowSpec(RowKey("sr_quality", "frozen"), "stock", labels=False),
    *front_end("sr_fast"),
    *front_end("sr_quality"),
    *front_end("conditional"),
    RowSpec(RowKey(HR, "retrained"), "hr", DETECTOR_ONLY | {"sr": HR} | NOTHING_TO_COMPARE),
    *retrained(BICUBIC, "detector_only"),
    *retrained("sr_fast", "detector_only"),
    *retrained("sr_quality", "detector_only"),
    *retrained("conditional", "joint"),
    *(larger(BICUBIC, upscale) for upscale in (1.25, 1.5, 2)),
    *(larger("sr_fast", upscale) for upscale in (1.25, 1.5)),
    *(larger("conditional", upscale, "joint") for upscale in (1.25, 1.5)),
    RowSpec(RowKey("sliced", "retrained"), "sliced", of=RowKey(BICUBIC, "retrained")),  # trained on whole images
    RowSpec(ON_SLICES, "sliced", DETECTOR_ONLY | {"sr": BICUBIC} | NOTHING_TO_COMPARE),
)
BY_KEY = {row.key: row for row in ROWS}
BY_NAME = {row.name: row for row in ROWS}
REFERENCES = {family: (RowKey(HR, family), RowKey(BICUBIC, family)) for family in FAMILIES}


def chosen(names: list[str]) -> list[RowSpec]:
    """The rows of these names, in the order of the catalogue, with those that they are compared with; all for [].

    Raises:
        ValueError: there is no row of a name.
    """
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        raise UserError(f"rows: there is no row {unknown[0]!r}; choose among {', '.join(BY_NAME)}")
    given = [BY_NAME[name] for name in names]
    wanted = {row.key for row in given} | {key for row in given for key in REFERENCES[row.family]}
    wanted |= {row.of for row in given if row.of}
    return [row for row in ROWS if not names or row.key in wanted]


def spec_of(key: RowKey) -> RowSpec | None:
    """The catalogue's row behind a row of a table, which may be one policy of a system; None where there is none."""
    return BY_KEY.get(key.base)
