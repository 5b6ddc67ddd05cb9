"""What the project claims, held against the measured table: one verdict a claim, also where it does not hold.

The limits were set before the test split of any comparison was measured. Set later: LEAST_GAP of
aggregate.py, FEWER, SR_Fast among the rivals, the rivals before a detector that stays, and which seeds
decide. Nothing in a report is worded by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from evaluation.comparison.catalogue import REFERENCES
from evaluation.row_key import RowKey, by_key

FEW = 0.3  # kept share up to which a system counts as sparing
STEP = 0.003  # mAP50-95 by which a larger budget may be worse before the curve counts as falling
NEAR = 0.005  # mAP50-95 below SR_Quality everywhere that still counts as equal
HALF = 0.5  # of its SR milliseconds
CONDITIONAL = RowKey("conditional", "frozen")
UNLABELLED = RowKey("conditional", "frozen", "unlabelled")
FROZEN_GAP = {CONDITIONAL: 0.85, UNLABELLED: 0.60}
RETRAINED_GAP = 0.35
RETRAINED_RIVALS = (
    RowKey("bicubic", "retrained"),
    RowKey("bicubic", "retrained", "distilled"),
    RowKey("bicubic", "retrained", upscale=2),
    RowKey("sliced", "retrained"),
    RowKey("sr_fast", "retrained"),
    RowKey("sr_fast", "retrained", "distilled"),
)
LABEL_FREE_RIVALS = (
    RowKey("bicubic", "frozen"),
    RowKey("bicubic", "frozen", upscale=2),
    RowKey("sliced", "frozen"),
    RowKey("sr_fast", "frozen"),
    RowKey("sr_fast", "frozen", "tuned_unlabelled"),
)
FROZEN_RIVALS = {  # those that looked at no more labels
    UNLABELLED: LABEL_FREE_RIVALS,
    CONDITIONAL: (*LABEL_FREE_RIVALS, RowKey("sr_fast", "frozen", "tuned")),
}
QUALITY_RIVALS = (RowKey("sr_quality", "retrained"), RowKey("sr_quality", "retrained", "distilled"))
FEWER = 0.02  # of the gap by which a system has to recover more with fewer labels
BLIND = ("random", "edge")
Table = dict[RowKey, dict]


@dataclass(frozen=True)
class Claim:
    """One claim about one system.

    Args:
        text: what is claimed.
        system: name of the trained system.
        found: the figures that decide.
        holds: None where the rows that it needs are not measured, or there is no gap to recover.
    """

    text: str
    system: str
    found: str
    holds: bool | None


def check_claims(
    rows: list[dict], complete: list[dict] | None = None, shares: dict[str, list[dict]] | None = None
) -> list[Claim]:
    """All claims for the conditional systems of a table; means over the seeds decide.

    Args:
        rows: of the largest label share, each over all its seeds; they decide what concerns one system and the
            references, which are always measured with it.
        complete: the same over the seeds that have all rows, see `basis_of_claims`; they decide against rivals. None:
            rows.
        shares: rows of every label share, all over the same seeds.
    """
    table = by_key(rows)
    rivals = table if complete is None else by_key(complete)
    systems = list(dict.fromkeys(key.base for key in table if key.policy == "budget"))
    claims = []
    for system in systems:
        claims += [rises_with_budget(table, system), beats_blind_masks(table, system)]
        if system in FROZEN_GAP:
            claims += [recovers(table, system, FROZEN_GAP[system]), best_at_equal_time(rivals, system)]
        if system.family == "retrained":
            claims += [recovers(table, system, RETRAINED_GAP), equals_quality_everywhere(rivals, system)]
            claims.append(best_at_equal_time(rivals, system))
            claims += [recovers_more_with_fewer_labels(shares, system)] if len(shares or {}) > 1 else []
    return claims


def mean(table: Table, key: RowKey, figure: str = "map50_95") -> float | None:
    """Mean over the seeds of a figure of a row; None where either is missing."""
    value = table.get(key, {}).get(figure)
    return None if value is None else value["mean"]


def budgets(table: Table, system: RowKey) -> list[tuple[float, RowKey]]:
    """(kept share, row) of a system from all_fast to all_quality."""
    found = [(key.budget, key) for key in table if key.base == system and key.policy == "budget"]
    ends = [(0.0, system.under("all_fast")), (1.0, system.under("all_quality"))]
    found += [(share, key) for share, key in ends if key in table]
    return sorted(found, key=lambda pair: (pair[0], pair[1].name))


def sparing(table: Table, system: RowKey) -> RowKey | None:
    """The system's row with the largest budget up to FEW: a choice that looks at no result."""
    shares = [(share, key) for share, key in budgets(table, system) if 0 < share <= FEW]
    return shares[-1][1] if shares else None


def rises_with_budget(table: Table, system: RowKey) -> Claim:
    curve = [(share, mean(table, key)) for share, key in budgets(table, system)]
    values = [value for _, value in curve]
    falls = [a - b for a, b in pairwise(values)]
    holds = values[-1] > values[0] and max(falls, default=0) <= STEP if len(values) > 1 else None
    found = ", ".join(f"{share:g}: {value:.3f}" for share, value in curve)
    return Claim(f"one model, mAP rises with the kept share (no step down above {STEP})", system.name, found, holds)


