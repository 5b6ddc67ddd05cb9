"""compare.py from end to end with stand-ins for the stage scripts; its shipped configurations."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

import compare
from configs.compare_schema import AblationConfig, CompareConfig
from evaluation.comparison import ablation
from evaluation.comparison.catalogue import ROWS, chosen
from evaluation.comparison.jobs import check_jobs
from evaluation.comparison.plan import build_plan
from tests.evaluation.comparison.conftest import comparison, fakes  # noqa: F401 (fixtures)
from utils.config import load_config, save_config
from utils.yaml_strict import load_yaml

FOLDER = Path(__file__).resolve().parents[1] / "configs" / "compare"
STUDIES = sorted(FOLDER.glob("ablations_*.yaml"))
COMPARISONS = sorted(set(FOLDER.glob("*.yaml")) - set(STUDIES))


@pytest.fixture
def written(comparison: CompareConfig, tmp_path: Path) -> Path:  # noqa: F811
    """YAML of a small comparison: one seed, two label shares, conditional rows of both families."""
    rows = ["frozen/conditional", "frozen/conditional_unlabelled", "retrained/conditional", "retrained/sliced"]
    config = replace(comparison, seeds=[0], rows=rows, jobs=2)
    save_config(config, tmp_path / "compare.yaml")
    return tmp_path / "compare.yaml"


def test_one_command_trains_measures_and_reports(written: Path, tmp_path: Path, capsys):
    assert compare.main(["--config", str(written)]) == 0
    out = tmp_path / "out"
    content = json.loads((out / "results.json").read_text())
    names = {row["name"] for row in content["rows"]}
    expected = {"frozen/hr", "frozen/bicubic", "retrained/hr", "retrained/bicubic", "retrained/sliced"}
    expected |= {"frozen/conditional_budget_0.25", "frozen/conditional_unlabelled_oracle_0.5"}
    assert expected <= names and "frozen/sr_fast" not in names, "only rows that were asked for, and their references"
    few = {row["name"] for row in content["sweep"]["0.2"]}
    assert {"frozen/hr", "frozen/conditional_unlabelled_budget_0.25", "retrained/sliced"} <= few
    assert not content["missing"] and (out / "report.html").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert (out / "table.md").read_text() in printed and "[13/13]" in printed


@pytest.mark.slow
def test_report_again_elsewhere(written: Path, tmp_path: Path, capsys):
    compare.main(["--config", str(written)])
    elsewhere = tmp_path / "docs" / "drawn_x4"
    assert compare.main(["report", "--run", str(tmp_path / "out"), "--out", str(elsewhere)]) == 0
    text = elsewhere.with_suffix(".md").read_text()
    assert (
        text.replace("(drawn_x4_", "(table_") == (tmp_path / "out" / "table.md").read_text() and "(table_" not in text
    )
    assert (tmp_path / "docs" / "drawn_x4_retrained.png").exists()
    assert json.loads(elsewhere.with_suffix(".json").read_text())["rows"]
    (tmp_path / "out" / "table.md").unlink()
    assert compare.main(["report", "--run", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "table.md").exists() and "report.html" in capsys.readouterr().out


@pytest.mark.slow
def test_failures_are_reported_and_the_rest_is_measured(written: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("FAKE_FAILS", "retrained_conditional-labels0.2")
    assert compare.main(["--config", str(written)]) == 1
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert content["missing"] == ["retrained/conditional-labels0.2-seed0", "measure-labels0.2-seed0"]
    assert "retrained/conditional-labels0.2-seed0: failed with status 2" in capsys.readouterr().err
    assert "Missing" in (tmp_path / "out" / "table.md").read_text()
    monkeypatch.delenv("FAKE_FAILS")
    assert compare.main(["--config", str(written)]) == 0
    assert not json.loads((tmp_path / "out" / "results.json").read_text())["missing"]


def test_interrupted_it_says_how_to_go_on(written: Path, tmp_path: Path, monkeypatch, capsys):
    from evaluation.comparison.run import Runner

    monkeypatch.setattr(Runner, "start_next", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    assert compare.main(["--config", str(written)]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    index = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert not index["measurements"] and len(index["missing"]) == 13


def test_study(written: Path, tmp_path: Path, monkeypatch):
    study = AblationConfig(
        str(written),
        "retrained/conditional",
        str(tmp_path / "study"),
        common={"optim.epochs": 3},
        variants={"lr": {"optim.lr": 1.0}},
    )
    save_config(study, tmp_path / "study.yaml")
    monkeypatch.setattr(ablation, "metric_of", lambda file, metric: json.loads(file.read_text())["metrics"][metric])
    assert compare.main(["ablate", "--config", str(tmp_path / "study.yaml")]) == 0
    content = json.loads((tmp_path / "study" / "ablations.json").read_text())
    assert [variant["name"] for variant in content["variants"]] == ["base", "lr"]
    assert content["variants"][1]["over_base"]["mean"] == pytest.approx(0.0999)
    text = (tmp_path / "study" / "ablations.md").read_text()
    assert "| lr" in text and "All of them with optim.epochs 3." in text
    trained = [load_yaml(file) for file in (tmp_path / "cache").glob("*conditional+*/config.yaml")]
    assert len(trained) == 2 and all(tree["optim"]["epochs"] == 3 for tree in trained)


def test_help_names_every_row_of_keys(capsys):
    with pytest.raises(SystemExit):
        compare.main(["--help"])
    assert "--label_shares" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        compare.main(["ablate", "--help"])
    assert "--variants" in capsys.readouterr().out


@pytest.fixture
def some_data(monkeypatch, tmp_path: Path) -> str:
    """A data set's YAML; shipped YAMLs name other files relative to the project's folder."""
    monkeypatch.chdir(FOLDER.parents[1])
    (tmp_path / "data.yaml").touch()
    return str(tmp_path / "data.yaml")


@pytest.mark.parametrize("file", COMPARISONS, ids=lambda file: file.stem)
def test_shipped_comparisons_plan_valid_trainings(file: Path, some_data: str):
    config = load_config(CompareConfig, file)
    weights = {key: "weights/espcn_8_x4.safetensors" for key in ("sr_fast", "sr_quality")}
    plan = build_plan(replace(config, seeds=[0], data=some_data, **weights))
    check_jobs(plan)
    names = {re.sub(r"(-labels[0-9.]+)?-seed0$", "", name) for name in plan.jobs}
    assert {row.name for row in chosen(config.rows) if row.trained} <= names


@pytest.mark.parametrize("file", COMPARISONS, ids=lambda file: file.stem)
def test_shipped_comparisons(file: Path):
    config = load_config(CompareConfig, file)
    assert file.read_text().startswith("#") and Path(config.out).name == file.stem
    for key in ("stage1", "stage3"):
        assert (FOLDER.parents[1] / getattr(config, key)).is_file()
    assert not config.rows or set(config.rows) <= {row.name for row in ROWS}


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_shipped_studies(file: Path, some_data: str):
    config = replace(load_config(AblationConfig, file), data=some_data)
    plan, names = ablation.plan_ablations(config, ablation.load_comparison(config))
    check_jobs(plan)
    assert len(names) == 1 + len(config.variants) > 2
