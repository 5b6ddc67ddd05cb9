"""What the project claims, held against the measured rows: yes, no or undecided, also where it does not hold.

A claim rests on parts, each a figure that has to lie above a limit: yes where the whole interval does, no where it lies
below, else undecided. One part that fails makes a no; a rival that is named and was not measured, or not timed, leaves
no yes. Limits stand in limits.py; nothing in a report is worded by hand.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from evaluation.comparison.catalogue import REFERENCES
from evaluation.comparison.evidence import Estimate, Evidence
from evaluation.comparison.limits import (
    FEW,
    FEWER,
    FROZEN_GAP,
    HALF,
    NEAR,
    RESAMPLES,
    RETRAINED_GAP,
    SEEDS_ASKED,
    STEP,
    UNLABELLED_GAP,
)
from evaluation.row_key import RowKey

CONDITIONAL = RowKey("conditional", "frozen")
UNLABELLED = RowKey("conditional", "frozen", "unlabelled")
GAPS = {CONDITIONAL: FROZEN_GAP, UNLABELLED: UNLABELLED_GAP}
RETRAINED_RIVALS = (
    RowKey("bicubic", "retrained"),
    RowKey("bicubic", "retrained", "distilled"),
    *(RowKey("bicubic", "retrained", upscale=upscale) for upscale in (1.25, 1.5, 2)),
    RowKey("sliced", "retrained"),
    RowKey("sliced", "retrained", "on_slices"),
    RowKey("sr_fast", "retrained"),
    RowKey("sr_fast", "retrained", "distilled"),
    *(RowKey("sr_fast", "retrained", "warmed_up", upscale) for upscale in (1.25, 1.5)),
)
LABEL_FREE_RIVALS = (
    RowKey("bicubic", "frozen"),
    *(RowKey("bicubic", "frozen", upscale=upscale) for upscale in (1.5, 2)),
    RowKey("sliced", "frozen"),
    RowKey("sahi", "frozen"),
    RowKey("sr_fast", "frozen"),
    RowKey("sr_fast", "frozen", "tuned_unlabelled"),
)
FROZEN_RIVALS = {  # those that looked at no more labels
    UNLABELLED: LABEL_FREE_RIVALS,
    CONDITIONAL: (*LABEL_FREE_RIVALS, RowKey("sr_fast", "frozen", "tuned")),
}
QUALITY_RIVALS = (RowKey("sr_quality", "retrained"), RowKey("sr_quality", "retrained", "distilled"))
BLIND = ("random", "edge")
YES, NO, UNDECIDED, NO_INTERVAL = "yes", "no", "undecided", "undecided (no interval)"
WORST_FIRST = (NO, NO_INTERVAL, UNDECIDED, YES)


@dataclass(frozen=True)
class Part:
    """One figure that a claim rests on.

    Args:
        name: what it is of.
        value: mean over the seeds.
        limit: it has to lie above.
        interval: see `Estimate`.
        seeds: over which it was taken.
    """

    name: str
    value: float
    limit: float
    interval: tuple[float, float] | None
    seeds: list[int]

    @classmethod
    def of(cls, name: str, estimate: Estimate, limit: float = 0.0) -> Part:
        return cls(name, estimate.value, limit, estimate.interval, estimate.seeds)

    @property
    def verdict(self) -> str:
        if self.interval is None:
            return NO_INTERVAL
        low, high = self.interval
        return YES if low > self.limit else NO if high < self.limit else UNDECIDED

    def text(self, form: str = "+.3f") -> str:
        """`+0.006 [+0.001, +0.011]`."""
        if self.interval is None:
            return f"{self.value:{form}}"
        low, high = ("-" if math.isinf(end) else f"{end:{form}}" for end in self.interval)
        return f"{self.value:{form}} [{low}, {high}]"


@dataclass(frozen=True)
class Claim:
    """One claim about one system.

    Args:
        text: what is claimed.
        system: name of the trained system.
        found: the figures that decide, with their intervals.
        verdict: yes, no, undecided, or undecided (no interval).
        seeds: fewest behind any of the parts; 0 without parts.
        parts: all of them.
    """

    text: str
    system: str
    found: str
    verdict: str
    seeds: int
    parts: list[Part]

    @classmethod
    def of(cls, record: dict) -> Claim:
        """From the JSON of a comparison."""
        return cls(**record | {"parts": [Part(**part) for part in record["parts"]]})


def claim(
    text: str, system: RowKey, found: str, parts: Sequence[Part], missing: Sequence[str] = (), also: Iterable[str] = ()
) -> Claim:
    """A claim and its verdict.

    Args:
        text, system, found, parts: of the claim.
        missing: rows that it needs and that were not measured, or not timed.
        also: verdicts of what has no interval, such as a ratio of times.
    """
    verdicts = [*(part.verdict for part in parts), *also]
    verdict = min(verdicts, key=WORST_FIRST.index, default=UNDECIDED)
    if verdict == YES and missing:
        verdict = UNDECIDED
    found += f"{'; ' if found else ''}not measured: {', '.join(missing)}" if missing else ""
    seeds = min((len(part.seeds) for part in parts), default=0)
    return Claim(text, system.name, found or "-", verdict, seeds, list(parts))


def check_claims(evidence: Evidence) -> list[Claim]:
    """All claims for the conditional systems that were measured."""
    systems = list(dict.fromkeys(key.base for key in evidence.measured() if key.policy == "budget"))
    claims = []
    for system in systems:
        claims += [rises_with_budget(evidence, system), beats_blind_masks(evidence, system)]
        if system in GAPS:
            claims += [recovers(evidence, system, GAPS[system]), best_at_equal_time(evidence, system)]
        if system.family == "retrained":
            claims += [recovers(evidence, system, RETRAINED_GAP), equals_quality_everywhere(evidence, system)]
            claims.append(best_at_equal_time(evidence, system))
            claims += [recovers_more_with_fewer_labels(evidence, system)] if len(evidence.shares) > 1 else []
    return claims


def budgets(keys: Iterable[RowKey], system: RowKey) -> list[tuple[float, RowKey]]:
    """(kept share, row) of a system from all_fast to all_quality."""
    keys = list(keys)
    found = [(key.budget, key) for key in keys if key.base == system and key.policy == "budget"]
    ends = [(0.0, system.under("all_fast")), (1.0, system.under("all_quality"))]
    found += [(share, key) for share, key in ends if key in keys]
    return sorted(found, key=lambda pair: (pair[0], pair[1].name))


def sparing(keys: Iterable[RowKey], system: RowKey) -> RowKey | None:
    """The system's row with the largest budget up to FEW: a choice that looks at no result."""
    shares = [(share, key) for share, key in budgets(keys, system) if 0 < share <= FEW]
    return shares[-1][1] if shares else None


