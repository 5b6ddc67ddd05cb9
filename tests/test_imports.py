"""What runs or trains SR alone loads no detector library: looked at in a fresh process for each way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from models import build_sr
from tests.drawn import draw_photographs
from utils.checkpoint import save_network

ROOT = Path(__file__).resolve().parents[1]
CHECK = """
import sys
heavy = sorted(name for name in sys.modules if name.partition(".")[0] == "ultralytics")
assert not heavy, f"{len(heavy)} modules of Ultralytics are loaded, such as {heavy[0]}"
"""


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    network = build_sr("espcn", 2, {"n_feats": 4})
    path = tmp_path / "sr.pth"
    save_network(path, "sr", network.spec["name"], network.spec["args"], network.state_dict(), {})
    return path


def run(script: str, *options: str) -> None:
    """Run a script's main in a process of its own, which fails if Ultralytics is loaded at its end."""
    in_fresh_process(f"import sys, {script}\nassert {script}.main(sys.argv[1:]) == 0", *options)


def in_fresh_process(code: str, *options: str) -> None:
    command = [sys.executable, "-c", code + CHECK, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]


def test_inference_of_sr_alone(tmp_path: Path, weights: Path):
    images = draw_photographs(tmp_path / "images", images=1)
    run(
        "inference",
        "--sr-only",
        f"--weights={weights}",
        f"--source={images}",
        f"--out={tmp_path / 'out'}",
        "--device=cpu",
    )
    assert list((tmp_path / "out").rglob("*.png"))


def test_comparison_of_sr_networks(tmp_path: Path, weights: Path):
    images = draw_photographs(tmp_path / "images", images=1)
    options = [f"--weights={weights}", f"--hr={images}", "--scale=2", "--timing_runs=0", "--pictures=0", "--device=cpu"]
    run("evaluate", "sr", *options, f"--out={tmp_path / 'out'}")
    assert (tmp_path / "out" / "results.json").is_file()


def test_stage_2(tmp_path: Path):
    images = draw_photographs(tmp_path / "images", images=2)
    run(
        "stage2_pretrain_sr", f"--data.train=[{images}]", f"--data.val=[{images}]", "--scale=2", "--data.patch=8",
        "--data.samples_per_epoch=2", "--sr_fast.name=espcn", "--sr_fast.args={n_feats: 4}", "--sr_fast.weights=null",
        "--sr_quality.name=bicubic", "--sr_quality.args={}", "--sr_quality.weights=null", "--optim_fast.epochs=1",
        "--optim_fast.batch=2", "--run.device=cpu", f"--run.out={tmp_path / 'run'}",
    )  # fmt: skip
    assert (tmp_path / "run" / "sr_fast_pretrained.pth").is_file()


def test_the_check_sees_what_it_looks_for():
    with pytest.raises(AssertionError, match="modules of Ultralytics are loaded"):
        in_fresh_process("import models.detector_yolo")
