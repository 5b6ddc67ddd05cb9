"""Two CPU processes (gloo), BatchNorm frozen, follow the same loss curve as one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.drawn import draw_detection_set

ROOT = Path(__file__).resolve().parents[1]


def losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["train/total"] for row in rows if "train/total" in row]


@pytest.mark.slow
def test_two_processes_follow_one(tmp_path: Path):
    data = draw_detection_set(tmp_path / "set", images=8)
    curves = {}
    for processes in (1, 2):
        out = tmp_path / f"p{processes}"
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        command = [
            sys.executable, *launch, "stage3_finetune_joint.py", f"--run.out={out}", "--run.device=cpu",
            "--run.threads=1", "--run.workers=0", "--run.log_every=1", f"--data.yaml={data}", "--data.imgsz=64",
            "--data.scale=2", "--sr_fast.name=espcn", "--sr_quality.name=edsr",
            '--sr_quality.args={"n_blocks": 1, "n_feats": 4}', "--masker.patch=8", "--optim.epochs=3",
            "--optim.batch=4", "--optim.micro_batch=2", "--optim.lr=1e-3", "--optim.warmup=1", "--val_images=0",
            "--freeze_bn=true",
        ]  # fmt: skip
        result = subprocess.run(
            command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240
        )
        assert result.returncode == 0, result.stdout + result.stderr
        curves[processes] = losses(out)
    assert len(curves[1]) == 6
    assert curves[1] == pytest.approx(curves[2], abs=1e-4, rel=1e-5)
    assert max(curves[1]) - min(curves[1]) > 1e-3, "a flat curve would compare nothing"