def deciding(parts: Sequence[Part]) -> Part:
    """The part that a claim fails by, or would fail by first."""
    return min(
        parts, key=lambda part: (WORST_FIRST.index(part.verdict), (part.interval or [part.value])[0] - part.limit)
    )


def rises_with_budget(evidence: Evidence, system: RowKey) -> Claim:
    text = f"one model, mAP rises with the kept share (no step down above {STEP})"
    curve = budgets(evidence.measured(), system)
    steps = [
        Part.of(f"{more:g} over {less:g}", lead, -STEP)
        for (less, lower), (more, upper) in pairwise(curve)
        if (lead := evidence.lead(upper, lower))
    ]
    whole = evidence.lead(curve[-1][1], curve[0][1]) if len(curve) > 1 else None
    if not steps or whole is None:
        return claim(text, system, "", [], ["another kept share"])
    last = Part.of(f"{curve[-1][0]:g} over {curve[0][0]:g}", whole)
    found = f"{last.name}: {last.text()}; step {deciding(steps).name}: {deciding(steps).text()}"
    return claim(text, system, found, [last, *steps])


def beats_blind_masks(evidence: Evidence, system: RowKey) -> Claim:
    text = "at the same kept share the masker beats random and edge masks"
    parts, missing, shown = [], [], []
    for share, key in budgets(evidence.measured(), system):
        if key.policy != "budget":
            continue
        leads = {kind: evidence.lead(key, system.under(kind, share)) for kind in BLIND}
        missing += [f"{kind} at {share:g}" for kind, lead in leads.items() if lead is None]
        own = [Part.of(f"{share:g} over {kind}", lead) for kind, lead in leads.items() if lead is not None]
        shown += [f"{share:g}: " + ", ".join(f"{part.text()} {part.name.split()[-1]}" for part in own)] if own else []
        parts += own
    return claim(text, system, "; ".join(shown), parts, missing)


def recovers(evidence: Evidence, system: RowKey, limit: float) -> Claim:
    text = f"at a kept share up to {FEW:g} it recovers at least {limit:.0%} of the gap"
    key = sparing(evidence.measured(), system)
    if key is None:
        return claim(text, system, "", [], [f"a kept share up to {FEW:g}"])
    part = evidence.recovered(key)
    if part is None:
        missing = [end.short for end in REFERENCES[system.family] if evidence.lead(key, end) is None]
        return claim(text, system, "" if missing else "HR images are hardly better than bicubic ones", [], missing)
    part = Part.of(key.short, part, limit)
    return claim(text, system, f"{part.text('.0%')} ({key.short})", [part])


def recovers_more_with_fewer_labels(evidence: Evidence, system: RowKey) -> Claim:
    text = f"at a kept share up to {FEW:g} it recovers more of the gap the fewer labels there are"
    keys = {share: sparing(evidence.measured(share), system) for share in evidence.shares}
    found = {share: key and evidence.recovered(key, share) for share, key in keys.items()}
    missing = [f"{share:.0%} of the labels" for share, value in found.items() if value is None]
    parts = [
        Part.of(f"{fewer:.0%} over {more:.0%}", rise, FEWER)
        for more, fewer in pairwise(share for share, value in found.items() if value is not None)
        if (rise := evidence.recovers_more(keys[fewer], fewer, keys[more], more))
    ]
    shown = [f"{share:.0%} of the labels: {value.value:.0%}" for share, value in found.items() if value is not None]
    shown += [f"{part.name}: {part.text('+.0%')}" for part in parts]
    return claim(text, system, ", ".join(shown), parts, missing)


