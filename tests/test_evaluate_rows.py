"""Further kinds of rows from end to end: several systems, oracle, HR detectors, larger input, slices, detections."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from configs.evaluate_schema import EvaluateConfig
from data.detection import DetectionDataset, load_data_spec, scan_split
from data.detection_batch import collate_detection
from evaluate import main
from evaluation import measure_rows
from evaluation.build_rows import build_rows
from evaluation.measure_rows import MethodInput
from evaluation.pareto import draw_pareto
from evaluation.row_key import RowKey
from models.masker import Masker
from tests.evaluated_project import SLICED, Project, by_name, conditional, make_project
from tests.test_evaluate import NAMES, save, talkative_detector
from tools import latency
from utils.config import parse_config
from utils.flops_counter import count_macs_at, count_parameters
from utils.progress import ProgressBar

POLICIES = [
    "learned",
    *(f"{kind}_{share}" for kind in ("budget", "random", "edge", "oracle") for share in (0.25, 0.5)),
    "all_fast",
    "all_quality",
]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return make_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def everything(project: Project, tmp_path_factory) -> tuple[Path, dict]:
    """All kinds of rows, without `system` and `detector`."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    systems = {"joint": project["joint"], "frozen/conditional": project["frozen"], "espcn": project["espcn"]}
    options = {
        "systems": systems | {"bicubic_2x": project["double"], "upper": project["hr"]},
        "detectors": {"hr/stage1": project["detector"], "hr/stage3": project["hr"]},
        "retrained": {"double_again": project["double"], "hr_again": project["hr"]},
        "sliced": {
            "sahi": SLICED | {"weights": project["detector"]},
            "sahi/iou": SLICED | {"weights": project["double"], "match": "iou", "match_threshold": 0.6},
            "one": {"weights": project["detector"], "rows": 1, "columns": 1, "full": False},
        },
        "timing_runs": 1,
        "save_detections": "true",
    }
    assert main(project.arguments(out, **options)) == 0
    return out, json.loads((out / "results.json").read_text())


def test_rows_and_their_names(everything):
    names = [row["name"] for row in everything[1]["rows"]]
    expected = [f"{system}_{policy}" for system in ("joint", "frozen/conditional") for policy in POLICIES]
    expected += ["espcn", "bicubic_2x", "upper", "hr/stage1", "hr/stage3", "double_again", "hr_again"]
    assert names == [*expected, "sahi", "sahi/iou", "one"]


def test_every_row_is_measured(everything):
    for name, row in by_name(everything[1]).items():
        assert 0 <= row["map50_95"] <= row["map50"] <= 1 and row["total_ms"] > 0 and row["params"] > 0, name
        hr = name in ("upper", "hr/stage1", "hr/stage3", "hr_again")
        assert (row["sr_ms"] is None) == (row["sr_gmacs"] is None) == hr, name
        assert (row["kept_share"] is None) == (not name.startswith(("joint_", "frozen/conditional_"))), name
        # Of HR images there is nothing to compare with; images of another size than HR images have no PSNR.
        without = hr or name in ("bicubic_2x", "double_again", "sahi", "sahi/iou", "one")
        assert (row["psnr"] is None) == without, name


def test_the_oracle_keeps_its_share_where_objects_are(everything):
    rows = by_name(everything[1])
    for system in ("joint", "frozen/conditional"):
        for share in (0.25, 0.5):
            kept = {kind: rows[f"{system}_{kind}_{share}"] for kind in ("oracle", "budget", "random")}
            assert all(row["kept_share"] == pytest.approx(share) for row in kept.values())
            for kind in ("budget", "random"):
                assert kept["oracle"]["kept_inside"] >= kept[kind]["kept_inside"]
            assert kept["oracle"]["sr_gmacs"] == kept["budget"]["sr_gmacs"], "the masker runs for ties"
            assert kept["oracle"]["params"] == kept["budget"]["params"]
    assert rows["joint_oracle_0.5"]["kept_inside"] > rows["joint_random_0.5"]["kept_inside"]


def test_hr_rows_see_hr_images(project: Project, everything):
    rows = by_name(everything[1])
    for key in ("map50_95", "map50", "total_gmacs", "params"):
        assert rows["upper"][key] == rows["hr/stage3"][key] == rows["hr_again"][key]
    config = parse_config(EvaluateConfig, "", project.arguments(Path("x"), detectors={"a": project["hr"]}))
    (row,) = build_rows(config, NAMES)
    assert row.method.sees_hr and row.method.front is None


