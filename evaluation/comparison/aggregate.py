"""Results of single seeds -> mean, standard deviation and count of every figure; what of a gap is recovered."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev

from evaluation.comparison.catalogue import FAMILIES, REFERENCES, ROWS, spec_of
from evaluation.comparison.limits import LEAST_GAP
from evaluation.computed_by import choice
from evaluation.old_rows import key_of
from evaluation.row_key import RowKey
from utils.errors import UserError

QUALITY = ("map50_95", "map50", "ap_small", "ap_medium", "ap_large")
COSTS = ("sr_gmacs", "total_gmacs", "params", "sr_ms", "total_ms", "total_ms_p95", "peak_mem_mb")
FIGURES = (*QUALITY, "gap_recovered", "over_bicubic", "kept_share", "kept_inside", "kept_outside", *COSTS, "psnr")
Rows = dict[RowKey, dict]  # rows of one seed and label share
Figure = dict[str, float | int | None]


@dataclass(frozen=True)
class Repetition:
    """One evaluation: all rows of a seed and a label share.

    Args:
        seed: of the repetition.
        label_share: of the training images.
        rows: figures; `name` is that of the row in the files of its folder.
        results: the whole results.json.
        folder: run folder of the evaluation.
        folders: of every row, the run folder in which it was measured.
    """

    seed: int
    label_share: float
    rows: Rows
    results: dict
    folder: Path
    folders: dict[RowKey, Path] = field(default_factory=dict)


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
        rows = {in_family(key_of(row)): row for row in results["rows"]}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: no result of evaluate.py ({error}); delete its folder and measure again") from None
    return Repetition(seed, label_share, rows, results, Path(folder), dict.fromkeys(rows, Path(folder)))


def in_family(key: RowKey) -> RowKey:
    """Rows that evaluate.py makes of `detector` have no family yet; in a comparison it is the deployed one."""
    return key if key.family else replace(key, family="frozen")


def with_constant_rows(repetitions: Sequence[Repetition]) -> list[Repetition]:
    """Rows that look at no labels are measured with the largest label share only; they hold for all of them."""
    largest = max(r.label_share for r in repetitions)
    complete = {r.seed: r for r in repetitions if r.label_share == largest}
    return [with_rows_of(r, complete[r.seed]) if r.seed in complete else r for r in repetitions]


def with_rows_of(repetition: Repetition, complete: Repetition) -> Repetition:
    """A repetition with the constant rows of another one; what it has measured itself stays."""
    rows = unlabelled(complete.rows)
    folders = {key: complete.folders[key] for key in rows if key in complete.folders}
    return replace(repetition, rows=rows | repetition.rows, folders=folders | repetition.folders)


def unlabelled(rows: Rows) -> Rows:
    """The rows whose training, if any, looks at no labels."""
    specs = {key: spec_of(key) for key in rows}
    return {key: row for key, row in rows.items() if specs[key] is not None and not specs[key].labels}


def figure(values: Iterable[float | None]) -> Figure | None:
    """{"mean", "std", "n"} of the values that are defined; std with n - 1, None for one value; None for none at all."""
    known = [float(value) for value in values if value is not None and math.isfinite(value)]
    if not known:
        return None
    return {"mean": fmean(known), "std": stdev(known) if len(known) > 1 else None, "n": len(known)}


def gap(rows: Rows, family: str) -> float | None:
    """mAP50-95 between the family's HR row and its bicubic row; None where one is missing."""
    high, low = (rows.get(key, {}).get("map50_95") for key in REFERENCES[family])
    return None if high is None or low is None else high - low


def over_bicubic(rows: Rows, key: RowKey) -> float | None:
    """mAP50-95 of a row minus that of its family's bicubic row, of the same seed and label share."""
    low = rows.get(REFERENCES[key.family][1], {}).get("map50_95")
    high = rows.get(key, {}).get("map50_95")
    return None if high is None or low is None else high - low


def gap_recovered(rows: Rows, key: RowKey) -> float | None:
    """(row - bicubic) / (HR - bicubic) in mAP50-95 within the row's family; in the retrained family every term is of a
    retrained detector. None where the HR row is not better than the bicubic one by LEAST_GAP: there is no gap to
    recover."""
    whole, part = gap(rows, key.family), over_bicubic(rows, key)
    return part / whole if whole is not None and whole >= LEAST_GAP and part is not None else None


def aggregate(repetitions: Sequence[Repetition], label_share: float) -> list[dict]:
    """Rows of the table for one label share: name, the fields of the key, and a figure for every quantity.

    Ratios and differences are taken within a seed, before the mean.

    Args:
        repetitions: all of the comparison, with constant rows.
        label_share: the one wanted.
    """
    chosen = [r for r in repetitions if r.label_share == label_share]
    order = {spec.key: index for index, spec in enumerate(ROWS)}
    keys = dict.fromkeys(key for r in chosen for key in r.rows if key.family in FAMILIES)
    table = []
    for key in sorted(keys, key=lambda key: order.get(key.base, len(order))):
        present = [r.rows for r in chosen if key in r.rows]
        derived = {"gap_recovered": gap_recovered, "over_bicubic": over_bicubic}
        entry: dict = {"name": key.name} | key.record() | {"label_share": label_share}
        for quantity in FIGURES:
            values = (derived[quantity](r, key) if quantity in derived else r[key].get(quantity) for r in present)
            entry[quantity] = figure(values)
        entry["runs"] = list(dict.fromkeys(choice(rows[key]["runs"]) for rows in present if rows[key].get("runs")))
        classes = dict.fromkeys(c for rows in present for c in rows[key].get("ap_per_class") or {})
        entry["ap_per_class"] = {c: figure(rows[key]["ap_per_class"].get(c) for rows in present) for c in classes}
        table.append(entry)
    return table


def mean_curve(repetitions: Sequence[Repetition], label_share: float, key: RowKey) -> list[float] | None:
    """Precision at recall 0, 0.01, ..., 1 (IoU 0.5, mean over classes) of a row, the mean over seeds."""
    chosen = [r.rows[key].get("pr_curve") for r in repetitions if r.label_share == label_share and key in r.rows]
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


def gaps(repetitions: Sequence[Repetition], label_share: float) -> dict[str, Figure | None]:
    """HR row minus bicubic row in mAP50-95, by family."""
    chosen = [r.rows for r in repetitions if r.label_share == label_share]
    return {family: figure(gap(rows, family) for rows in chosen) for family in FAMILIES}


def share_name(share: float) -> str:
    return f"{share:g}"
