"""Hypothesis looks for text and bytes on which reading a configuration, labels, a checkpoint or an image goes wrong."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.reliability.gates import READERS, seeds
from utils.errors import UserError

SHARE = os.environ.get("RELIABILITY")
EXAMPLES = 40 if SHARE is None else max(40, round(20_000 * float(SHARE)))
KEYS = ("run", "data", "sr_fast", "optim_fast", "scale", "seed", "out", "epochs", "patch", "train", "name", "args", "x")
SCALARS = st.one_of(
    st.sampled_from(("1", "1e-4", "-1", "true", "null", "~", ".nan", ".inf", "010", "'x'", "[]", "{}", "&a 1", "*a")),
    st.integers().map(str), st.floats().map(str), st.text(max_size=8),
)  # fmt: skip
YAML = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from(KEYS), inner, max_size=4).map(
            lambda d: "{" + ", ".join(f"{k}: {v}" for k, v in d.items()) + "}"
        ),
        st.lists(inner, max_size=3).map(lambda values: f"[{', '.join(values)}]"),
    ),
    max_leaves=12,
)
NUMBERS = st.one_of(st.floats(), st.floats(0, 1), st.integers(-1, 3), st.sampled_from(("", "x", "1e", "0x1", "\u0661")))
LABELS = st.lists(st.lists(NUMBERS.map(str), max_size=9).map(" ".join), max_size=4).map("\n".join)


def edits(whole: bytes) -> st.SearchStrategy[bytes]:
    """The bytes with some places overwritten, and cut off somewhere."""
    places = st.lists(st.tuples(st.integers(0, len(whole) - 1), st.binary(min_size=1, max_size=8)), max_size=5)

    def made(edit: tuple[list[tuple[int, bytes]], int]) -> bytes:
        content = bytearray(whole)
        for at, new in edit[0]:
            content[at : at + len(new)] = new
        return bytes(content[: edit[1]])

    return st.tuples(places, st.one_of(st.just(len(whole)), st.integers(0, len(whole)))).map(made)


# Name -> who reads it, and what is tried; a folder may be written to.
GATES: dict[str, tuple[str, Callable[[Path], st.SearchStrategy[bytes]]]] = {
    "configuration": ("configuration", lambda f: YAML.map(lambda t: t.encode("utf-8", "surrogatepass"))),
    "label file": ("label file", lambda f: LABELS.map(str.encode)),
    "label file of any bytes": ("label file", lambda f: st.binary(max_size=60)),
    "checkpoint": ("checkpoint", lambda f: edits(seeds("checkpoint", f)[0])),
    "image gate": ("image gate", lambda f: edits(seeds("image gate", f)[0])),
}


@pytest.mark.parametrize("gate", GATES)
def test_gate(tmp_path: Path, record, gate: str):
    reader, contents = GATES[gate]
    file, read = READERS[reader]
    path, tried, good = tmp_path / file, 0, 0

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
    )  # fmt: skip
    @given(contents(tmp_path))
    def try_it(content: bytes) -> None:
        nonlocal tried, good
        tried += 1
        path.write_bytes(content)
        try:
            read(path)
        except UserError as error:
            assert file in str(error)
        good += 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            try_it()
        finally:
            record("Fuzzing (Hypothesis)", f"{gate}: read, or one clear error", good, tried, must_hold=False)