def test_costs_of_larger_inputs_and_slices(project: Project, everything):
    rows, detector = by_name(everything[1]), talkative_detector()
    one, double = (count_macs_at(detector, side, side) / 1e9 for side in (64, 128))
    assert rows["hr/stage1"]["total_gmacs"] == pytest.approx(one)
    for name in ("bicubic_2x", "double_again"):
        assert rows[name]["total_gmacs"] == pytest.approx(double + rows[name]["sr_gmacs"])
    assert rows["sahi"]["total_gmacs"] == pytest.approx(5 * one + rows["sahi"]["sr_gmacs"])
    assert rows["one"]["total_gmacs"] == pytest.approx(one + rows["one"]["sr_gmacs"])
    assert rows["sahi"]["params"] == rows["one"]["params"] == count_parameters(detector)
    assert rows["sahi"]["sr_gmacs"] > rows["one"]["sr_gmacs"] > 0


def test_one_slice_is_plain_bicubic(project: Project, everything, tmp_path: Path):
    arguments = project.arguments(tmp_path / "run", detector=project["detector"], system=project["joint"], overlays=0)
    assert main(arguments) == 0
    bicubic = by_name(json.loads((tmp_path / "run" / "results.json").read_text()))["bicubic"]
    one = by_name(everything[1])["one"]
    # Merging also drops boxes that the detector's own suppression, by union, leaves.
    assert one["sr_gmacs"] == bicubic["sr_gmacs"] and one["map50"] == pytest.approx(bicubic["map50"], abs=0.1)
    assert not (tmp_path / "run" / "detections.json").exists() and not (tmp_path / "run" / "overlays").exists()


def test_precision_recall_curves(everything):
    for row in everything[1]["rows"]:
        curve, per_class = row["pr_curve"], row["pr_curve_per_class"]
        assert len(curve) == 101 and list(per_class) == list(NAMES) == list(row["ap_per_class"])
        known = [values for values in per_class.values() if values is not None]
        np.testing.assert_allclose(curve, np.mean(known, axis=0), atol=2e-5)
        assert np.mean(curve) == pytest.approx(row["map50"], abs=1e-4)


def test_detections_give_the_same_map_again(everything):
    out, results = everything
    saved = json.loads((out / "detections.json").read_text())
    assert list(saved["detections"]) == [row["name"] for row in results["rows"]]
    assert [Path(image["file_name"]).name for image in saved["images"]] == [f"{i}.png" for i in range(4)]
    assert {(image["height"], image["width"]) for image in saved["images"]} == {(48, 64)}
    for row in results["rows"]:
        found = saved["detections"][row["name"]]
        counts = Counter((entry["image_id"], entry["category_id"]) for entry in found)
        assert max(counts.values()) <= 100
        with redirect_stdout(io.StringIO()):
            truth = COCO()
            truth.dataset = {key: saved[key] for key in ("images", "categories", "annotations")} | {"info": {}}
            truth.createIndex()
            evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
            evaluation.evaluate(), evaluation.accumulate(), evaluation.summarize()
        keys = ("map50_95", "map50", "ap_small", "ap_medium", "ap_large")
        assert [value if value >= 0 else None for value in evaluation.stats[[0, 1, 3, 4, 5]]] == [row[k] for k in keys]


def test_pictures_lie_in_a_folder_per_system(everything):
    out, results = everything
    assert sorted(path.relative_to(out).as_posix() for path in (out / "overlays").rglob("*.png")) == [
        "overlays/frozen/conditional/00000_0.png",
        "overlays/joint/00000_0.png",
    ]
    table = (out / "table.md").read_text()
    assert "| frozen/conditional_oracle_0.25 " in table and "| sahi/iou " in table
    legends = [text.get_text() for text in draw_pareto(results).axes[0].get_legend().get_texts()]
    kinds = ("budget of the masker", "random patches", "patches with edges", "patches with objects (oracle)")
    assert sorted(legends) == sorted(
        f"{system}, {kind}" for system in ("joint", "frozen/conditional") for kind in kinds
    )


def test_system_and_its_oracle_rows_beside_others(project: Project, tmp_path: Path):
    options = {"system": project["joint"], "systems": {"frozen": project["frozen"]}, "limit": 2, "overlays": 1}
    assert main(project.arguments(tmp_path / "run", **options)) == 0
    names = [row["name"] for row in json.loads((tmp_path / "run" / "results.json").read_text())["rows"]]
    assert names == [f"{system}_{policy}" for system in ("conditional", "frozen") for policy in POLICIES]
    pictures = sorted(path.relative_to(tmp_path / "run").as_posix() for path in (tmp_path / "run").rglob("0*.png"))
    assert pictures == ["overlays/00000_0.png", "overlays/frozen/00000_0.png"]


