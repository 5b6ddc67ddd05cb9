"""Rows of results.json as older versions wrote them: with a name alone. Nothing else looks into a name."""

from __future__ import annotations

import re
from typing import Any

from evaluation.row_key import RowKey

NUMBER = r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"
FAMILY = re.compile(r"(?:(?P<family>frozen|retrained)/)?(?P<rest>.+)", re.S)
POLICY = re.compile(
    rf"(?P<rest>.+)_(?:(?P<plain>learned|all_fast|all_quality)|(?P<kind>budget|random|edge|oracle|latency)_(?P<n>{NUMBER}))"
)
ENLARGED = re.compile(rf"(?P<rest>bicubic)_(?P<n>{NUMBER})x")
RECIPE = re.compile(
    r"(?P<rest>bicubic|sr_fast|sr_quality|conditional)_(?P<recipe>tuned|tuned_unlabelled|unlabelled|distilled)"
)


def key_of(row: dict[str, Any]) -> RowKey:
    """The key of a row of results.json of any version.

    Raises:
        KeyError: it has neither the fields nor a name.
    """
    return RowKey.of(row) if "system" in row else key_of_old_name(row["name"])


def key_of_old_name(name: str) -> RowKey:
    """The key whose name this is. What is no name of this project's own rows is the name of a system."""
    found = FAMILY.fullmatch(name)
    family, rest = found["family"], found["rest"]
    policy = budget = recipe = None
    upscale = 1.0
    if found := POLICY.fullmatch(rest):
        rest, kind = found["rest"], found["kind"]
        policy = {"latency": "latency_ms"}.get(kind, kind) or found["plain"]
        budget = float(found["n"]) if kind else None
    if family and (found := RECIPE.fullmatch(rest)):
        rest, recipe = found["rest"], found["recipe"]
    if found := ENLARGED.fullmatch(rest):
        rest, upscale = found["rest"], float(found["n"])
    key = RowKey(rest, family, recipe, upscale, policy, budget)
    return key if key.name == name else RowKey(name)
