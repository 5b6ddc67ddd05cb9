"""docs/adding_a_network.md, executed: its file, its line and its YAML make a network that all programs can use."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch

import models
from evaluate import main as evaluate
from inference import main as inference
from loading.load_sr import load_sr
from models import SR_NETWORKS, build_sr
from models.tiling.run_patches import run_on_tiles
from stage2_pretrain_sr import main as stage2
from tests.drawn import draw_photographs

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "adding_a_network.md"


def blocks(language: str) -> list[str]:
    """Contents of the document's fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def depthwise(tmp_path: Path, monkeypatch):
    """The document's network, known to the programs by the document's line."""
    source, line = blocks("python")
    file = tmp_path / "depthwise.py"
    file.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("depthwise", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(models, "SR_NETWORKS", SR_NETWORKS, raising=True)
    monkeypatch.setitem(SR_NETWORKS, "depthwise", None)  # taken back at the end
    exec(line, {"SR_NETWORKS": SR_NETWORKS, "Depthwise": module.Depthwise})
    return module.Depthwise


@torch.no_grad()
def test_its_radius_makes_tiles_exact(depthwise):
    torch.manual_seed(0)
    network = build_sr("depthwise", 2, {"n_blocks": 2, "n_feats": 8}).eval()
    for parameter in network.parameters():
        parameter.uniform_(-0.3, 0.3)
    lr = torch.rand(1, 3, 40, 40)
    mask = torch.zeros(1, 5, 5, dtype=torch.bool)
    mask[0, 2, 1:3] = True
    whole = network(lr)
    tiles = run_on_tiles(network, lr, mask, 8, None, torch.zeros_like(whole))
    inside = torch.zeros(80, 80, dtype=torch.bool)
    inside[32:48, 16:48] = True
    torch.testing.assert_close(tiles[..., inside], whole[..., inside], atol=1e-5, rtol=0)
    short = run_on_tiles(network, lr, mask, 8, network.capabilities.receptive_radius - 1, torch.zeros_like(whole))
    assert (short - whole)[..., inside].abs().max() > 1e-5  # a shorter one would not be


def test_it_is_trained_measured_and_run(depthwise, tmp_path, capsys):
    photographs, (yaml,) = draw_photographs(tmp_path / "photographs"), blocks("yaml")
    config = tmp_path / "stage2.yaml"
    config.write_text(yaml.replace("my/photographs", str(photographs)), encoding="utf-8")
    run = tmp_path / "run"
    small = ["--data.patch=12", "--data.samples_per_epoch=4", "--optim_fast.epochs=1", "--optim_quality.epochs=1"]
    small += ["--optim_fast.batch=2", "--optim_quality.batch=2", "--run.workers=0", "--run.device=cpu"]
    assert stage2([f"--config={config}", f"--run.out={run}", f"--data.val=[{photographs}]", *small]) == 0
    weights = run / "sr_quality_pretrained.pth"
    assert isinstance(load_sr(weights, 4), depthwise)
    options = [f"--weights=[bicubic, {weights}]", f"--hr={photographs}", "--scale=4", "--timing_runs=0"]
    assert evaluate(["sr", *options, f"--out={tmp_path / 'measured'}"]) == 0
    assert "depthwise" in (tmp_path / "measured" / "table.md").read_text(encoding="utf-8")
    assert inference(["--sr-only", f"--weights={weights}", f"--source={photographs}", f"--out={tmp_path / 'sr'}"]) == 0
    assert any((tmp_path / "sr").rglob("*.png"))
