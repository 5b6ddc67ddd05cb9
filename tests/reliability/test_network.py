"""No program connects anywhere by itself: every `connect` of it and its children is seen by strace."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.drawn import draw_detection_set, draw_photographs
from tests.test_resume import ROOT, stage2_arguments

CONNECT = re.compile(r"connect\(\d+, \{sa_family=(AF_INET6?)[^}]*")


def connections(command: list[str], log: Path) -> list[str]:
    """Addresses outside this machine that a command tries to connect to; it has to succeed."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("YOLO_", "HF_", "PYTHONPATH"))
    }
    traced = ["strace", "-f", "-qq", "-e", "trace=connect", "-o", str(log), sys.executable, *command]
    done = subprocess.run(traced, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = [match[0] for match in CONNECT.finditer(log.read_text())]
    return [address for address in found if "127.0.0.1" not in address and "::1" not in address]


@pytest.mark.slow
def test_programs(tmp_path: Path, count, record):
    tried = count(0, 6)
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    photographs, data = draw_photographs(tmp_path / "p"), draw_detection_set(tmp_path / "s", images=4)
    commands = [
        ["inference.py", "--sr-only", "--source", str(photographs), "--out", str(tmp_path / "sr"), "--scale", "4"],
        stage2_arguments(photographs, tmp_path / "two"),
        ["stage1_pretrain_yolo.py", f"--run.out={tmp_path / 'one'}", "--run.device=cpu", f"--data.yaml={data}",
         "--data.imgsz=64", "--epochs=1", "--batch=4", "--run.workers=0"],
        ["inference.py", "--detector", str(tmp_path / "one" / "yolo_pretrained_hr.pth"), "--sr", "shipped",
         "--scale", "4", "--source", str(photographs), "--out", str(tmp_path / "boxes")],
        ["evaluate.py", "sr", "--weights", "bicubic", "--hr", str(photographs), "--scale", "4",
         "--out", str(tmp_path / "ev")],
        ["-m", "data.demo", "--out", str(tmp_path / "demo")],
    ][:tried]  # fmt: skip
    found = [connections(command, tmp_path / "log") for command in commands]
    note = "; ".join(address for addresses in found for address in addresses)[:200]
    record("Network", "programs without a connection", sum(not a for a in found), len(commands), note)