def equals_quality_everywhere(evidence: Evidence, system: RowKey) -> Claim:
    """Against SR_Quality everywhere: this system's own, and detectors retrained on SR_Quality images."""
    text = f"kept share up to {FEW:g}: within {NEAR} of retrained SR_Quality everywhere at {HALF:g} of its SR time"
    key = sparing(evidence.measured(), system)
    if key is None:
        return claim(text, system, "", [], [f"a kept share up to {FEW:g}"])
    parts, ratios, missing = [], {}, []
    own = evidence.milliseconds(key, "sr_ms")
    for rival in (*QUALITY_RIVALS, system.under("all_quality")):
        lead, ms = evidence.lead(key, rival), evidence.milliseconds(rival, "sr_ms")
        parts += [Part.of(rival.short, lead, -NEAR)] if lead else []
        missing += named_missing(rival, lead, ms) if asked_for(rival, system) else []
        ratios |= {rival.short: own / ms} if own is not None and ms is not None else {}
    missing += [f"the time of {key.short}"] if own is None else []
    shown = [f"{deciding(parts).text()} to {deciding(parts).name}"] if parts else []
    shown += [f"{max(ratios.values()):.2f} of its SR time"] if ratios else []
    also = [YES if ratio <= HALF else NO for ratio in ratios.values()]
    return claim(text, system, ", ".join(shown), parts, missing, also)


def best_at_equal_time(evidence: Evidence, system: RowKey) -> Claim:
    """Against every rival that takes no longer, its own SR_Fast everywhere among them."""
    text = (
        f"kept share up to {FEW:g}: more than bicubic, larger bicubic images, slices and SR_Fast everywhere, "
        f"{'retrained, ' if system.family == 'retrained' else ''}that take no longer"
    )
    key = sparing(evidence.measured(), system)
    own = None if key is None else evidence.milliseconds(key)
    if own is None:
        return claim(
            text, system, "", [], [f"a kept share up to {FEW:g}" if key is None else f"the time of {key.short}"]
        )
    simpler = RETRAINED_RIVALS if system.family == "retrained" else FROZEN_RIVALS[system]
    parts, missing = [], []
    for rival in (*simpler, system.under("all_fast")):
        lead, ms = evidence.lead(key, rival), evidence.milliseconds(rival)
        missing += named_missing(rival, lead, ms) if asked_for(rival, system) else []
        if lead is not None and ms is not None and ms <= own:
            parts.append(Part.of(f"{rival.short} at {ms:.1f} ms", lead))
    if not parts:
        return claim(text, system, f"none of them takes as little as {own:.1f} ms", [], missing)
    worst = deciding(parts)
    return claim(text, system, f"{worst.text()}: {key.short} at {own:.1f} ms over {worst.name}", parts, missing)


def asked_for(rival: RowKey, system: RowKey) -> bool:
    """Whether a claim stays undecided without this rival. All are, but that of the retrained family's rows that learned
    something in front of the detector, or from HR features, one recipe is enough: the system's own."""
    learned = rival.system in ("sr_fast", "sr_quality") or rival.recipe == "distilled"
    alike = (rival.recipe, rival.upscale) == (system.recipe, system.upscale)
    return rival.family == "frozen" or rival.base == system or not learned or alike


def named_missing(row: RowKey, lead: Estimate | None, ms: float | None) -> list[str]:
    """What a claim lacks of a rival: its mAP in a seed of the system, or its time."""
    if lead is None:
        return [row.short]
    return [f"the time of {row.short}"] if ms is None else []


def claim_table(claims: Sequence[Claim]) -> list[list[str]]:
    """Head and lines for a Markdown table."""
    head = ["claim", "system", "found [95 % interval]", "seeds", "verdict"]
    bold = {NO: "**no**"}
    return [head, *([c.text, c.system, c.found, str(c.seeds or "-"), bold.get(c.verdict, c.verdict)] for c in claims)]


def claim_note(claims: Sequence[Claim]) -> str:
    """How the verdicts come about, and which rest on fewer seeds than asked for."""
    if all(part.interval is None for one in claims for part in one.parts):
        return (
            "This measurement is from before detections were kept, so no figure has an interval and none decides a "
            "claim; no is what takes too long, whatever it finds."
        )
    few = sum(0 < one.seeds < SEEDS_ASKED for one in claims)
    asked = f"; {few} of {len(claims)} claims rest on fewer than the {SEEDS_ASKED} that are asked for" if few else ""
    return (
        f"Yes and no: the whole 95 % interval lies on that side of the limit. Intervals are of {RESAMPLES:,} draws of "
        f"the test images, the same for all rows, and of the seeds; of one seed, over images alone{asked}. Every rival "
        "that a claim names has to be measured and timed. Ratios of times are of medians and have no interval."
    )
