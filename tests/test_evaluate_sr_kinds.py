"""`evaluate.py sr` on folders of each kind, with FID, caches and stochastic networks."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import evaluation.sr_evaluation as sr_evaluation
from configs.sr_schema import EvaluateSRConfig
from data.sr_pairs import benchmark_pairs
from evaluate import main
from evaluation.fid import frechet_distance, inception_features
from evaluation.sr_benchmarks import list_benchmarks
from evaluation.sr_candidates import load_candidates
from evaluation.sr_evaluation import SREvaluation
from evaluation.sr_report import sr_table
from models import build_sr
from models.capabilities import Capabilities
from tests.drawn import draw_photographs
from tests.extras import needs
from utils.checkpoint import save_network
from utils.metrics import psnr_rgb

CPU = torch.device("cpu")


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    return draw_photographs(tmp_path / "Photos", size=(50, 46))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    network = build_sr("espcn", 2, {"n_feats": 8})
    save_network(tmp_path / "a.pth", "sr", "espcn", network.spec["args"], network.state_dict(), {})
    return tmp_path / "a.pth"


@pytest.fixture
def lr_folder(tmp_path: Path, photographs: Path) -> Path:
    folder = tmp_path / "Small"
    folder.mkdir()
    for name, lr, _ in benchmark_pairs(photographs, 2):
        Image.fromarray(lr).save(folder / f"{name}.png")
    return folder


def compare(out: Path, *options: str) -> list[dict]:
    assert main(["sr", f"--out={out}", "--device=cpu", "--timing_runs=0", *options]) == 0
    return json.loads((out / "results.json").read_text())["rows"]


def cells(text: str, word: str) -> dict[str, str]:
    """{heading: cell} of the first line of a Markdown table in which a word stands."""
    lines = [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if line.startswith("|")]
    return dict(zip(lines[0], next(line for line in lines if word in line)))


def test_every_kind_of_folder(tmp_path: Path, photographs: Path, lr_folder: Path, weights: Path):
    both = f"--weights=[bicubic, {weights}]"
    paired = compare(tmp_path / "paired", both, f"--hr={photographs}", f"--lr={lr_folder}", "--scale=2")
    shrunk = compare(tmp_path / "shrunk", both, f"--hr={photographs}", "--scale=2")
    alone = compare(tmp_path / "alone", both, f"--lr={lr_folder}", "--scale=2")
    kinds = [{row["kind"] for row in rows} for rows in (paired, shrunk, alone)]
    assert kinds == [{"LRHR_paired"}, {"HR_downsampled"}, {"LR_only"}]
    for one, other in zip(paired, shrunk, strict=True):  # the same LR images, made here and there
        assert one["psnr_y"] == other["psnr_y"] and one["psnr_rgb_whole"] == other["psnr_rgb_whole"]


def test_lr_alone_gives_pictures_and_times_but_no_quality(tmp_path: Path, lr_folder: Path, weights: Path, capsys):
    options = [f"--weights=[bicubic, {weights}]", f"--lr={lr_folder}", "--scale=2", "--pictures=2", "--timing_runs=1"]
    rows = compare(tmp_path / "out", *options)
    for row in rows:
        absent = ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb", "psnr_rgb_whole", "lpips", "fid")
        assert [row[key] for key in absent] == [None] * 7 and row["psnr_y_per_image"] == {}
        assert row["ms"] > 0 and row["images"] == 3 and row["dataset"] == "Small"
    pictures = sorted((tmp_path / "out/comparison").glob("Small_x2_*.png"))
    assert len(pictures) == 2 and min(np.asarray(Image.open(pictures[0])).shape[:2]) > 300
    line = cells(capsys.readouterr().out, "Small")
    assert [line[key] for key in ("PSNR Y", "SSIM RGB", "PSNR RGB, no border", "LPIPS")] == ["-"] * 4
    with pytest.raises(ValueError, match=r"no images given; name a folder .* or of LR images alone with --lr"):
        compare(tmp_path / "none", f"--weights={weights}", "--scale=2")


def test_lr_alone_at_several_scales(lr_folder: Path):
    found = list_benchmarks(EvaluateSRConfig(lr=str(lr_folder), scale=[2.0, 2.6]))
    config = EvaluateSRConfig(weights="bicubic", scale=[2.0, 2.6], timing_runs=0)
    evaluation = SREvaluation(load_candidates(config, CPU), config, CPU)
    sides = []
    for benchmark in found:
        lr, hr = evaluation.pair(benchmark, 0)
        size = sr_evaluation.size_of(lr, hr, benchmark.scale)
        sides.append(evaluation.run(evaluation.candidates[benchmark.scale][0], lr, size).shape)
    assert hr is None and sides == [(50, 46, 3), (65, 60, 3)]


def test_both_conventions_of_the_border(tmp_path: Path, photographs: Path):
    (row,) = compare(tmp_path / "out", "--weights=bicubic", f"--hr={photographs}", "--scale=2", "--border=9")
    (whole,) = compare(tmp_path / "whole", "--weights=bicubic", f"--hr={photographs}", "--scale=2", "--border=0")
    assert row["psnr_rgb_whole"] == whole["psnr_rgb"] != row["psnr_rgb"]
    assert "PSNR RGB, no border" in (tmp_path / "out/table.md").read_text()


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_cache_reads_every_file_once(tmp_path: Path, photographs: Path, kind: str, monkeypatch):
    reads, read = [], sr_evaluation.read_rgb
    monkeypatch.setattr(sr_evaluation, "read_rgb", lambda file, most: reads.append(file) or read(file, most))
    options = ["--weights=bicubic", f"--hr={photographs}", "--scale=[2, 3]", "--pictures=1"]
    plain = compare(tmp_path / "plain", *options)
    without = len(reads)
    reads.clear()
    cached = compare(tmp_path / "out", *options, f"--cache={kind}")
    assert len(reads) == len(set(reads)) == 3 < without
    assert [row["psnr_y"] for row in cached] == [row["psnr_y"] for row in plain]
    assert bool([*(tmp_path / "out").rglob("*.npy")]) == (kind == "disk")


class Tiny(nn.Module):
    """Stands for InceptionV3: four features of an image."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return (self.conv(x.float() / 255).mean((2, 3)),)


