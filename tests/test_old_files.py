"""Files of an earlier version (tests/fixtures/README.md) load with today's code, and give what they gave then.

Keys, stored weights and masks must be equal, masks because the networks' scores keep away from the thresholds. Where a
processor other than the one that made the files computes anew, sums are rounded in another order; the tolerances below
are for that.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate.state import AcceleratorState

import compare
import evaluate
import inference
import stage2_pretrain_sr
import stage3_finetune_joint
from deployment.latency_profile import architecture_fingerprint, load_profile
from evaluation.row_key import RowKey
from loading.cmsr_files import load_tables, use_tables
from loading.load_sr import load_sr
from loading.systems import load_detector_checkpoint, load_system
from models.mask_policy import parse_policy
from utils.checkpoint import load_network

OLD = Path(__file__).resolve().parent / "fixtures" / "old"
CONF = 0.02  # with which the boxes were found
PIXEL = 2e-5  # SR images in [0, 1], a few layers of fp32 sums
BOX = 0.02  # pixels, and a hundredth of it for scores
STAGE2 = sorted(file.relative_to(OLD).as_posix() for file in OLD.glob("stage2/*.pth"))
STAGE3 = sorted(file.relative_to(OLD).as_posix() for file in OLD.glob("stage3/*/*.pth"))
NETWORKS = ["stage1/yolo_pretrained_hr.pth", "lm_liif.pth", *STAGE2, *STAGE3]
SYSTEM = "stage3/conditional/conditional_sr_yolo_jointly_tuned.pth"


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    with np.load(OLD / "expected.npz") as file:
        return dict(file)


@pytest.fixture
def old(tmp_path: Path, monkeypatch) -> Path:
    """A copy to work in, as the working folder; accelerate forgets the run before."""
    shutil.copytree(OLD, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    AcceleratorState._reset_state(reset_partial_state=True)
    return tmp_path / "old"


@pytest.fixture
def lr(expected) -> torch.Tensor:
    return torch.from_numpy(expected["lr"]).float() / 255


def load(file: str) -> torch.nn.Module:
    """The network of a checkpoint, by the loader of its stage."""
    loaders = {"stage1": load_detector_checkpoint, "stage3": load_system}
    return loaders.get(file.partition("/")[0], load_sr)(OLD / file)


def assert_close(found, known: np.ndarray, tolerance: float) -> None:
    found = np.asarray(found)
    assert found.shape == known.shape and found.dtype == known.dtype
    np.testing.assert_allclose(found, known, rtol=0, atol=tolerance)


def assert_same_boxes(found: np.ndarray, known: np.ndarray) -> None:
    """(n, 6), best first."""
    assert_close(found[:, :4], known[:, :4], BOX)
    assert_close(found[:, 4], known[:, 4], BOX / 100)
    assert np.array_equal(found[:, 5], known[:, 5])


# ----------------------------------------------------------------------------------------------------------- networks


def test_there_is_a_file_of_every_kind():
    assert {Path(file).name for file in NETWORKS} >= {
        "yolo_pretrained_hr.pth", "sr_fast_pretrained.pth", "sr_fast_best.pth", "sr_quality_pretrained.pth",
        "sr_quality_best.pth", "conditional_sr_yolo_jointly_tuned.pth",
    }  # fmt: skip
    assert {Path(file).parent.name for file in STAGE3} == {"conditional", "tiles", "bicubic_2x", "sr_fast", "hr"}


@pytest.mark.parametrize("file", NETWORKS)
def test_every_tensor_arrives(file: str):
    stored, network = load_network(OLD / file)["weights"], load(file)
    state = network.state_dict()
    assert state.keys() == stored.keys() and not network.training
    assert all(torch.equal(state[key], stored[key]) for key in stored)


@pytest.mark.parametrize("file", NETWORKS)
def test_the_network_describes_itself_as_it_did(file: str):
    """So a file written today can be read by whoever reads the old ones."""
    payload, spec = load_network(OLD / file), load(file).spec
    assert (spec["name"], spec["args"]) == (payload["name"], payload["args"])


@pytest.mark.parametrize("file", STAGE2)
def test_sr_networks_give_the_same_images(file: str, expected, lr):
    with torch.no_grad():
        assert_close(load_sr(OLD / file)(lr)[..., ::2, ::2], expected[f"{file}:sr"], PIXEL)


def test_the_detector_finds_the_same(expected, lr):
    boxes = load_detector_checkpoint(OLD / "stage1/yolo_pretrained_hr.pth").predict(doubled(lr), conf=CONF)[0]
    assert len(boxes) > 0
    assert_same_boxes(boxes.numpy(), expected["stage1/yolo_pretrained_hr.pth:boxes"])


@pytest.mark.parametrize("file", STAGE3)
def test_systems_give_the_same_images_masks_and_boxes(file: str, expected, lr):
    system = load_system(OLD / file)
    assert system.sees_hr == ("/hr/" in file) and system.scale == (1 if system.sees_hr else 2)
    policies = sorted({key.split(":")[1] for key in expected if key.startswith(f"{file}:")})
    masker = "/conditional/" in file or "/tiles/" in file
    assert len(policies) == (7 if masker else 1)
    shares = set()
    for policy in policies:
        boxes, output = system.predict(doubled(lr) if system.sees_hr else lr, parse_policy(policy), conf=CONF)
        key = f"{file}:{policy}"
        assert_same_boxes(boxes[0].numpy(), expected[f"{key}:boxes"])
        if f"{key}:sr" in expected:
            assert_close(output.sr[..., ::2, ::2], expected[f"{key}:sr"], PIXEL)
        if masker:
            assert np.array_equal(output.mask.numpy() > 0.5, expected[f"{key}:mask"]), policy
            shares.add(float(output.mask.mean()))
        else:
            assert output.mask is None
    assert not masker or shares >= {0.0, 0.25, 1.0}


def doubled(lr: torch.Tensor) -> torch.Tensor:
    """An HR image that is the same on every machine."""
    return F.interpolate(lr, scale_factor=2)


# -------------------------------------------------------------------------------------------------- tables, profiles


def test_cmsr_tables_belong_to_their_network_and_render_the_same(expected, lr):
    network = load_sr(OLD / "lm_liif.pth")
    with torch.no_grad():
        assert_close(network(lr, (40, 60))[..., ::2, ::2], expected["lm_liif.pth:sr"], PIXEL)
        network = use_tables(network, OLD / "lm_liif_cmsr.yaml")
        assert_close(network(lr, (96, 144))[..., ::4, ::4], expected["lm_liif.pth:cmsr"], PIXEL)
    assert load_tables(OLD / "lm_liif_cmsr.yaml").tables.keys() == {6, 8}


def test_a_latency_profile_is_of_its_system_and_allows_the_same_shares(expected):
    profile = load_profile(OLD / "latency.json")
    assert profile.system == architecture_fingerprint(load_system(OLD / SYSTEM))
    for limit, share in expected["latency.json:shares"].tolist():
        assert profile.largest_share(limit, 16, 24) == share
    assert len(set(expected["latency.json:shares"][:, 1])) == 3


# ---------------------------------------------------------------------------------------------- runs that go on or end


@pytest.mark.parametrize("run", ["stage2", "stage3", "stage3_recipe"])
def test_an_interrupted_run_goes_on_to_the_same_end(run: str, old: Path, expected):
    folder = Path("interrupted") / run
    main, name, state = stage3_finetune_joint.main, "conditional_sr_yolo_jointly_tuned.pth", folder / "checkpoints"
    if run == "stage2":
        main, name, state = stage2_pretrain_sr.main, "sr_quality_pretrained.pth", folder / "sr_quality" / "checkpoints"
    done = torch.load(state / "last.pth", weights_only=True)["step"]
    assert main(["--config", str(folder / "config.yaml"), "--run.resume=true"]) == 0
    log = [json.loads(line) for line in (state.parent / "metrics.jsonl").read_text().splitlines()]
    assert 0 < done < log[-1]["step"] and [line["step"] for line in log] == sorted(line["step"] for line in log)
    weights = load_network(folder / name)["weights"]
    ended = f"ended/{run}/{name}:"
    assert weights.keys() == {key.removeprefix(ended) for key in expected if key.startswith(ended)}
    differences = np.concatenate(
        [np.abs(value.double().numpy() - expected[f"{ended}{key}"]).ravel() for key, value in weights.items()]
    )
    # Adam divides by the gradient's size: where a gradient is rounding alone, a weight may go another way, by as much
    # as its learning rate of 1e-3 a step. A run that forgot its moments or its place would miss with most weights.
    assert np.quantile(differences, 0.98) < 2e-5 and differences.max() < 5e-3


def test_a_finished_evaluation_is_shown_again(old: Path, capsys):
    assert evaluate.main(["--config", "evaluate/config.yaml", "--run.resume=true"]) == 0
    printed = capsys.readouterr().out
    lines = [line for line in Path("evaluate/table.md").read_text().splitlines() if line.startswith("|")]
    assert len(lines) > 20 and all(line in printed for line in lines) and "already finished" in printed


def test_the_same_rows_have_the_same_figures(old: Path):
    """evaluate.py once more, with the configuration of then."""
    assert evaluate.main(["--config", "evaluate/config.yaml", "--run.out=again", "--timing_runs=0"]) == 0
    then, now = (json.loads(Path(folder, "results.json").read_text())["rows"] for folder in ("evaluate", "again"))
    assert [row["name"] for row in now] == [row["name"] for row in then]
    tolerances = {"params": 0, "sr_gmacs": 1e-9, "total_gmacs": 1e-9, "kept_share": 0, "psnr": 1e-3}
    # A box that a rounded score puts before or behind another moves the mAP of eight objects by some hundredths.
    tolerances |= {"map50_95": 0.03, "map50": 0.05, "kept_inside": 0.02, "kept_outside": 0.02}
    for old_row, row in zip(then, now, strict=True):
        for key, tolerance in tolerances.items():
            assert row[key] == pytest.approx(old_row[key], abs=tolerance), (row["name"], key)


def split_at_claims(page: str) -> tuple[str, str, str]:
    """What stands before the claims, the claims, and what stands behind them."""
    before, _, rest = page.partition("## Claims\n")
    claims, title, behind = rest.partition("\n## ")
    return before, claims, title + behind


def test_a_comparison_is_reported_again(old: Path):
    then = {name: Path("compare", name).read_text() for name in ("table.md", "results.json")}
    for name in then:
        Path("compare", name).unlink()
    assert compare.main(["report", "--run", "compare"]) == 0
    old_page, page = (split_at_claims(text) for text in (then["table.md"], Path("compare/table.md").read_text()))
    assert page[0] == old_page[0] and set(old_page[2].splitlines()) <= set(page[2].splitlines()), "nothing is lost"
    assert "| undecided" in page[1] and "| yes" not in page[1], "without intervals nothing is decided"
    before, now = json.loads(then["results.json"]), json.loads(Path("compare/results.json").read_text())
    for rows, old_rows in [
        (now["rows"], before["rows"]),
        *((now["sweep"][s], before["sweep"][s]) for s in now["sweep"]),
    ]:
        for row, old_row in zip(rows, old_rows, strict=True):
            assert RowKey.of(row).name == row["name"] == old_row["name"]
            assert {key: row[key] for key in old_row} == old_row, "rows have gained the fields of a record"
    kept_out = {"rows": 0, "sweep": 0, "claims": 0, "claim_seeds": 0}  # verdicts follow today's rule
    assert now | kept_out == before | kept_out


def test_inference_finds_the_same(old: Path):
    argv = ["--weights", SYSTEM, "--source", "data/images/val", "--policy", "budget=0.25", "--conf", str(CONF)]
    argv += ["--save_json=true", "--save_images=false", "--device", "cpu", "--out", "again"]
    assert inference.main(argv) == 0
    then, now = (json.loads(Path(folder, "predictions.json").read_text()) for folder in ("inference", "again"))
    assert len(then) == len(now) == 4 and sum(len(entry["detections"]) for entry in then) > 4
    for old_entry, entry in zip(then, now, strict=True):
        for key in ("file", "width", "height", "kept_share"):
            assert entry[key] == old_entry[key]
        assert len(entry["detections"]) == len(old_entry["detections"])
        for known, found in zip(old_entry["detections"], entry["detections"], strict=True):
            assert found.keys() == known.keys() and found["class"] == known["class"]
            assert found["box"] == pytest.approx(known["box"], abs=BOX)
            assert found["score"] == pytest.approx(known["score"], abs=BOX / 100)
