"""The page of label-free training before a public detector: leads over shipped weights, and what they say."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np

from evaluation.map_bootstrap import interval

FIGURES = ("agreement", "mAP")


def lines_of(samples: dict[str, np.ndarray], shipped: Sequence[str]) -> dict[str, dict]:
    """By row: the figure of all images (the first sample), and 95 % intervals of its leads over shipped networks."""
    references = [name for name in shipped if name in samples]
    return {
        name: {"value": float(values[0])}
        | {"leads": {other: list(interval(values[1:] - samples[other][1:])) for other in references}}
        for name, values in samples.items()
    }


def verdict(results: dict, rivals: dict[str, str]) -> str:
    """In words: which trained networks lead over the shipped ones of their size, by the intervals of the same draws.

    Args:
        results: place -> figure -> row -> `lines_of`.
        rivals: trained network -> the shipped one that it started from.
    """
    better = {}
    for name, rival in rivals.items():
        leads = [
            figures[name]["leads"][rival]
            for place in results.values()
            for key, figures in place.items()
            if key in FIGURES
        ]
        better[name] = ["+" if low > 0 else "-" if high < 0 else "0" for low, high in leads]
    wins = [name for name, signs in better.items() if "+" in signs and "-" not in signs]
    losses = [name for name, signs in better.items() if "-" in signs]
    said = f"Above the shipped weights of the same size by some figure and below by none: {', '.join(wins) or 'none'}."
    return f"{said} Below by some figure: {', '.join(losses) or 'none'}. All others cannot be told apart from them."


def page(content: dict, base: str) -> str:
    """docs/results/label_free.md."""
    results, where = content["results"], content["environment"]
    crops, whole = results["held-out crops"], results["labelled photographs"]
    steps = ", ".join(f"{name}: {count}" for name, count in content["steps"].items())
    where_from = (
        f"`{content['command']}`, {where['cpu']}, fp32, {str(where['date'])[:10]}; LR by bicubic, x{content['scale']}, "
        f"seed {content['seed']}. One SR network everywhere, trained from the shipped weights through the frozen "
        f"detector; base: {base}, native crops, neck features and outputs as on HR images. Steps: {steps}."
    )
    meaning = (
        f"Agreement: mAP50-95 with the {crops['boxes']} sure boxes that the detector finds in {crops['images']} native "
        f"HR crops of held-out photographs, and the {whole['boxes']} in {whole['images']} whole ones, whose labels "
        f"make the last column. In brackets the 95 % interval of the lead over the shipped {base}, a bootstrap over "
        "photographs with the same draws for all rows."
    )
    rows = table(results, [name for name in crops["agreement"] if name not in ("hr", "bicubic")], base)
    parts = [*map(wrapped, (where_from, meaning)), rows, wrapped(verdict(results, content["rivals"]))]
    return "\n\n".join(["# Label-free training before a public detector", *parts]) + "\n"


def wrapped(paragraph: str) -> str:
    """In lines of at most 120 characters, where words allow that."""
    return "\n".join(textwrap.wrap(paragraph, 120, break_long_words=False, break_on_hyphens=False))


def table(results: dict, networks: Sequence[str], base: str) -> str:
    """Markdown: every row, with its leads over the shipped network `base`."""
    columns = [("held-out crops", "agreement"), ("labelled photographs", "agreement"), ("labelled photographs", "mAP")]
    head = ["", *(f"{figure}, {place}" for place, figure in columns)]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * len(columns)]
    for name in ("hr", "bicubic", *networks):
        cells = []
        for place, figure in columns:
            row = results[place][figure][name]
            low, high = row["leads"][base]
            lead = "" if name in (base, "hr") else f" ({low:+.3f} to {high:+.3f})"
            cells.append(f"{row['value']:.3f}{lead}")
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)