@needs("torch_fidelity")
def test_fid_is_that_of_the_whole_images(tmp_path: Path, photographs: Path, monkeypatch):
    network = Tiny()
    monkeypatch.setattr("loading.load_inception.load_inception", lambda file: network)
    options = ["--weights=bicubic", f"--hr={photographs}", "--scale=2", "--fid=here.pth"]
    (row,) = compare(tmp_path / "out", *options, "--border=7")
    config = EvaluateSRConfig(weights="bicubic", hr=str(photographs), scale=2.0)
    evaluation = SREvaluation(load_candidates(config, CPU), config, CPU)
    (benchmark,) = list_benchmarks(config)
    pairs = [evaluation.pair(benchmark, number) for number in range(3)]
    sr = [evaluation.run(evaluation.candidates[2.0][0], lr, hr.shape[:2]) for lr, hr in pairs]
    features, references = ([inception_features(network, x) for x in found] for found in (sr, [hr for _, hr in pairs]))
    assert row["fid"] == pytest.approx(frechet_distance(features, references)) and row["fid_images"] == 3
    assert row["fid"] != 0
    line = cells((tmp_path / "out/table.md").read_text(), "Photos")
    assert (line["FID"], line["FID images"]) == (f"{row['fid']:.2f}", "3")


def test_fid_needs_two_images_and_a_file(tmp_path: Path, photographs: Path):
    options = ["--weights=bicubic", f"--hr={photographs}", "--scale=2", f"--fid={tmp_path / 'gone.pth'}"]
    with pytest.raises(ValueError, match="fid: Photos has one image, which has no covariance; give 2 or more"):
        compare(tmp_path / "out", *options, "--limit=1")
    assert not (tmp_path / "out").exists()


class Noisy(nn.Module):
    """A stochastic network of two steps: nearest neighbour plus noise of its seed."""

    capabilities = Capabilities(None, 0, tiling="overlap", stochastic=True, steps=2)
    scale, tail, seed = 2, None, 0
    spec = {"name": "noisy", "args": {}}  # noqa: RUF012

    def with_seed(self, seed: int) -> Noisy:
        other = copy.copy(self)
        other.seed = seed
        return other

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        sr = lr.repeat_interleave(2, -1).repeat_interleave(2, -2)
        return sr + 0.1 * torch.randn(sr.shape, generator=torch.Generator().manual_seed(self.seed)).to(sr.device)


def test_the_noise_of_stochastic_networks_is_that_of_the_seed(photographs: Path, monkeypatch):
    monkeypatch.setattr("prediction.sr_inference.load_sr", lambda path, *scale: Noisy())

    def rows(seed: int) -> list[dict]:
        config = EvaluateSRConfig(["bicubic", "noisy"], str(photographs), scale=2.0, timing_runs=0, seed=seed)
        return SREvaluation(load_candidates(config, CPU), config, CPU).rows(list_benchmarks(config)[0])

    plain, noisy = rows(3)
    assert (plain["steps"], plain["seed"], noisy["steps"], noisy["seed"]) == (1, None, 2, 3)
    assert rows(3)[1]["psnr_rgb"] == noisy["psnr_rgb"] != rows(4)[1]["psnr_rgb"]
    line = cells(sr_table([plain, noisy]), "noisy")
    assert (line["steps"], line["seed"]) == ("2", "3") and "steps" not in sr_table([plain])


def test_psnr_without_a_border_is_over_every_pixel():
    one, other = np.zeros((6, 6, 3), np.uint8), np.zeros((6, 6, 3), np.uint8)
    other[0, 0] = 10
    assert psnr_rgb(one, other, 0) == pytest.approx(10 * np.log10(255**2 / (100 / 36)))
