"""What a row of results is: a record of fields. Its name is made from them here, for the eye, and never read back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

CONTROLS = ("random", "edge", "oracle")  # masks of a system's kept share that its masker did not choose
SHARES = ("budget", *CONTROLS)  # policies whose `budget` is a kept share
SHOWN = {"latency_ms": "latency"}  # policies whose name in a row's name is another


@dataclass(frozen=True)
class RowKey:
    """Says which row it is; equal keys are the same row.

    Args:
        system: what makes the detector's input: hr, lr, bicubic, sliced, sr_fast, sr_quality or conditional, or the
            name that a configuration gives a system of its own.
        family: frozen (the detector stays as deployed), retrained (it has learned too), or None: not said.
        recipe: how the system's networks learned, where a comparison has several: tuned, unlabelled, distilled, ...
        upscale: size of the detector's input beyond the usual, `data.scale` times the LR image.
        policy: which patches a system with a masker takes: learned, budget, random, edge, oracle, latency_ms, all_fast
            or all_quality; None for one without a masker, and for a system as a whole.
        budget: of the policy: the kept share in [0, 1], or milliseconds for latency_ms; None where it has none.
    """

    system: str
    family: str | None = None
    recipe: str | None = None
    upscale: float = 1
    policy: str | None = None
    budget: float | None = None

    @classmethod
    def of(cls, row: dict[str, Any]) -> RowKey:
        """The key of a row of results.json. Raises KeyError for one of an older version, see `evaluation.old_rows`."""
        return cls(**{field.name: row[field.name] for field in fields(cls)})

    def record(self) -> dict[str, str | float | None]:
        """The fields, as a row of results.json has them."""
        return asdict(self) | {"upscale": int(self.upscale) if float(self.upscale).is_integer() else self.upscale}

    def under(self, policy: str, budget: float | None = None) -> RowKey:
        """The same system under a mask policy."""
        return replace(self, policy=policy, budget=budget)

    @property
    def base(self) -> RowKey:
        """The system as a whole, whatever the policy."""
        return replace(self, policy=None, budget=None)

    @property
    def is_control(self) -> bool:
        return self.policy in CONTROLS

    @property
    def name(self) -> str:
        """For the eye: `frozen/conditional_unlabelled_budget_0.25`."""
        return row_name(self)

    @property
    def short(self) -> str:
        """The name without the family."""
        return row_name(replace(self, family=None))


def row_name(key: RowKey) -> str:
    """The one place where names of rows are made."""
    parts = [key.system]
    parts += [f"{key.upscale:g}x"] if key.upscale != 1 else []
    parts += [key.recipe] if key.recipe else []
    parts += [SHOWN.get(key.policy, key.policy)] if key.policy else []
    parts += [f"{key.budget:g}"] if key.budget is not None else []
    return (f"{key.family}/" if key.family else "") + "_".join(parts)


def by_key(rows: list[dict[str, Any]]) -> dict[RowKey, dict[str, Any]]:
    """Rows of results.json by their keys, in their order."""
    return {RowKey.of(row): row for row in rows}


STOCK = {  # the rows of a detector, by what `baselines` of configs/evaluate.yaml calls them
    **{name: RowKey(name) for name in ("hr", "lr", "bicubic")},
    "bicubic_1.5x": RowKey("bicubic", upscale=1.5),
    "bicubic_2x": RowKey("bicubic", upscale=2),
    **{name: RowKey(name) for name in ("sr_fast", "sr_quality")},
}
