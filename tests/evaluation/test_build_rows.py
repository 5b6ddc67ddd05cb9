"""evaluation/build_rows.py: one halo for all systems; what makes no table is refused before anything is measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.evaluate_schema import EvaluateConfig
from evaluate import main
from evaluation.build_rows import build_rows
from tests.evaluated_project import Project, make_project
from tests.test_evaluate import NAMES
from utils.checkpoint import CheckpointError
from utils.config import parse_config


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return make_project(tmp_path_factory.mktemp("project"))


@pytest.mark.parametrize(("given", "expected"), [("null", 2), ("0", 0), ("3", 3), ("exact", None)])
def test_the_halo_of_an_evaluation_is_that_of_all_its_systems(project: Project, given: str, expected: int | None):
    systems = {"joint": project["joint"], "frozen": project["frozen"], "espcn": project["espcn"]}
    config = parse_config(EvaluateConfig, "", project.arguments(Path("x"), systems=systems, halo=given))
    rows = build_rows(config, NAMES)
    assert {row.method.front.execution.halo for row in rows if row.conditional} == {expected}
    assert any(not row.conditional for row in rows), "systems without a masker have no halo to set"


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({}, ValueError, "system: no checkpoint is given"),
        ({"systems": {"a": "nowhere.pth"}}, CheckpointError, "systems.a: nowhere.pth does not exist; stage3"),
        ({"systems": {"a": ""}}, ValueError, "systems.a: no checkpoint is given"),
        ({"systems": {"a": "@detector"}}, CheckpointError, "expected a checkpoint of kind 'system'"),
        ({"systems": {"../a": "@joint"}}, ValueError, r"systems\.\.\./a: names are letters, digits"),
        ({"systems": {"a/": "@joint"}}, ValueError, "names are letters, digits"),
        ({"systems": {"conditional": "@frozen"}, "system": "@joint"}, ValueError, "systems.conditional: the table has"),
        (
            {"systems": {"a": "@espcn"}, "detectors": {"a": "@hr"}},
            ValueError,
            "detectors.a: the table has a row of this",
        ),
        ({"systems": {"a": "@joint", "a_edge_0.5": "@espcn"}}, ValueError, "systems.a_edge_0.5: the table has a row"),
        ({"systems": {"a": "@joint"}, "budgets": [0.25, 0.25]}, ValueError, "two of them make a row a_budget_0.25;"),
        (
            {"systems": {"a": "@joint"}, "budgets": [0.333333, 0.3333331]},
            ValueError,
            "two of them make a row a_budget_0.333333;",
        ),
        ({"systems": {"a": "@joint"}, "sr_fast": "x.pth"}, ValueError, "sr_fast and sr_quality need `detector`"),
        ({"detectors": {"a": "@espcn"}}, ValueError, "images of its front end espcn; name it under `systems`"),
        ({"detectors": {"a": "@detector"}, "data.lr": "native"}, ValueError, "detectors.a: sees HR images"),
        ({"systems": {"a": "@hr"}, "data.lr": "native"}, ValueError, "systems.a: sees HR images"),
        ({"sliced": {"a": {"rows": 2}}}, ValueError, "sliced.a: no checkpoint is given"),
        ({"systems": {"a": "@joint"}, "records": {"b": {"system": "c"}}}, ValueError, "records.b: systems, detectors"),
    ],
)
def test_bad_input_is_refused(project: Project, tmp_path: Path, options: dict, error: type, words: str):
    text = json.dumps(options)
    for name in ("detector", "joint", "frozen", "espcn", "hr"):
        text = text.replace(f"@{name}", project[name])
    with pytest.raises(error, match=words):
        main(project.arguments(tmp_path / "run", **json.loads(text)))
    assert not (tmp_path / "run").exists()
