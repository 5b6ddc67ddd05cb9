"""Records of rows, the names made of them, and names of older files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.comparison.catalogue import FRONT_END_RECIPES, ROWS
from evaluation.old_rows import key_of, key_of_old_name
from evaluation.row_key import SHARES, RowKey, by_key

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "results"
RESULTS = sorted(file for file in FOLDER.glob("*.json") if "comparison" in json.loads(file.read_text()))
SHARE = st.sampled_from([0.05, 0.1, 0.25, 0.5, 1e-05, 1.0, 0.0])
NEWER = ("warmed_up", "on_slices")  # recipes whose rows had a record from the first
NAMED_ONCE = [row for row in ROWS if row.key.recipe not in NEWER]
POLICIES = st.one_of(
    st.tuples(st.sampled_from([None, "learned", "all_fast", "all_quality"]), st.none()),
    st.tuples(st.sampled_from(SHARES), SHARE),
    st.tuples(st.just("latency_ms"), st.sampled_from([12.5, 1000.0])),
)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (RowKey("conditional", "frozen", "unlabelled", policy="budget", budget=0.25),
         "frozen/conditional_unlabelled_budget_0.25"),
        (RowKey("bicubic", upscale=2), "bicubic_2x"),
        (RowKey("bicubic", "retrained", "distilled", upscale=1.5), "retrained/bicubic_1.5x_distilled"),
        (RowKey("conditional", policy="latency_ms", budget=30.0), "conditional_latency_30"),
        (RowKey("conditional", policy="all_fast"), "conditional_all_fast"),
        (RowKey("my/own_budget_0.3"), "my/own_budget_0.3"),
    ],
)  # fmt: skip
def test_names(key: RowKey, name: str):
    assert key.name == name and key.short == (name.partition("/")[2] if key.family else name)


def test_a_record_is_all_of_a_key():
    key = RowKey("conditional", "retrained", "distilled", 1.5, "oracle", 0.1)
    row = json.loads(json.dumps({"name": "anything", **key.record(), "map50_95": 0.3}))
    assert RowKey.of(row) == key == key_of(row) and by_key([row]) == {key: row}
    assert key.base == RowKey("conditional", "retrained", "distilled", 1.5) and key.is_control
    assert key.base.under("oracle", 0.1) == key and not key.base.is_control
    assert RowKey("bicubic", upscale=2.0).record()["upscale"].__class__ is int
    with pytest.raises(KeyError):
        key_of({})


@given(st.sampled_from(NAMED_ONCE), st.booleans(), POLICIES)
def test_names_of_own_rows_lead_back_to_their_keys(row, family: bool, policy: tuple):
    key = row.key.under(*policy) if row.key.system == "conditional" else row.key
    assert key_of_old_name(key.name) == key


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.stem)
def test_every_published_name_leads_to_its_record(file: Path):
    content = json.loads(file.read_text())
    rows = [*content["rows"], *(row for rows in content["sweep"].values() for row in rows)]
    assert len(rows) > 60
    for row in rows:
        assert RowKey.of(row).name == row["name"] and row["family"] in ("frozen", "retrained")
        if row["recipe"] not in NEWER:
            assert key_of_old_name(row["name"]) == RowKey.of(row) == key_of({"name": row["name"]})


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("hr", RowKey("hr")),
        ("bicubic_2x", RowKey("bicubic", upscale=2)),
        ("conditional_random_0.1", RowKey("conditional", policy="random", budget=0.1)),
        ("joint_learned", RowKey("joint", policy="learned")),
        ("x_learned_edge_0.5", RowKey("x_learned", policy="edge", budget=0.5)),
        ("bicubic_retrained", RowKey("bicubic_retrained")),
        ("conditional_distilled", RowKey("conditional_distilled")),  # no family: a name that a user chose
        ("b_edge_1.2.3", RowKey("b_edge_1.2.3")),
        ("a_budget_0.250", RowKey("a_budget_0.250")),  # no program of this project wrote it so
        ("learned", RowKey("learned")),
    ],
)
def test_names_of_older_tables(name: str, key: RowKey):
    assert key_of_old_name(name) == key and key.name == name


@given(st.text(min_size=1))
def test_whatever_the_name_it_stays(name: str):
    assert key_of_old_name(name).name == name


def test_recipes_are_those_that_old_names_know():
    for system, recipes in FRONT_END_RECIPES.items():
        for recipe in filter(None, recipes):
            assert key_of_old_name(f"frozen/{system}_{recipe}") == RowKey(system, "frozen", recipe)
