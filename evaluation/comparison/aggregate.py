"""Results of single seeds -> mean, standard deviation and count of every figure; what of a gap is recovered."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from evaluation.comparison.rows import FAMILIES, REFERENCES, ROWS, STOCK, spec_of
from utils.errors import UserError

QUALITY = ("map50_95", "map50", "ap_small", "ap_medium", "ap_large")
COSTS = ("sr_gmacs", "total_gmacs", "params", "sr_ms", "total_ms", "total_ms_p95", "peak_mem_mb")
FIGURES = (*QUALITY, "gap_recovered", "over_bicubic", "kept_share", "kept_inside", "kept_outside", *COSTS, "psnr")
LEAST_GAP = 0.005  # mAP50-95 between HR and bicubic images below which a share of it says nothing
Rows = dict[str, dict]  # rows of one seed and label share by name
Figure = dict[str, float | int | None]


@dataclass(frozen=True)
class Repetition:
    """One evaluation: all rows of a seed and a label share.

    Args:
        seed: of the repetition.
        label_share: of the training images.
        rows: figures by row name, with the family in front.
        results: the whole results.json.
        folder: run folder of the evaluation.
    """

    seed: int
    label_share: float
    rows: Rows
    results: dict
    folder: Path


def read_repetition(folder: str | Path, seed: int, label_share: float) -> Repetition:
    """Read the results.json of an evaluation; rows that evaluate.py makes of the deployed detector get their family.

    Raises:
        FileNotFoundError, ValueError: there is no results.json, or it is none.
    """
    file = Path(folder) / "results.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: does not exist; run the comparison again, it measures what is missing")
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
        rows = {family_name(row["name"]): row for row in results["rows"]}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: no result of evaluate.py ({error}); delete its folder and measure again") from None
    return Repetition(seed, label_share, rows, results, Path(folder))


def family_name(name: str) -> str:
    """`bicubic` -> `frozen/bicubic`; other names have their family already."""
    return f"frozen/{name}" if name in STOCK else name


def with_constant_rows(repetitions: Sequence[Repetition]) -> list[Repetition]:
    """Rows that look at no labels are measured with the largest label share only; they hold for all of them."""
    largest = max(r.label_share for r in repetitions)
    constant = {r.seed: unlabelled(r.rows) for r in repetitions if r.label_share == largest}
    return [
        Repetition(r.seed, r.label_share, constant.get(r.seed, {}) | r.rows, r.results, r.folder) for r in repetitions
    ]


def unlabelled(rows: Rows) -> Rows:
    """The rows whose training, if any, looks at no labels."""
    specs = {name: spec_of(name) for name in rows}
    return {name: row for name, row in rows.items() if specs[name] is not None and not specs[name].labels}


def figure(values: Iterable[float | None]) -> Figure | None:
    """{"mean", "std", "n"} of the values that are defined; std with n - 1, None for one value; None for none at all."""
    known = [float(value) for value in values if value is not None and math.isfinite(value)]
    if not known:
        return None
    return {"mean": fmean(known), "std": stdev(known) if len(known) > 1 else None, "n": len(known)}


def gap(rows: Rows, family: str) -> float | None:
    """mAP50-95 between the family's HR row and its bicubic row; None where one is missing."""
    high, low = (rows.get(name, {}).get("map50_95") for name in REFERENCES[family])
    return None if high is None or low is None else high - low


def over_bicubic(rows: Rows, name: str) -> float | None:
    """mAP50-95 of a row minus that of its family's bicubic row, of the same seed and label share."""
    low = rows.get(REFERENCES[name.partition("/")[0]][1], {}).get("map50_95")
    high = rows.get(name, {}).get("map50_95")
    return None if high is None or low is None else high - low


def gap_recovered(rows: Rows, name: str) -> float | None:
    """(row - bicubic) / (HR - bicubic) in mAP50-95 within the row's family; in the retrained family every term is of a
    retrained detector. None where the HR row is not better than the bicubic one by LEAST_GAP: there is no gap to
    recover."""
    whole, part = gap(rows, name.partition("/")[0]), over_bicubic(rows, name)
    return part / whole if whole is not None and whole >= LEAST_GAP and part is not None else None


