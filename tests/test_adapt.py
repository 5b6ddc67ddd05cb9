"""adapt.py from a detector and pictures to the file to deploy: measured, trained, stopped and taken up again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import adapt
from configs.adapt_schema import AdaptConfig
from data.images import read_rgb
from loading.deployed_detector import load_deployed_detector
from loading.stage3_checks import check_stage3
from loading.systems import load_system
from models.detector_yolo import YoloDetector
from prediction.api import ConditionalYOLO
from tests.drawn import draw_detection_set
from tests.test_evaluate import NAMES, talkative_detector
from training import adapt as training
from training.trainer import Trainer
from utils.errors import UserError
from utils.yaml_strict import ConfigError

SHIPPED = [
    "--sr_fast.name=espcn", "--sr_fast.args={n_feats: 8}", "--sr_quality.name=edsr",
    "--sr_quality.args={n_blocks: 2, n_feats: 16, tail: single}",
]  # fmt: skip
BASELINES = ["hr", "bicubic", "bicubic_1.5x", "sr_fast", "sr_quality"]
TRAINED = ["sr_fast_trained", "conditional_trained_budget_0.25", "sr_quality_trained"]


def attentive_detector(images: torch.Tensor) -> YoloDetector:
    """An untrained detector whose scores differ from place to place, so that few boxes are sure."""
    detector = talkative_detector()
    for norm in (module for module in detector.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        norm.momentum = None  # plain average, so that one batch sets the statistics
    with torch.no_grad():
        detector.train().raw(images)
        scores = detector.eval().raw(images)["scores"]
        for branch in detector.head.cv3:
            branch[-1].weight.mul_(1.0 / scores.std())
            branch[-1].bias.fill_(-2.5)
    return detector


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A detector as Ultralytics saves it, and pictures with labels."""
    folder = tmp_path_factory.mktemp("adapt")
    draw_detection_set(folder / "set", images=6)
    torch.manual_seed(0)
    pictures = [read_rgb(path, 10**6) for path in sorted((folder / "set/images/train").iterdir())]
    detector = attentive_detector(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255)
    torch.save({"model": detector.net, "train_args": {}}, folder / "deployed.pt")
    return folder


def arguments(folder: Path, out: Path, *options: str) -> list[str]:
    return [
        "--detector", str(folder / "deployed.pt"), "--images", str(folder / "set/images/train"), "--scale", "2",
        "--imgsz", "64", "--out", str(out), "--steps", "4", "--batch", "2", "--timing_runs", "0", "--resamples", "50",
        "--holdout", "0.34", "--run.workers", "0", "--run.device", "cpu", "--run.log_every", "1", "--sure", "0.3",
        *SHIPPED, *options,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def finished(folder: Path) -> Path:
    assert adapt.main(arguments(folder, folder / "run")) == 0
    return folder / "run"


def test_the_report(finished: Path):
    result = json.loads((finished / "report.json").read_text())
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == BASELINES + TRAINED
    assert (result["pictures"], result["training_pictures"], result["judged_by"]) == (2, 4, "agreement")
    assert rows["hr"]["agreement"] == 1 and rows["hr"]["agreement_interval"] == [1, 1] and rows["hr"]["behind"] is None
    for name, row in rows.items():
        low, high = row["agreement_interval"]
        assert 0 <= low <= high <= 1 and "map50_95" not in row
        assert name == "hr" or row["behind"][0] <= row["behind"][1]
    cheapest = min(result["tied"], key=lambda name: rows[name]["total_gmacs"])
    assert result["deploy"] == cheapest and result["best"] in result["tied"]
    assert rows["conditional_trained_budget_0.25"]["kept_share"] == 0.25
    page = (finished / "report.md").read_text()
    assert f"Deploy {result['deploy']} (agreement " in page and f"--weights {finished / 'deploy.pth'}" in page
    assert "Fewer than 30 pictures are held out" in page
    before = json.loads((finished / "before.json").read_text())
    assert [row["name"] for row in before] == BASELINES
    assert [row["agreement"] for row in before] == [rows[name]["agreement"] for name in BASELINES]


def test_the_training_went_by_the_detector_alone(finished: Path):
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    terms = {key for line in lines for key in line if key.startswith("train/")}
    assert {"train/distill", "train/distill_outputs", "train/objects"} <= terms and "train/det" not in terms
    system = load_system(finished / training.OUTPUT)
    stored = load_deployed_detector(finished.parent / "deployed.pt")
    for own, deployed in zip(system.detector.parameters(), stored.parameters(), strict=True):
        assert torch.equal(own, deployed)


def test_what_is_deployed_runs_like_any_system(finished: Path, folder: Path):
    model = ConditionalYOLO(finished / "deploy.pth", device="cpu")
    assert model.names == dict(enumerate(NAMES))
    (result,) = model.predict(
        np.asarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3)), np.uint8), channels="rgb"
    )
    assert result.sr.shape[0] % 32 == 0 and result.boxes is not None