def test_rows_not_asked_for_are_left_out_and_records_name_others(project: Project, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr(measure_rows, "ProgressBar", partial(ProgressBar, every=0.0))
    options = {
        "detector": project["detector"],
        "baselines": ["bicubic", "lr"],
        "limit": 2,
        "overlays": 1,
        "timing_runs": 1,
    }
    options |= {"systems": {"mine": project["frozen"]}, "budgets": [0.25], "save_detections": "true"}
    options |= {"records": {"mine": {"system": "conditional", "family": "frozen", "recipe": "unlabelled"}}}
    assert main(project.arguments(tmp_path / "run", **options)) == 0
    rows = by_name(json.loads((tmp_path / "run" / "results.json").read_text()))
    assert list(rows)[:3] == ["lr", "bicubic", "frozen/conditional_unlabelled_learned"]
    for row in rows.values():
        assert RowKey.of(row).name == row["name"]
    key = RowKey("conditional", "frozen", "unlabelled", policy="oracle", budget=0.25)
    assert RowKey.of(rows["frozen/conditional_unlabelled_oracle_0.25"]) == key
    assert RowKey.of(rows["bicubic"]) == RowKey("bicubic")
    assert list(json.loads((tmp_path / "run" / "detections.json").read_text())["detections"]) == list(rows)
    assert (tmp_path / "run" / "overlays" / "frozen" / "conditional_unlabelled").is_dir()
    said = capsys.readouterr().out
    assert re.search(r"quality: 1/\d+, \d:\d\d:\d\d left, lr", said), "off a terminal there are lines instead of a bar"
    assert re.search(r"timing: 1/3, \d:\d\d:\d\d left", said)


def test_native_images(project: Project, tmp_path: Path):
    options = {"data.lr": "native", "run.precision": "bf16", "budgets": [0.25]}
    options |= {"systems": {"joint": project["joint"], "double": project["double"]}}
    options |= {"sliced": {"sahi": SLICED | {"weights": project["detector"]}}}
    assert main(project.arguments(tmp_path / "run", **options)) == 0
    rows = by_name(json.loads((tmp_path / "run" / "results.json").read_text()))
    assert rows["joint_oracle_0.25"]["kept_share"] == pytest.approx(0.25)
    assert {"sahi", "double"} <= rows.keys() and all(row["psnr"] is None for row in rows.values())


def test_latency_rows_of_every_system_that_the_profile_fits(project: Project, tmp_path: Path, capsys):
    profile, other = tmp_path / "latency.json", conditional(2)
    other.front.masker = Masker(16)
    other.front.patch = 16
    save(tmp_path / "other.pth", "system", other)
    measure = ["--weights", project["joint"], "--imgsz", "64", "--rounds", "1", "--device", "cpu"]
    assert latency.main([*measure, "--out", str(profile)]) == 0
    systems = {"frozen": project["frozen"], "other": str(tmp_path / "other.pth")}
    options = {"systems": systems, "profile": str(profile), "latencies": [1000], "budgets": [], "overlays": 0}
    assert main(project.arguments(tmp_path / "run", **options)) == 0
    rows = by_name(json.loads((tmp_path / "run" / "results.json").read_text()))
    assert rows["frozen_latency_1000"]["kept_share"] == 1 and "other_latency_1000" not in rows
    assert "other_learned" in rows and "for another architecture" in capsys.readouterr().out


def test_timing_tells_the_oracle_beforehand(project: Project):
    """What is timed gets a mask policy that knows its batch already."""
    config = parse_config(EvaluateConfig, "", project.arguments(Path("x"), systems={"joint": project["joint"]}))
    rows = {row.name: row for row in build_rows(config, NAMES)}
    spec = load_data_spec(str(project.data))
    dataset = DetectionDataset(scan_split(spec, "val")[0], spec.names, (64, 64), 2)
    batch = collate_detection([dataset[0], dataset[1]]).to("cpu")
    inputs = MethodInput.of(rows["joint_oracle_0.25"], batch)
    assert inputs.policy.coverage.shape == (2, 4, 4)
    mask = rows["joint_oracle_0.25"].method.super_resolve(*inputs).mask
    assert mask.flatten(1).sum(1).tolist() == [4, 4]
    assert MethodInput.of(rows["joint_edge_0.25"], batch).policy == rows["joint_edge_0.25"].policy


def test_a_halo_that_nothing_uses_is_said(project: Project, tmp_path: Path, capsys):
    options = {"systems": {"espcn": project["espcn"]}, "halo": 1, "limit": 1, "overlays": 0}
    assert main(project.arguments(tmp_path / "run", **options)) == 0
    assert "halo: no row has a masker, so 1 changes nothing" in capsys.readouterr().out
