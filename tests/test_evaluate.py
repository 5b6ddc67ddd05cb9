"""The evaluation script from end to end on a drawn data set with an untrained system: files, determinism, refusals."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from evaluate import main
from evaluation.detection_report import COLUMNS
from evaluation.map_bootstrap import weighted_map
from evaluation.matches_file import MATCHES, read_matches
from models import build_sr
from models.conditional_sr import ConditionalSR
from models.detector_yolo import YoloDetector
from models.execution import Execution
from models.masker import Masker
from models.single_sr import SingleSR
from models.system import ConditionalSRDetector
from tests.drawn import draw_detection_set
from utils.checkpoint import CheckpointError, save_network
from utils.config import ConfigError
from utils.flops_counter import count_parameters

NAMES = ("dark", "bright")
TINY = {  # a whole YOLO with strides 8, 16, 32, but quick
    "nc": 2,
    "backbone": [[-1, 1, "Conv", [width, 3, 2]] for width in (8, 16, 16, 32, 32)],
    "head": [[[2, 3, 4], 1, "Detect", ["nc"]]],
    "yaml_file": "tiny.yaml",
}
TIMES = ("sr_ms", "total_ms", "total_ms_p95", "peak_mem_mb")
ROWS = [
    *("hr", "lr", "bicubic", "bicubic_2x", "sr_fast", "sr_quality", "conditional_learned"),
    *(f"conditional_{kind}_{share}" for kind in ("budget", "random", "edge", "oracle") for share in (0.25, 0.5)),
    *("conditional_all_fast", "conditional_all_quality", "bicubic_retrained"),
]
KEYS = ["dataset", "split", "scale", "lr_protocol", "device", "dtype", "threads", "versions"]


def save(path: Path, kind: str, network: torch.nn.Module) -> str:
    save_network(path, kind, network.spec["name"], network.spec["args"], network.state_dict(), {"seed": 0})
    return str(path)


def talkative_detector(names: tuple[str, ...] = NAMES) -> YoloDetector:
    """An untrained detector that finds boxes of about 16 pixels everywhere, so that some hit an object."""
    detector = YoloDetector(TINY, names)
    with torch.no_grad():
        for scores, sides in zip(detector.head.cv3, detector.head.cv2, strict=True):
            scores[-1].weight.normal_(std=0.1)
            scores[-1].bias.fill_(-1.0)
            sides[-1].bias.view(4, -1)[:, 1] += 5.0  # one stride to each side
    return detector


@dataclass(frozen=True)
class Project:
    """A drawn data set and one checkpoint of every kind, scale 2."""

    folder: Path
    data: Path

    def __getitem__(self, name: str) -> str:
        return str(self.folder / f"{name}.pth")

    def arguments(self, out: Path, **changes: str) -> list[str]:
        options = {
            "run.out": out,
            "run.device": "cpu",
            "run.workers": "0",
            "data.yaml": self.data,
            "data.imgsz": "64",
            "data.scale": "2",
            "system": self["system"],
            "detector": self["detector"],
            "sr_fast": self["sr_fast"],
            "retrained": json.dumps({"bicubic_retrained": self["bicubic"]}),
            "budgets": "[0.25, 0.5]",
            "batch": "3",
            "timing_runs": "2",
            "overlays": "2",
        }
        return [f"--{key}={value}" for key, value in (options | changes).items() if value is not None]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    folder = tmp_path_factory.mktemp("project")
    data = draw_detection_set(folder / "set", images=4, size=(48, 64))
    torch.manual_seed(0)
    fast, quality = build_sr("espcn", 2), build_sr("edsr", 2, {"n_blocks": 1, "n_feats": 8})
    masker = Masker(8, bias=0.0)
    with torch.no_grad():
        masker.logits.weight.normal_(std=1.0)  # so that the learned mask is mixed
    detector = talkative_detector()
    save(folder / "sr_fast.pth", "sr", build_sr("espcn", 2))
    save(folder / "sr_x4.pth", "sr", build_sr("espcn", 4))
    save(folder / "detector.pth", "detector", talkative_detector())
    save(folder / "other_classes.pth", "detector", YoloDetector(TINY, ("cat", "dog", "cow")))
    save(
        folder / "system.pth",
        "system",
        ConditionalSRDetector(ConditionalSR(masker, fast, quality, Execution(halo=2)), detector),
    )
    yolo11n = YoloDetector("yolo11n.yaml", NAMES)
    save(folder / "bicubic.pth", "system", ConditionalSRDetector(SingleSR(build_sr("bicubic", 2)), yolo11n))
    return Project(folder, data)


@pytest.fixture(scope="module")
def finished(project: Project, tmp_path_factory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert main(project.arguments(out)) == 0
    return out, json.loads((out / "results.json").read_text())


def test_results_follow_the_schema(finished):
    results = finished[1]
    assert list(results)[:8] == KEYS
    assert (results["dataset"], results["split"], results["scale"], results["dtype"]) == ("set", "val", 2, "fp32")
    assert results["threads"] == torch.get_num_threads() and results["images"] == 4
    assert "bicubic" in results["lr_protocol"] and results["versions"]["torch"] == torch.__version__
    assert "evaluate.py --run.out=" in results["command"]
    assert [row["name"] for row in results["rows"]] == ROWS
    for row in results["rows"]:
        assert set(COLUMNS) <= row.keys()
        assert 0 <= row["map50_95"] <= row["map50"] <= 1
        assert 0 < row["total_ms"] <= row["total_ms_p95"]
        assert (row["kept_share"] is not None) == (row["system"] == "conditional") == (row["policy"] is not None)
        assert (row["sr_ms"] is None) == (row["sr_gmacs"] is None) == (row["name"] in ("hr", "lr"))
        assert (row["psnr"] is None) == (row["name"] in ("hr", "lr", "bicubic_2x"))
    assert any(row["map50"] > 0 for row in results["rows"]), "no box anywhere would compare nothing"


def test_shares_macs_and_parameters_add_up(project: Project, finished):
    rows = {row["name"]: row for row in finished[1]["rows"]}
    kept = {name: row["kept_share"] for name, row in rows.items()}
    for policy in ("budget", "random", "edge", "oracle"):
        assert kept[f"conditional_{policy}_0.25"] == pytest.approx(0.25)
        assert kept[f"conditional_{policy}_0.5"] == pytest.approx(0.5)
    assert (kept["conditional_all_fast"], kept["conditional_all_quality"]) == (0, 1)
    assert 0 < kept["conditional_learned"] < 1
    macs = {name: row["sr_gmacs"] for name, row in rows.items()}
    assert macs["conditional_all_fast"] < macs["conditional_random_0.25"] < macs["conditional_budget_0.25"]
    assert macs["conditional_budget_0.25"] < macs["conditional_budget_0.5"]
    assert macs["conditional_all_fast"] == macs["sr_fast"]
    assert macs["conditional_all_quality"] == pytest.approx(macs["sr_quality"])
    detector = count_parameters(YoloDetector(TINY, NAMES))
    fast, quality = count_parameters(build_sr("espcn", 2)), rows["sr_quality"]["params"] - detector
    assert rows["hr"]["params"] == rows["lr"]["params"] == rows["bicubic"]["params"] == detector
    assert rows["conditional_all_fast"]["params"] == detector + fast
    assert rows["conditional_random_0.25"]["params"] == detector + fast + quality
    assert rows["conditional_learned"]["params"] == detector + fast + quality + count_parameters(Masker(8))
    hr = rows["hr"]["total_gmacs"]
    assert rows["sr_fast"]["total_gmacs"] == pytest.approx(hr + macs["sr_fast"])
    assert rows["lr"]["total_gmacs"] == pytest.approx(hr / 4, rel=1e-3), "the detector sees a quarter of the pixels"


def test_matches_give_the_map_of_every_row(finished):
    out, results = finished
    once = torch.ones(1, results["images"], dtype=torch.float64)
    for row in results["rows"]:
        (found,) = weighted_map(read_matches(out / MATCHES, row["name"]), once)
        assert found.item() == pytest.approx(row["map50_95"], abs=1e-9)


def test_tables_and_pictures(finished):
    out, results = finished
    lines = (out / "table.md").read_text().splitlines()
    assert lines[0].startswith("set, split val: 4 images, x2, LR = HR shrunk")
    assert [line.split("|")[1].strip() for line in lines[4 : 4 + len(ROWS)]] == ROWS
    assert all("detector: " in row["runs"] for row in results["rows"])
    assert lines[5 + len(ROWS)].startswith("| rows ") and "fused oneDNN convolutions" in "".join(lines[7 + len(ROWS) :])
    with (out / "table.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["name"] for row in table] == ROWS
    assert float(table[0]["map50_95"]) == results["rows"][0]["map50_95"] and table[0]["kept_share"] == ""
    assert cv2.imread(str(out / "pareto.png")).shape[0] > 400
    overlays = sorted((out / "overlays").iterdir())
    assert [path.name for path in overlays] == ["00000_0.png", "00003_3.png"]
    height, width = cv2.imread(str(overlays[0])).shape[:2]
    assert height >= 384 and width >= 5 * 384, "LR, mask, SR, detections, ground truth"


def without_times(results: dict) -> list[dict]:
    return [{key: value for key, value in row.items() if key not in TIMES} for row in results["rows"]]


def test_two_runs_agree_to_the_last_bit(project: Project, finished, tmp_path: Path):
    arguments = {"timing_runs": "0", "overlays": "0", "run.seed": "5", "run.workers": "1"}
    assert main(project.arguments(tmp_path / "again", **arguments)) == 0
    again = json.loads((tmp_path / "again" / "results.json").read_text())
    assert without_times(again) == without_times(finished[1])
    assert all(row["total_ms"] is None and row["sr_ms"] is None for row in again["rows"])


def test_results_are_never_overwritten(project: Project, finished, capsys):
    out = finished[0]
    before = (out / "results.json").read_bytes()
    with pytest.raises((ConfigError, SystemExit), match="holds another run"):
        main(project.arguments(out))
    assert main(project.arguments(out, **{"run.resume": "true"})) == 0
    assert "already finished" in capsys.readouterr().out
    assert (out / "results.json").read_bytes() == before


def test_native_low_resolution_images_have_no_hr_row(project: Project, tmp_path: Path):
    options = {"data.lr": "native", "retrained": "{}", "budgets": "[]", "timing_runs": "0", "overlays": "1"}
    assert main(project.arguments(tmp_path / "native", **options, limit="2", sr_fast=None)) == 0
    results = json.loads((tmp_path / "native" / "results.json").read_text())
    names = [row["name"] for row in results["rows"]]
    assert names == [*ROWS[1:7], "conditional_all_fast", "conditional_all_quality"]
    assert results["images"] == 2 and all(row["psnr"] is None for row in results["rows"])


def test_lr_row_boxes_are_in_hr_pixels():
    from models.mask_policy import MaskPolicy
    from models.method import DetectorAlone

    class Fixed:
        """Finds one box that spans the unpadded LR image."""

        stride = 32

        def predict(self, images, conf, iou, max_det):
            assert images.shape == (1, 3, 32, 64) and torch.allclose(images[..., 24:, :], torch.tensor(114 / 255))
            return [torch.tensor([[0.0, 0.0, 40.0, 24.0, 0.5, 1.0]])]

    method = DetectorAlone(Fixed(), factor=2, sees_hr=False)
    boxes, output = method.predict(torch.zeros(1, 3, 24, 40), MaskPolicy("learned"), 0.001, 0.7, 300)
    assert boxes[0].tolist() == [[0, 0, 80, 48, 0.5, 1]] and output is None


@pytest.mark.parametrize(
    "changes, error, words",
    [
        (
            {"system": None, "detector": None},
            ValueError,
            "system: no checkpoint is given; stage3_finetune_joint.py writes it",
        ),
        ({"detector": "missing.pth"}, CheckpointError, "detector: missing.pth does not exist; give an Ultralytics .pt"),
        ({"sr_quality": "missing.pth"}, CheckpointError, "sr_quality: missing.pth does not exist; stage2_pretrain"),
        ({"detector": "@system"}, CheckpointError, "expected a checkpoint of kind 'detector', found 'system'"),
        ({"system": "@bicubic"}, ValueError, "has bicubic as front end and no masker; name it under `retrained`"),
        ({"detector": "@other_classes"}, ValueError, r"its classes are \['cat', 'dog', 'cow'\], the data set's are"),
        ({"data.scale": "4"}, ValueError, "system.pth: wrong scale checkpoint, it is for x2"),
        ({"sr_fast": "@sr_x4"}, ValueError, "sr_x4.pth: wrong scale checkpoint, it is for x4"),
        ({"data.imgsz": "70"}, ValueError, "multiple of 32 .* use 64"),
        ({"retrained": '{"bicubic": "@bicubic"}'}, ValueError, "retrained.bicubic: the table has a row of this name"),
        ({"retrained": '{"bicubic_2x": "@bicubic"}'}, ValueError, "retrained.bicubic_2x: the table has a row of this"),
        ({"data.yaml": "nowhere.yaml"}, FileNotFoundError, "data.yaml: 'nowhere.yaml' does not exist"),
        ({"split": "test"}, ValueError, "no split `test`"),
        ({"run.precision": "fp16"}, ValueError, "fp16 needs CUDA"),
    ],
)
def test_bad_input_is_refused(project: Project, tmp_path: Path, changes: dict, error: type, words: str):
    named = {key: value and value.replace("@bicubic", project["bicubic"]) for key, value in changes.items()}
    named = {key: project[value[1:]] if value and value[0] == "@" else value for key, value in named.items()}
    with pytest.raises(error, match=words):
        main(project.arguments(tmp_path / "run", **named))
    assert not (tmp_path / "run").exists(), "a refused run leaves nothing behind"


def test_truncated_checkpoint_is_named(project: Project, tmp_path: Path):
    short = tmp_path / "short.pth"
    short.write_bytes(Path(project["detector"]).read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"short.pth: .*truncated"):
        main(project.arguments(tmp_path / "run", detector=str(short)))


def test_a_detector_alone_needs_no_system(project: Project, tmp_path: Path, capsys):
    """A plain state dict, shipped SR networks, and bicubic images of 1.5 instead of 2 times the size."""
    plain = tmp_path / "deployed.pt"
    torch.save(YoloDetector("yolov8n.yaml", NAMES).net.half().state_dict(), plain)
    changes = {"system": None, "detector": str(plain), "sr_fast": None, "retrained": None, "data.scale": "4"}
    changes |= {"data.imgsz": "128", "baselines": "[hr, bicubic, bicubic_1.5x, sr_fast, sr_quality]", "limit": "2"}
    assert main(project.arguments(tmp_path / "run", **changes, timing_runs="0")) == 0
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["hr", "bicubic", "bicubic_1.5x", "sr_fast", "sr_quality"]
    assert [row["upscale"] for row in rows] == [1, 1, 1.5, 1, 1] and rows[3]["params"] < rows[4]["params"]
    assert "a state dict of yolov8n.yaml with 2 classes" in capsys.readouterr().out


def test_nothing_is_shipped_for_x3(project: Project, tmp_path: Path, capsys):
    changes = {"system": None, "sr_fast": None, "retrained": None, "data.scale": "3", "data.imgsz": "96"}
    assert main(project.arguments(tmp_path / "run", **changes, limit="1", timing_runs="0")) == 0
    assert "sr_quality: nothing is shipped for x3, so there is no such row" in capsys.readouterr().out
    with pytest.raises(ValueError, match="only for x2, x4; name bicubic or a weight file"):
        main(project.arguments(tmp_path / "other", **changes | {"sr_fast": "shipped"}))


def test_a_larger_size_that_does_not_fit_is_filled_up(project: Project, tmp_path: Path):
    """1.5 times 96 is 144, which the detector sees in 160; x3 times 1.5 is not whole: two interpolations."""
    changes = {"system": None, "sr_fast": None, "retrained": None, "data.scale": "3", "data.imgsz": "96"}
    changes |= {"baselines": "[bicubic, bicubic_1.5x]", "limit": "1"}
    assert main(project.arguments(tmp_path / "run", **changes, timing_runs="1")) == 0
    plain, larger = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    assert (larger["upscale"], larger["name"]) == (1.5, "bicubic_1.5x") and larger["sr_gmacs"] > plain["sr_gmacs"]
    detector = [row["total_gmacs"] - row["sr_gmacs"] for row in (plain, larger)]
    assert detector[1] / detector[0] == pytest.approx((160 / 96) ** 2, rel=0.02)


def test_empty_split(project: Project, tmp_path: Path):
    data = tmp_path / "set"
    shutil.copytree(project.data.parent, data)
    for image in (data / "images" / "val").iterdir():
        image.unlink()
    with pytest.raises(ValueError, match="holds no image"):
        main(project.arguments(tmp_path / "run", **{"data.yaml": str(data / "data.yaml")}))


def test_images_stay_as_they_are(project: Project, finished):
    fresh = project.folder / "fresh"
    draw_detection_set(fresh, images=4, size=(48, 64))
    for path in sorted(fresh.rglob("*.png")):
        assert np.array_equal(cv2.imread(str(path)), cv2.imread(str(project.data.parent / path.relative_to(fresh))))
    assert yaml.safe_load(project.data.read_text()) == yaml.safe_load((fresh / "data.yaml").read_text())
