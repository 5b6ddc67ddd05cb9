"""The ablation runner at toy size: one setting changes at a time, one table, and nothing is trained twice."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from benchmarks.difiisr_ablation import BASE, main, variants
from tests.drawn import draw_photographs
from training.tasks.difiisr_dwt import DiffusionTask

TOY = {"predict": "residual", "channels": 8, "mult": "1", "n_blocks": 1, "swin_depth": 1, "swin_dim": 32, "window": 2}


def test_each_variant_changes_one_setting():
    found = variants(["haar", "db2"], [1, 2], [5, 15], [1.0, 2.0])
    assert list(found) == ["base", "wavelet db2", "levels 1", "timesteps 5", "kappa 1"]
    assert all(len(args.items() - BASE.items()) == 1 for name, args in found.items() if name != "base")


def test_one_table_of_all(tmp_path: Path, monkeypatch, capsys):
    images = draw_photographs(tmp_path / "images")
    config = {"scale": 4, "sr_quality": {"name": "difiisr_dwt", "args": TOY}, "difiisr_dwt": {"measured_patches": 4},
              "run": {"workers": 0}}  # fmt: skip
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(config))
    steps, losses = [], DiffusionTask.losses

    def count(self, batch, progress):
        steps.append(progress.step)
        return losses(self, batch, progress)

    monkeypatch.setattr(DiffusionTask, "losses", count)
    arguments = [
        "--train", str(images), "--val", str(images), "--out", str(tmp_path / "out"), "--config",
        str(tmp_path / "toy.yaml"), "--wavelets", "--levels", "--steps", "5", "--kappas", "--sampling", "1",
        "--epochs=1", "--samples=4", "--batch=2", "--patch=4", "--limit=1", "--device=cpu", "--threads=1",
    ]  # fmt: skip
    assert main(arguments) == 0
    rows = {row["changed"]: row for row in json.loads((tmp_path / "out" / "ablation.json").read_text())}
    assert list(rows) == ["bicubic", "base", "base, sampling 1", "timesteps 5"]
    assert all(row["psnr"] > 10 and 0 < row["ssim"] <= 1 and row["lpips"] is None for row in rows.values())
    assert rows["timesteps 5"]["gmacs"] == rows["base"]["gmacs"] > 0
    assert [row["args"]["steps"] for row in rows.values() if "args" in row] == [15, 1, 5]
    text = (tmp_path / "out" / "ablation.md").read_text()
    assert text.count("\n|") == 2 + len(rows) and text in capsys.readouterr().out and str(tmp_path) not in text
    assert len(steps) == 2 * 2
    assert main(arguments) == 0 and len(steps) == 2 * 2  # finished trainings are taken as they are
    again = json.loads((tmp_path / "out" / "ablation.json").read_text())
    assert [row["psnr"] for row in again] == [row["psnr"] for row in rows.values()]
