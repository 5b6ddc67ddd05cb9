"""What claims are decided by: figures of every seed, and how certain they are.

A paired bootstrap (Efron & Tibshirani 1993, chapters 8 and 10): images are drawn with replacement, the same ones for
every row and every seed, and seeds are drawn with replacement; a difference between rows is taken within a draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
import torch

from evaluation.comparison.aggregate import Repetition, with_constant_rows
from evaluation.comparison.catalogue import REFERENCES
from evaluation.comparison.limits import DRAWS_SEED, LEAST_GAP, PERCENTILES, RESAMPLES
from evaluation.map_bootstrap import image_draws, weighted_map
from evaluation.matches_file import MATCHES, read_matches
from evaluation.row_key import RowKey
from utils.errors import UserError

Statistic = Callable[..., np.ndarray]  # mAP of some rows, an array each -> a figure for every element
Place = tuple[float, RowKey]  # label share, row
SAME = 1e-6  # how far the mAP of a file of matches may be from that of results.json


@dataclass(frozen=True)
class Estimate:
    """A figure over seeds.

    Args:
        value: mean over the seeds.
        interval: 95 %; None where not every evaluation kept its matches. An end is infinite where too many draws leave
            the figure undefined.
        seeds: those that have all rows which the figure needs.
    """

    value: float
    interval: tuple[float, float] | None
    seeds: list[int]


class Evidence:
    """Figures of a comparison and their intervals.

    Args:
        repetitions: all evaluations that are finished.
        resamples: draws.
    """

    def __init__(self, repetitions: Sequence[Repetition], resamples: int = RESAMPLES):
        self.resamples, self._samples, self._draws, self._objects = resamples, {}, None, None
        self.by_share: dict[float, dict[int, Repetition]] = {}
        for repetition in with_constant_rows(repetitions):
            self.by_share.setdefault(repetition.label_share, {})[repetition.seed] = repetition
        self.shares = sorted(self.by_share, reverse=True)

    def measured(self, share: float | None = None) -> list[RowKey]:
        """Rows with a mAP, in any seed; of the largest label share if none is named."""
        repetitions = self.by_share[self.shares[0] if share is None else share].values()
        return list(dict.fromkeys(k for r in repetitions for k, row in r.rows.items() if row["map50_95"] is not None))

    def milliseconds(self, key: RowKey, quantity: str = "total_ms") -> float | None:
        """Of the timed seed; None where the row was not timed."""
        rows = [r.rows[key] for r in self.by_share[self.shares[0]].values() if key in r.rows]
        known = [row[quantity] for row in rows if row.get(quantity) is not None]
        return fmean(known) if known else None

    def lead(self, key: RowKey, rival: RowKey) -> Estimate | None:
        """mAP50-95 of a row minus that of a rival; None where no seed has both."""
        return self.estimate(lambda own, other: own - other, [(self.shares[0], key), (self.shares[0], rival)])

    def recovered(self, key: RowKey, share: float | None = None) -> Estimate | None:
        """Share of the gap of its family that a row recovers, of the seeds that have a gap."""
        return self.estimate(share_of_gap, self.with_references(key, self.shares[0] if share is None else share))

    def recovers_more(self, key: RowKey, share: float, other: RowKey, than: float) -> Estimate | None:
        """`recovered` at a label share minus that of another row at another one."""
        places = [*self.with_references(key, share), *self.with_references(other, than)]
        return self.estimate(lambda *maps: share_of_gap(*maps[:3]) - share_of_gap(*maps[3:]), places)

    @staticmethod
    def with_references(key: RowKey, share: float) -> list[Place]:
        return [(share, one) for one in (key, *REFERENCES[key.family])]

    def estimate(self, statistic: Statistic, places: Sequence[Place]) -> Estimate | None:
        """A figure of the mAP of some rows: taken within a seed, then the mean over all seeds that have the rows.

        Returns:
            None where no seed has them all, or the figure is undefined (NaN) in every one.
        """
        values = {seed: self._figure(statistic, places, seed) for seed in self._seeds(places)}
        seeds = [seed for seed, value in values.items() if math.isfinite(value)]
        if not seeds:
            return None
        samples = [[self.samples(share, seed, key) for share, key in places] for seed in seeds]
        known = all(one is not None for of_seed in samples for one in of_seed)
        drawn = np.stack([statistic(*of_seed) for of_seed in samples]) if known else None
        return Estimate(fmean(values[s] for s in seeds), None if drawn is None else over_seeds(drawn), seeds)

    def _seeds(self, places: Sequence[Place]) -> list[int]:
        """Those that have a mAP of all the rows."""
        has = [
            {seed for seed, r in self.by_share[share].items() if r.rows.get(key, {}).get("map50_95") is not None}
            for share, key in places
        ]
        return sorted(set.intersection(*has))

    def _figure(self, statistic: Statistic, places: Sequence[Place], seed: int) -> float:
        maps = [np.array([self.by_share[share][seed].rows[key]["map50_95"]], float) for share, key in places]
        return float(statistic(*maps)[0])

    def samples(self, share: float, seed: int, key: RowKey) -> np.ndarray | None:
        """mAP50-95 of a row of one seed for every draw of the images, (resamples,); None without a file of matches.

        Raises:
            UserError: its matches do not belong to its results, or are of other images than those of the other rows.
        """
        repetition = self.by_share[share][seed]
        row, folder = repetition.rows[key], repetition.folders.get(key)
        if folder is None or not (folder / MATCHES).is_file():
            return None
        if (folder, row["name"]) not in self._samples:
            found = self._drawn(folder / MATCHES, row["name"])
            if not abs(found[0] - row["map50_95"]) <= SAME:
                raise UserError(
                    f"{folder / MATCHES}: gives {row['name']} a mAP of {found[0]:.6f}, results.json "
                    f"{row['map50_95']:.6f}; delete the folder and measure again"
                )
            self._samples[folder, row["name"]] = found[1:]
        return self._samples[folder, row["name"]]

    def _drawn(self, file: Path, row: str) -> np.ndarray:
        """mAP of a row with every image once, then of every draw."""
        matches = read_matches(file, row)
        objects = torch.stack([one.objects for one in matches])
        if self._draws is None:
            images = objects.shape[1]
            draws = image_draws(images, self.resamples, DRAWS_SEED)
            self._draws, self._objects = torch.cat([torch.ones(1, images, dtype=draws.dtype), draws]), objects
        if not torch.equal(objects, self._objects):
            raise UserError(f"{file}: of other images or labels than the other measurements; measure them again")
        return weighted_map(matches, self._draws).numpy()


def share_of_gap(row: np.ndarray, high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """(row - low) / (high - low); NaN where there is no gap to recover."""
    gap = high - low
    return np.where(gap >= LEAST_GAP, (row - low) / np.where(gap >= LEAST_GAP, gap, 1), np.nan)


def over_seeds(samples: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of the mean over seeds drawn with replacement.

    A draw without a figure (NaN) may hold any: it counts below the lower end and above the upper one.

    Args:
        samples: (S, B), figure of every seed in every draw of images.
    """
    seeds, resamples = samples.shape
    weights = image_draws(seeds, resamples, DRAWS_SEED + 1).numpy().T / seeds  # (S, B)
    undefined = (np.isnan(samples) & (weights > 0)).any(0)
    means = (weights * np.nan_to_num(samples)).sum(0)
    low = np.percentile(np.where(undefined, -np.inf, means), PERCENTILES[0], method="lower")
    high = np.percentile(np.where(undefined, np.inf, means), PERCENTILES[1], method="higher")
    return float(low), float(high)