def beats_blind_masks(table: Table, system: RowKey) -> Claim:
    text, parts, better = "at the same kept share the masker beats random and edge masks", [], []
    for share, key in budgets(table, system):
        others = [mean(table, system.under(kind, share)) for kind in BLIND]
        if key.policy != "budget" or None in others:
            continue
        leads = [mean(table, key) - other for other in others]
        parts.append(f"{share:g}: " + ", ".join(f"{lead:+.3f} {kind}" for lead, kind in zip(leads, BLIND)))
        better += [lead > 0 for lead in leads]
    return Claim(text, system.name, "; ".join(parts) or "-", all(better) if better else None)


def recovers(table: Table, system: RowKey, limit: float) -> Claim:
    text = f"at a kept share up to {FEW:g} it recovers at least {limit:.0%} of the gap"
    key = sparing(table, system)
    value = None if key is None else mean(table, key, "gap_recovered")
    if value is None:
        no_gap = key is not None and mean(table, key, "over_bicubic") is not None
        return Claim(text, system.name, "HR images are hardly better than bicubic ones" if no_gap else "-", None)
    return Claim(text, system.name, f"{value:.0%} ({key.short})", value >= limit)


def recovers_more_with_fewer_labels(shares: dict[str, list[dict]], system: RowKey) -> Claim:
    text = f"at a kept share up to {FEW:g} it recovers more of the gap the fewer labels there are"
    values, shown = [], []
    for share in sorted(shares, key=float, reverse=True):
        table = by_key(shares[share])
        key = sparing(table, system)
        values.append(None if key is None else mean(table, key, "gap_recovered"))
        ends = [mean(table, end) for end in REFERENCES["retrained"]]
        other = RowKey("bicubic", "retrained", "distilled")
        distilled = mean(table, other, "gap_recovered")
        found = "-" if key is None or None in ends else f"of {ends[0] - ends[1]:.3f}"
        found += "" if distilled is None else f" ({other.short} {distilled:.0%})"
        shown.append(f"{float(share):.0%} of the labels: {'-' if values[-1] is None else f'{values[-1]:.0%}'} {found}")
    rises = None if None in values else all(fewer - more >= FEWER for more, fewer in pairwise(values))
    return Claim(text, system.name, ", ".join(shown), rises)


def equals_quality_everywhere(table: Table, system: RowKey) -> Claim:
    """Against the best of SR_Quality everywhere: this system's own, and detectors retrained on SR_Quality images."""
    text = f"kept share up to {FEW:g}: within {NEAR} of retrained SR_Quality everywhere at {HALF:g} of its SR time"
    trained = [key for key in (*QUALITY_RIVALS, system.under("all_quality")) if key in table]
    key = sparing(table, system)
    if key is None or not trained:
        return Claim(text, system.name, "-", None)
    rival = max(trained, key=lambda other: mean(table, other))
    lead = mean(table, key) - mean(table, rival)
    times = mean(table, key, "sr_ms"), mean(table, rival, "sr_ms")
    ratio = None if None in times else times[0] / times[1]
    found = f"{lead:+.3f} to {rival.short}, {'-' if ratio is None else f'{ratio:.2f}'} of its SR time"
    return Claim(text, system.name, found, None if ratio is None else lead >= -NEAR and ratio <= HALF)


def best_at_equal_time(table: Table, system: RowKey) -> Claim:
    """Against the best rival that takes no longer, its own SR_Fast everywhere among them."""
    text = (
        f"kept share up to {FEW:g}: more than bicubic, bicubic at 2x, slices and SR_Fast everywhere, "
        f"{'retrained, ' if system.family == 'retrained' else ''}that take no longer"
    )
    key = sparing(table, system)
    own = None if key is None else mean(table, key, "total_ms")
    simpler = RETRAINED_RIVALS if system.family == "retrained" else FROZEN_RIVALS[system]
    times = {row: mean(table, row, "total_ms") for row in (*simpler, system.under("all_fast")) if row in table}
    rivals = [row for row, ms in times.items() if own is not None and ms is not None and ms <= own]
    if own is not None and times and None not in times.values() and not rivals:
        return Claim(text, system.name, f"none of them takes as little as {own:.1f} ms", True)
    if not rivals:
        return Claim(text, system.name, "-", None)
    rival = max(rivals, key=lambda row: mean(table, row))
    lead = mean(table, key) - mean(table, rival)
    found = (
        f"{lead:+.3f}: {key.short} {mean(table, key):.3f} at {own:.1f} ms, "
        f"{rival.short} {mean(table, rival):.3f} at {times[rival]:.1f} ms"
    )
    return Claim(text, system.name, found, lead > 0)


def claim_table(claims: list[Claim]) -> list[list[str]]:
    """Head and lines for a Markdown table."""
    verdict = {True: "yes", False: "**no**", None: "undecided"}
    return [["claim", "system", "found", "holds"], *([c.text, c.system, c.found, verdict[c.holds]] for c in claims)]
