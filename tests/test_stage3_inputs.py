"""Stage 3 on HR images, larger inputs and slices: what it refuses, what it trains, and what becomes of that."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import stage3_finetune_joint as stage3
from data.detection import DetectionDataset, load_data_spec, scan_split
from evaluate import main
from loading.systems import load_system
from models.mask_policy import parse_policy
from prediction.predictor import PredictOptions, Predictor
from tests.evaluated_project import SLICED, Project, by_name, make_project
from tests.extras import needs
from utils.flops_counter import count_macs_at


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return make_project(tmp_path_factory.mktemp("project"))


def test_boxes_of_the_double_canvas_are_in_canvas_pixels(project: Project):
    """Boxes of the system are half of what its detector says of an image twice as large."""
    spec = load_data_spec(str(project.data))
    dataset = DetectionDataset(scan_split(spec, "val")[0], spec.names, (64, 64), 2)
    double, seen = load_system(project["double"]), torch.from_numpy(np.stack([dataset[0]["lr"]])).float() / 255
    boxes, output = double.predict(seen, None, conf=0.0001)
    assert output.sr.shape[-2:] == (128, 128)
    inside = double.detector.predict(output.sr, conf=0.0001)[0]
    torch.testing.assert_close(boxes[0][:, :4] * 2, inside[:, :4])


@pytest.mark.parametrize(
    "options, words",
    [
        (["--sr=hr"], "sr hr trains a detector on HR images: it needs mode detector_only"),
        (["--sr=hr", "--mode=detector_only", "--data.lr=native"], "sr hr needs HR images, but data.lr is native"),
        (["--sr=hr", "--mode=detector_only", "--upscale=2"], "upscale 2 enlarges SR images"),
        (["--sr=bicubic", "--mode=detector_only", "--upscale=2", "--losses.rec=1"], "losses.rec compares SR with HR"),
        (["--sr=bicubic", "--mode=detector_only", "--upscale=2", "--losses.distill=1"], "images of one size"),
        (["--sr=sr_fast", "--upscale=1.5", "--losses.hr_share=0.1"], "images of one size"),
        (["--slices.rows=2"], "slices are of bicubic images"),
        (["--sr=bicubic", "--mode=detector_only", "--slices.rows=2", "--upscale=1.5"], "slices are of bicubic images"),
        (["--sr=bicubic", "--mode=detector_only", "--slices.rows=2", "--losses.rec=1"], "losses.rec is of whole"),
        (
            ["--sr=bicubic", "--mode=detector_only", "--slices.columns=2", "--data.unlabelled=true"],
            "slices learn nothing from",
        ),
        (["--mode=detector_only"], "set sr to bicubic, sr_fast, sr_quality or hr"),
    ],
)
def test_stage3_refuses_what_makes_no_sense(project: Project, tmp_path: Path, options: list[str], words: str):
    with pytest.raises(ValueError, match=words):
        stage3.main([f"--data.yaml={project.data}", f"--run.out={tmp_path / 'run'}", *options])


@needs("sahi")
def test_larger_inputs_slices_and_the_sahi_package(project: Project, tmp_path: Path):
    """Trained by stage 3, measured by evaluate.py, run by inference."""
    espcn = ("--sr=sr_fast", "--sr_fast.name=espcn", "--sr_fast.args={n_feats: 8}")
    project.train("larger", *espcn, "--upscale=1.25", "--losses.rec=0.1")
    project.train("on_slices", "--sr=bicubic", "--slices.rows=2", "--slices.columns=2")
    sliced = {"on_slices": SLICED | {"weights": project["on_slices"]}}
    sliced |= {"sahi": SLICED | {"weights": project["detector"], "library": "sahi"}}
    options = {"systems": {"larger": project["larger"]}, "sliced": sliced, "timing_runs": 1}
    assert main(project.arguments(tmp_path / "run", **options)) == 0
    rows = by_name(json.loads((tmp_path / "run" / "results.json").read_text()))
    assert list(rows) == ["larger", "on_slices", "sahi"] and all(row["total_ms"] > 0 for row in rows.values())
    assert rows["larger"]["psnr"] > 0 and rows["sahi"]["sr_ms"] is None

    system = load_system(project["larger"])
    assert (system.upscale, system.scale, system.front.scale) == (1.25, 2, 2)
    side = count_macs_at(system.detector, 96, 96) / 1e9  # 1.25 times 64, filled up
    assert rows["larger"]["total_gmacs"] - rows["larger"]["sr_gmacs"] == pytest.approx(side)
    image = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
    found = Predictor(system, torch.device("cpu"))([image], PredictOptions(parse_policy("learned"), conf=0.0))[0]
    assert found.sr_image().shape == (60, 80, 3) and found.boxes[:, :4].max() <= 40
    assert load_system(project["on_slices"]).front.spec["name"] == "bicubic"


def test_stage3_checkpoints_say_what_they_are(project: Project):
    hr, double = load_system(project["hr"]), load_system(project["double"])
    assert hr.sees_hr and hr.scale == 1 and hr.spec["args"]["front"] == {"name": "hr", "args": {}}
    assert (double.scale, double.zoom) == (2, 2) and not double.sees_hr
    meta = torch.load(project["hr"], weights_only=True)["meta"]
    assert "val/psnr" not in meta["metrics"] and "val/map50_95" in meta["metrics"]
