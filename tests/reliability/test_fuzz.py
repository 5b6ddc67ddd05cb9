"""Hypothesis looks for text and bytes on which reading a configuration, labels, a checkpoint or an image goes wrong."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from configs.schema import Stage2Config
from data.images import inspect_image
from data.labels import parse_label_file
from tests.reliability.test_corpora import PIXELS, image_bytes, read_labels
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.config import load_config
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


def checkpoint(folder: Path) -> bytes:
    save_checkpoint(folder / "whole.pth", {"kind": "sr", "name": "espcn", "args": {"scale": 2}, "meta": {}})
    return (folder / "whole.pth").read_bytes()


def png(folder: Path) -> bytes:
    import random

    return image_bytes("PNG", "RGB", random.Random(0))


GATES: dict[str, tuple[str, Callable[[Path], st.SearchStrategy[bytes]], Callable[[Path], object]]] = {
    "configuration": ("a.yaml", lambda f: YAML.map(lambda t: t.encode("utf-8", "surrogatepass")),
                      lambda p: load_config(Stage2Config, p)),
    "label file": ("a.txt", lambda f: LABELS.map(str.encode), read_labels),
    "label file of any bytes": ("a.txt", lambda f: st.binary(max_size=60), lambda p: parse_label_file(p, 2)),
    "checkpoint": ("a.pth", lambda f: edits(checkpoint(f)), load_checkpoint),
    "image gate": ("a.png", lambda f: edits(png(f)), lambda p: inspect_image(p, PIXELS, decode=True)),
}  # fmt: skip


@pytest.mark.parametrize("gate", GATES)
def test_gate(tmp_path: Path, record, gate: str):
    file, contents, read = GATES[gate]
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
