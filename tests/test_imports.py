"""What runs or trains SR alone loads no detector library: looked at in a fresh process, after each way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import models.detector_yolo  # noqa: F401  what the check looks for
from models import build_sr
from tests.drawn import draw_photographs
from utils.checkpoint import save_network

ROOT = Path(__file__).resolve().parents[1]
CHECK = """
import sys
heavy = sorted(name for name in sys.modules if name.partition(".")[0] == "ultralytics")
assert not heavy, f"{len(heavy)} modules of Ultralytics are loaded, such as {heavy[0]}"
"""
RUNS = f"""
import importlib, json, sys
for script, *options in json.loads(sys.argv[1]):
    assert importlib.import_module(script).main(options) == 0
    exec({CHECK!r})
    print("no detector library after", script, *options[:1], flush=True)
"""


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    network = build_sr("espcn", 2, {"n_feats": 4})
    path = tmp_path / "sr.pth"
    save_network(path, "sr", network.spec["name"], network.spec["args"], network.state_dict(), {})
    return path


def test_inference_comparison_and_stage_2_of_sr_networks(tmp_path: Path, weights: Path):
    images, out = draw_photographs(tmp_path / "images", images=2), tmp_path / "out"
    options = [f"--weights={weights}", "--device=cpu", f"--out={out / 'inference'}"]
    inference = ["inference", "--sr-only", *options, f"--source={images}"]
    options = [f"--weights={weights}", "--device=cpu", f"--out={out / 'evaluate'}"]
    comparison = ["evaluate", "sr", *options, f"--hr={images}", "--scale=2", "--timing_runs=0", "--pictures=0"]
    stage2 = [
        "stage2_pretrain_sr", f"--data.train=[{images}]", f"--data.val=[{images}]", "--scale=2", "--data.patch=8",
        "--data.samples_per_epoch=2", "--sr_fast.name=espcn", "--sr_fast.args={n_feats: 4}", "--sr_fast.weights=null",
        "--sr_quality.name=bicubic", "--sr_quality.args={}", "--sr_quality.weights=null", "--optim_fast.epochs=1",
        "--optim_fast.batch=2", "--run.device=cpu", f"--run.out={out / 'stage2'}",
    ]  # fmt: skip
    command = [sys.executable, "-c", RUNS, json.dumps([inference, comparison, stage2])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    assert done.stdout.count("no detector library after") == 3
    assert list((out / "inference").rglob("*.png")) and (out / "evaluate" / "results.json").is_file()
    assert (out / "stage2" / "sr_fast_pretrained.pth").is_file()


def test_the_check_sees_what_it_looks_for():
    with pytest.raises(AssertionError, match="modules of Ultralytics are loaded"):
        exec(CHECK)