def aggregate(repetitions: Sequence[Repetition], label_share: float) -> list[dict]:
    """Rows of the table for one label share: name, family, and a figure for every quantity.

    Ratios and differences are taken within a seed, before the mean.

    Args:
        repetitions: all of the comparison, with constant rows.
        label_share: the one wanted.
    """
    chosen = [r for r in repetitions if r.label_share == label_share]
    names = dict.fromkeys(name for r in chosen for name in r.rows if name.partition("/")[0] in FAMILIES)
    table = []
    for name in names:
        present = [r.rows for r in chosen if name in r.rows]
        derived = {"gap_recovered": gap_recovered, "over_bicubic": over_bicubic}
        entry: dict = {"name": name, "family": name.partition("/")[0]}
        for key in FIGURES:
            values = (derived[key](rows, name) if key in derived else rows[name].get(key) for rows in present)
            entry[key] = figure(values)
        classes = dict.fromkeys(c for rows in present for c in rows[name].get("ap_per_class") or {})
        entry["ap_per_class"] = {c: figure(rows[name]["ap_per_class"].get(c) for rows in present) for c in classes}
        table.append(entry)
    order = {spec.name: index for index, spec in enumerate(ROWS)}
    return sorted(table, key=lambda row: order.get(getattr(spec_of(row["name"]), "name", ""), len(order)))


def mean_curve(repetitions: Sequence[Repetition], label_share: float, name: str) -> list[float] | None:
    """Precision at recall 0, 0.01, ..., 1 (IoU 0.5, mean over classes) of a row, the mean over seeds."""
    chosen = [r.rows[name].get("pr_curve") for r in repetitions if r.label_share == label_share and name in r.rows]
    curves = [curve for curve in chosen if curve]
    return [fmean(values) for values in zip(*curves, strict=True)] if curves else None


def summarise(repetitions: Sequence[Repetition]) -> dict:
    """The content of the report's JSON file: what was measured, `rows` for the largest label share, `sweep` for others.

    Raises:
        ValueError: there is nothing to summarise, or the repetitions are of different data sets or protocols.
    """
    if not repetitions:
        raise UserError("no measurement is finished yet; run the comparison first")
    filled = with_constant_rows(repetitions)
    shares = sorted({r.label_share for r in filled}, reverse=True)
    first = min(filled, key=lambda r: (-r.label_share, r.seed)).results  # the timed one
    for other in filled:
        different = [k for k in ("dataset", "split", "scale", "lr_protocol", "images") if other.results[k] != first[k]]
        if different:
            raise UserError(f"{other.folder}: another {different[0]} than in the other measurements; measure it again")
    keys = (
        "dataset",
        "split",
        "scale",
        "lr_protocol",
        "images",
        "device",
        "dtype",
        "threads",
        "versions",
        "date",
        "git",
    )
    summary = {key: first.get(key) for key in (*keys, "timing")}
    summary |= {"seeds": sorted({r.seed for r in filled}), "label_share": shares[0]}
    summary["gap"] = {share_name(share): gaps(filled, share) for share in shares}
    summary["rows"] = aggregate(filled, shares[0])
    summary["sweep"] = {share_name(share): aggregate(filled, share) for share in shares[1:]}
    return summary


def basis_of_claims(repetitions: Sequence[Repetition]) -> tuple[list[int], list[dict], dict[str, list[dict]]]:
    """What rows may be held against each other by: a mean over more seeds than a rival's would decide by the seed.

    Returns:
        The seeds that have the most rows; the rows of the largest label share over these seeds; and, for each label
        share, the rows over those of these seeds that have them all.
    """
    filled = with_constant_rows(repetitions)
    shares = sorted({r.label_share for r in filled}, reverse=True)
    counts = {r.seed: len(r.rows) for r in filled if r.label_share == shares[0]}
    seeds = sorted(seed for seed, count in counts.items() if count == max(counts.values()))
    basis = [r for r in filled if r.seed in seeds]
    swept = [seed for seed in seeds if {r.label_share for r in basis if r.seed == seed} == set(shares)]
    by_share = {share_name(s): aggregate([r for r in basis if r.seed in swept], s) for s in shares}
    return seeds, aggregate(basis, shares[0]), by_share


def gaps(repetitions: Sequence[Repetition], label_share: float) -> dict[str, Figure | None]:
    """HR row minus bicubic row in mAP50-95, by family."""
    chosen = [r.rows for r in repetitions if r.label_share == label_share]
    return {family: figure(gap(rows, family) for rows in chosen) for family in FAMILIES}


def share_name(share: float) -> str:
    return f"{share:g}"