def test_a_finished_run_is_shown_again_and_another_refused(finished: Path, folder: Path, capsys):
    assert adapt.main(arguments(folder, finished, "--resume")) == 0
    shown = capsys.readouterr().out
    assert "already finished" in shown and (finished / "report.md").read_text() in shown
    with pytest.raises(ConfigError, match=r"holds another run; continue it with --run.resume true"):
        adapt.main(arguments(folder, finished))
    with pytest.raises(ConfigError, match=r"was begun with other settings \(lr\)"):
        adapt.main(arguments(folder, finished, "--resume", "--lr", "2e-4"))


def test_a_stopped_training_ends_with_the_same_weights(finished: Path, folder: Path, tmp_path: Path, monkeypatch):
    save, saved = Trainer.save, []

    def save_and_stop(trainer: Trainer) -> None:
        save(trainer)
        saved.append(trainer.step)
        if len(saved) == 3:
            raise InterruptedError

    monkeypatch.setattr(Trainer, "save", save_and_stop)
    options = arguments(folder, tmp_path / "run", "--run.checkpoint_every=1")
    with pytest.raises(InterruptedError):
        adapt.main(options)
    assert saved[-1] < 4
    monkeypatch.setattr(Trainer, "save", save)
    assert adapt.main([*options, "--resume"]) == 0
    expected, found = (load_system(run / training.OUTPUT).state_dict() for run in (finished, tmp_path / "run"))
    assert all(torch.equal(expected[key], value) for key, value in found.items())


def test_labels_judge_where_they_are_known(folder: Path, tmp_path: Path):
    options = arguments(folder, tmp_path / "run", "--steps", "0", f"--data={folder / 'set/data.yaml'}")
    assert adapt.main(options) == 0
    result = json.loads((tmp_path / "run/report.json").read_text())
    assert [row["name"] for row in result["rows"]] == BASELINES and result["judged_by"] == "map50_95"
    assert result["pictures"] == 6 and all(row["map50_95_interval"][0] <= row["map50_95"] for row in result["rows"])
    page = (tmp_path / "run/report.md").read_text()
    assert "| mAP |" in page.replace("  ", " ").replace("  ", " ") and "The training has" not in page


def test_the_recipe_is_a_valid_stage_3(folder: Path):
    config = AdaptConfig(detector=str(folder / "deployed.pt"), data=str(folder / "set/data.yaml"), imgsz=64, scale=2)
    adaptation = training.read_adaptation(config)
    stage3 = training.stage3_config(config, adaptation.epochs, adaptation.batch)
    check_stage3(stage3)
    assert stage3.optim.lr == stage3.optim.lr_sr == 1e-4 and stage3.losses.det == 0 and stage3.optim.epochs == 600


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--detector", ""], "name the deployed detector with --detector"),
        (["--images", ""], "name one with --images, or a data set with --data"),
        (["--images", "nowhere"], "nowhere: no such folder"),
        (["--sr_fast.weights", "null"], r"sr_fast.weights: a front end is not trained from nothing"),
        (["--imgsz", "70"], "multiple of 32"),
        (["--sure", "0.99"], "finds nothing above a score of 0.99 in 2 held-out HR pictures"),
        (["--detector_model", "yolo11n.yaml"], "says itself which network it holds"),
    ],
)
def test_refusals(folder: Path, tmp_path: Path, options: list[str], message: str):
    with pytest.raises(UserError, match=message):
        adapt.main(arguments(folder, tmp_path / "run", *options))


@pytest.mark.parametrize("pictures", [0, 1])
def test_too_few_pictures_name_their_folder(folder: Path, tmp_path: Path, pictures: int):
    (tmp_path / "few").mkdir()
    for source in sorted((folder / "set/images/train").iterdir())[:pictures]:
        (tmp_path / "few" / source.name).write_bytes(source.read_bytes())
    with pytest.raises(UserError, match=rf"images: {tmp_path / 'few'} holds {pictures} pictures; give more"):
        adapt.main(arguments(folder, tmp_path / "run", "--images", str(tmp_path / "few")))
    assert not (tmp_path / "run").exists()
