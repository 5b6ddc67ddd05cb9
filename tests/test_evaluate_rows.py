"""Further kinds of rows from end to end: several systems, oracle, HR detectors, larger input, slices, detections."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import stage3_finetune_joint as stage3
from configs.evaluate_schema import EvaluateConfig, SlicedConfig
from data.detection import DetectionDataset, load_data_spec, scan_split
from data.detection_batch import collate_detection
from evaluate import main
from evaluation import measure_rows
from evaluation.build_rows import build_rows
from evaluation.measure_rows import MethodInput
from evaluation.pareto import draw_pareto
from evaluation.row_key import RowKey
from loading.systems import load_system
from models import build_sr
from models.conditional_sr import ConditionalSR
from models.execution import Execution
from models.mask_policy import parse_policy
from models.masker import Masker
from models.single_sr import SingleSR
from models.system import ConditionalSRDetector
from prediction.predictor import PredictOptions, Predictor
from tests.drawn import draw_detection_set
from tests.extras import needs
from tests.test_evaluate import NAMES, TINY, save, talkative_detector
from tools import latency
from utils.checkpoint import CheckpointError
from utils.config import ConfigError, load_config, parse_config, save_config
from utils.flops_counter import count_macs_at, count_parameters
from utils.progress import ProgressBar

POLICIES = [
    "learned",
    *(f"{kind}_{share}" for kind in ("budget", "random", "edge", "oracle") for share in (0.25, 0.5)),
    "all_fast",
    "all_quality",
]
SLICED = {"weights": "", "rows": 2, "columns": 2, "overlap": 0.2, "full": True}


def conditional(seed: int) -> ConditionalSRDetector:
    torch.manual_seed(seed)
    masker = Masker(8, bias=0.0)
    with torch.no_grad():
        masker.logits.weight.normal_()
    fast, quality = build_sr("espcn", 2), build_sr("edsr", 2, {"n_blocks": 1, "n_feats": 8})
    front = ConditionalSR(masker, fast, quality, Execution(halo=2))
    return ConditionalSRDetector(front, talkative_detector())


@dataclass(frozen=True)
class Project:
    """A drawn data set, scale 2, canvas 64, with checkpoints of stage 1 and stage 3."""

    folder: Path
    data: Path

    def __getitem__(self, name: str) -> str:
        return str(self.folder / f"{name}.pth")

    def arguments(self, out: Path, **options) -> list[str]:
        common = {"run.out": out, "run.device": "cpu", "run.workers": 0, "data.yaml": self.data, "data.imgsz": 64}
        common |= {"data.scale": 2, "budgets": [0.25, 0.5], "batch": 3, "timing_runs": 0, "overlays": 1}
        texts = {key: json.dumps(v) if isinstance(v, dict | list) else v for key, v in (common | options).items()}
        return [f"--{key}={value}" for key, value in texts.items()]

    def train(self, name: str, *options: str) -> None:
        """One epoch of stage 3 in mode detector_only."""
        out = self.folder / name
        model = self.folder / "tiny.yaml"
        model.write_text(yaml.safe_dump(TINY))
        arguments = [
            f"--run.out={out}", "--run.device=cpu", "--run.workers=0", f"--data.yaml={self.data}", "--data.imgsz=64",
            "--data.scale=2", "--mode=detector_only", f"--detector.model={model}", "--optim.epochs=1",
            "--optim.batch=4", "--val_images=1", *options,
        ]  # fmt: skip
        assert stage3.main(arguments) == 0
        (out / stage3.OUTPUT).rename(self[name])


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    folder = tmp_path_factory.mktemp("project")
    made = Project(folder, draw_detection_set(folder / "set", images=4, size=(48, 64)))
    save(folder / "joint.pth", "system", conditional(0))
    save(folder / "frozen.pth", "system", conditional(1))
    save(folder / "detector.pth", "detector", talkative_detector())
    save(folder / "espcn.pth", "system", ConditionalSRDetector(SingleSR(build_sr("espcn", 2)), talkative_detector()))
    made.train("hr", "--sr=hr")
    made.train("double", "--sr=bicubic", "--upscale=2")
    return made


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


def by_name(results: dict) -> dict[str, dict]:
    return {row["name"]: row for row in results["rows"]}


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


def test_boxes_of_the_double_canvas_are_in_canvas_pixels(project: Project):
    """Boxes of the system are half of what its detector says of an image twice as large."""
    spec = load_data_spec(str(project.data))
    dataset = DetectionDataset(scan_split(spec, "val")[0], spec.names, (64, 64), 2)
    double, seen = load_system(project["double"]), torch.from_numpy(np.stack([dataset[0]["lr"]])).float() / 255
    boxes, output = double.predict(seen, None, conf=0.0001)
    assert output.sr.shape[-2:] == (128, 128)
    inside = double.detector.predict(output.sr, conf=0.0001)[0]
    torch.testing.assert_close(boxes[0][:, :4] * 2, inside[:, :4])


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


@pytest.mark.parametrize(("given", "expected"), [("null", 2), ("0", 0), ("3", 3), ("exact", None)])
def test_the_halo_of_an_evaluation_is_that_of_all_its_systems(project: Project, given: str, expected: int | None):
    systems = {"joint": project["joint"], "frozen": project["frozen"], "espcn": project["espcn"]}
    config = parse_config(EvaluateConfig, "", project.arguments(Path("x"), systems=systems, halo=given))
    rows = build_rows(config, NAMES)
    assert {row.method.front.execution.halo for row in rows if row.conditional} == {expected}
    assert any(not row.conditional for row in rows), "systems without a masker have no halo to set"


def test_a_halo_that_nothing_uses_is_said(project: Project, tmp_path: Path, capsys):
    options = {"systems": {"espcn": project["espcn"]}, "halo": 1, "limit": 1, "overlays": 0}
    assert main(project.arguments(tmp_path / "run", **options)) == 0
    assert "halo: no row has a masker, so 1 changes nothing" in capsys.readouterr().out


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


@pytest.mark.parametrize(
    "sliced, words",
    [
        ("{a: {weights: x, row: 2}}", "sliced.a: unknown key 'row'; did you mean rows?"),
        ("{a: {zzz: 2}}", "sliced.a: unknown key 'zzz'; valid keys here: weights, rows, columns"),
        ("{a: 3}", "sliced.a must be a mapping of the keys weights, rows"),
        ("{a: {rows: two}}", "sliced.a.rows must be a whole number, found 'two'"),
        ("{a: {rows: 0}}", "sliced.a.rows must be at least 1"),
        ("{a: {overlap: 1.0}}", "sliced.a.overlap must be at most 0.9"),
        ("{a: {match: union}}", "sliced.a.match must be one of ios, iou"),
        ("[1]", "sliced must be a mapping"),
    ],
)
def test_faulty_slices_are_named(tmp_path: Path, sliced: str, words: str, capsys):
    (tmp_path / "c.yaml").write_text(f"limit: 3\nsliced: {sliced}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(EvaluateConfig, tmp_path / "c.yaml")
    assert f"c.yaml:2: {words}" in str(caught.value)
    with pytest.raises(SystemExit):
        parse_config(EvaluateConfig, "", [f"--sliced={sliced}"])
    assert f"--{words}" in capsys.readouterr().err


def test_slices_survive_saving_and_help(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")  # whatever terminal the tests are run from
    (tmp_path / "c.yaml").write_text("sliced: {sahi/2: {weights: a.pth, columns: 3}}\n")
    config = load_config(EvaluateConfig, tmp_path / "c.yaml")
    assert config.sliced == {"sahi/2": SlicedConfig("a.pth", columns=3)}
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(EvaluateConfig, tmp_path / "saved.yaml") == config
    one = parse_config(EvaluateConfig, "", ["--config", str(tmp_path / "c.yaml"), "--sliced.b", "{weights: b.pth}"])
    assert one.sliced == config.sliced | {"b": SlicedConfig("b.pth")}
    with pytest.raises(SystemExit) as end:
        parse_config(EvaluateConfig, "x", ["--config", str(tmp_path / "c.yaml"), "--help"])
    assert end.value.code == 0 and '"sahi/2": {"weights": "a.pth", "rows": 2, "columns": 3' in capsys.readouterr().out


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
