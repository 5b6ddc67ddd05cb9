"""Loss terms over the steps: their means for the log, and the check that all of them are finite."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import Tensor

from utils.errors import UserError

Terms = dict[str, float]
SHOWN_FILES = 8


class NonFiniteError(UserError):
    """A loss or gradient became NaN or infinite; raised before the optimiser's update, so it damages no weight."""


@dataclass
class LossSums:
    """Sums since the last line of a log.

    Each term has its own count, because not every step has every term.
    """

    counts: dict[str, int] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, losses: Terms) -> None:
        for name, value in losses.items():
            self.counts[name] = self.counts.get(name, 0) + 1
            self.sums[name] = self.sums.get(name, 0.0) + value

    def flush(self) -> Terms:
        """Means; begins anew."""
        means = {name: value / self.counts[name] for name, value in self.sums.items()}
        self.counts, self.sums = {}, {}
        return means


def shown(terms: Terms) -> str:
    """One line for the eye: the sum, then the terms, "loss 0.31 (det 0.2, sparse 0.004)"; terms as they are unweighted.

    Where several optimisers take turns there is a sum of each: "generator/total".
    """
    sums = [name for name in terms if name.rpartition("/")[2] == "total"]
    parts = ", ".join(f"{name} {value:.3g}" for name, value in terms.items() if name not in sums)
    head = ", ".join(f"{name.replace('total', 'loss')} {terms[name]:.4g}" for name in sums)
    return f"{head} ({parts})" if parts else head


def mean_terms(
    rows: list[dict[str, Tensor]], extremes: dict[str, Tensor], files: list[list[str]], accelerator: Accelerator
) -> tuple[Terms, str, list[str]]:
    """Mean of the terms over micro-batches and processes, and what is not finite.

    Everything crosses from the device at once: each crossing would let a GPU run dry.

    Args:
        rows: terms of each micro-batch, scalars on the device.
        extremes: further scalars that have to be finite, by what they are; on the device.
        files: image files of each micro-batch.

    Returns:
        The means; what is not finite, "" where everything is, the same in every process, since all have to stop
        together or the others would wait for this one's gradients for ever; the image files to look at.
    """
    names = sorted(rows[0])
    table = torch.stack([torch.stack([row[name] for name in names]) for row in rows])  # (micro-batches, terms)
    others = torch.stack(list(extremes.values()))
    bad = (~torch.isfinite(table)).any() | (~torch.isfinite(others)).any()
    sums = accelerator.reduce(torch.cat([table.mean(0), bad.float()[None]]), "mean").tolist()
    if sums.pop() == 0:
        return dict(zip(names, sums, strict=True)), "", []
    for row, images in zip(table.tolist(), files, strict=True):
        terms = ", ".join(f"{name}={value}" for name, value in zip(names, row) if not math.isfinite(value))
        if terms:
            return {}, terms, images
    here = [f"{name}={value}" for name, value in zip(extremes, others.tolist()) if not math.isfinite(value)]
    what = ", ".join(here) or "a loss or gradient of another process"
    return {}, what, [file for images in files for file in images]


def files_shown(files: list[str]) -> str:
    """The first files by name, and how many more there are."""
    more = f" and {len(files) - SHOWN_FILES} more" if len(files) > SHOWN_FILES else ""
    return ", ".join(files[:SHOWN_FILES]) + more
