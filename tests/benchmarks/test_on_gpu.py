"""What a GPU has to show runs in tiny form without one, and says so."""

from __future__ import annotations

import json
import subprocess

import pytest
import torch

from benchmarks import on_gpu
from utils.errors import UserError

LONG = pytest.param(["waits", "whole", "skipping"], marks=pytest.mark.slow)


@pytest.mark.parametrize("parts", [["equal"], LONG, pytest.param(["step"], marks=pytest.mark.slow)], ids=str)
def test_dry(tmp_path, capsys, parts):
    file = tmp_path / "dry.json"
    assert on_gpu.main(["--dry", "--json", str(file), "--parts", *parts]) == 0, capsys.readouterr().out
    results = json.loads(file.read_text())
    assert results["dry"] and list(dict.fromkeys(row["part"] for row in results["rows"])) == parts
    assert all(row["largest difference"] < 1e-3 for row in results["rows"] if row["part"] == "equal")


def test_it_ends_when_its_time_is_over_and_a_failed_part_is_a_row(tmp_path, monkeypatch, capsys):
    file = tmp_path / "dry.json"
    assert on_gpu.main(["--dry", "--json", str(file), "--limit", "0"]) == 0
    assert all(row["left out"] == "the time is over" for row in json.loads(file.read_text())["rows"])
    monkeypatch.setitem(on_gpu.PARTS, "equal", lambda setting, left: 1 / 0)
    assert on_gpu.main(["--dry", "--json", str(file), "--parts", "equal"]) == 1
    assert "failed ZeroDivisionError" in capsys.readouterr().out


@pytest.mark.parametrize(("status", "expected"), [(0, 0), (5, 0), (1, 1), (2, 1)])
def test_a_failed_test_fails_the_run(tmp_path, monkeypatch, status, expected):
    done = subprocess.CompletedProcess([], status, "1 failed\n", "")
    monkeypatch.setattr(on_gpu.subprocess, "run", lambda *args, **options: done)
    assert on_gpu.main(["--dry", "--json", str(tmp_path / "dry.json"), "--parts", "tests"]) == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_it_refuses(tmp_path):
    with pytest.raises(UserError, match="--dry"):
        on_gpu.main(["--json", str(tmp_path / "x.json")])
