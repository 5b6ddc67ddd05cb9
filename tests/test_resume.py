"""Killed by SIGKILL at any time and resumed, stages 2 and 3 end with bit-identical weights and metrics."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.drawn import draw_detection_set, draw_photographs

ROOT = Path(__file__).resolve().parents[1]
KILLS = 3


def stage2_arguments(data: Path, out: Path) -> list[str]:
    return [
        "stage2_pretrain_sr.py", f"--run.out={out}", "--run.device=cpu", "--run.threads=1", "--run.workers=1",
        "--run.checkpoint_every=1", "--run.log_every=2", "--scale=2", f"--data.train=[{data}]", f"--data.val=[{data}]",
        "--data.patch=12", "--data.samples_per_epoch=24", "--sr_fast.name=espcn", "--sr_fast.args={n_feats: 8}",
        "--sr_quality.name=edsr", '--sr_quality.args={"n_blocks": 1, "n_feats": 4}', "--val_every=2",
        "--optim_fast.epochs=2", "--optim_fast.batch=4", "--optim_quality.epochs=2", "--optim_quality.batch=4",
        "--optim_quality.ema=0.9",
    ]  # fmt: skip


def stage3_arguments(data: Path, out: Path) -> list[str]:
    return [
        "stage3_finetune_joint.py", f"--run.out={out}", "--run.device=cpu", "--run.threads=1", "--run.workers=1",
        "--run.checkpoint_every=1", "--run.log_every=2", f"--data.yaml={data}", "--data.imgsz=64", "--data.scale=2",
        "--sr_fast.name=espcn", "--sr_fast.args={n_feats: 8}",
        "--sr_quality.name=edsr", '--sr_quality.args={"n_blocks": 1, "n_feats": 4}',
        "--masker.patch=8", "--optim.epochs=3", "--optim.batch=4", "--optim.micro_batch=2", "--optim.warmup=2",
        "--optim.ema=0.9", "--augment.mosaic=0.5", "--augment.scale=0.2", "--val_every=3", "--val_images=1",
        "--freeze_bn=false",
    ]  # fmt: skip


RECIPE = [
    "--data.label_share=0.5", "--data.unlabelled=true", "--losses.distill=1", "--losses.distill_outputs=0.5",
    "--losses.hr_share=0.3", "--masker.budget_dropout=[0.1, 0.8]", "--masker.train=tiles",
]  # fmt: skip


def start(arguments: list[str], resume: bool) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    flag = ["--run.resume=true"] if resume else []
    return subprocess.Popen(
        [sys.executable, *arguments, *flag], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(process: subprocess.Popen) -> None:
    output = process.communicate(timeout=240)[0].decode()
    assert process.returncode == 0, output


def kill_after_progress(process: subprocess.Popen, folder: Path, chance: random.Random) -> bool:
    """SIGKILL at a random instant within the next few checkpoints; False if the run ended before."""
    seen, changes, wanted = None, 0, chance.randint(1, 3)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        stamps = {str(p): p.stat().st_mtime_ns for p in folder.rglob("last.pth") if p.exists()}
        if stamps and stamps != seen:
            changes, seen = changes + 1, stamps
            # The first stamps may be those of the previous life.
            if changes > wanted:
                time.sleep(chance.random() * 0.05)
                process.send_signal(signal.SIGKILL)
                process.wait()
                return True
        time.sleep(0.002)
    process.wait()
    return False


def final_weights(folder: Path, names: list[str]) -> list[dict]:
    return [torch.load(folder / name, weights_only=True)["weights"] for name in names]


def logged(folder: Path) -> list[list[dict]]:
    """Every metrics.jsonl, without wall-clock fields."""
    return [
        [{k: v for k, v in json.loads(line).items() if k != "time"} for line in path.read_text().splitlines()]
        for path in sorted(folder.rglob("metrics.jsonl"))
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "options"), [(2, []), (3, []), (3, RECIPE)], ids=["2", "3", "3-recipe"])
def test_kills_leave_no_trace(tmp_path: Path, stage: int, options: list[str]):
    if stage == 2:
        data, arguments = draw_photographs(tmp_path / "photos"), stage2_arguments
        names = ["sr_fast_pretrained.pth", "sr_quality_pretrained.pth"]
    else:
        data, arguments = draw_detection_set(tmp_path / "set", images=10), stage3_arguments
        names = ["conditional_sr_yolo_jointly_tuned.pth"]
    finish(start([*arguments(data, tmp_path / "whole"), *options], resume=False))
    chance, kills = random.Random(stage), 0
    for life in range(KILLS):
        process = start([*arguments(data, tmp_path / "killed"), *options], resume=life > 0)
        kills += kill_after_progress(process, tmp_path / "killed", chance)
    assert kills >= 2, "the runs ended before they could be killed"
    finish(start([*arguments(data, tmp_path / "killed"), *options], resume=True))
    for whole, killed in zip(
        final_weights(tmp_path / "whole", names), final_weights(tmp_path / "killed", names), strict=True
    ):
        assert whole.keys() == killed.keys()
        for name, value in whole.items():
            assert torch.equal(value, killed[name]), name
    assert logged(tmp_path / "whole") == logged(tmp_path / "killed")
