"""Publishing a front end of the label-free benchmark: the file is the network, and the card has the run's figures."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from loading.assembled_system import ready_network
from loading.load_sr import load_sr
from loading.systems import load_system
from models import build_sr
from models.single_sr import SingleSR
from models.system import ConditionalSRDetector
from tests.deployment.export.tiny import tiny_system
from tools.publish_label_free import FOLDER, main
from training.adapt import save_system
from utils.checkpoint import CheckpointError
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def lines(value: float, low: float, high: float) -> dict:
    return {"value": value, "leads": {"EDSR 8x32": [low, high]}}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of the benchmark, in short."""
    rows = {"bicubic": lines(0.443, -0.108, -0.028), "EDSR 8x32": lines(0.506, 0, 0)}
    rows["long, too"] = lines(0.558, 0.016, 0.076)
    results = {"held-out crops": {"images": 1079, "boxes": 1423, "agreement": rows}}
    results["labelled photographs"] = {"images": 128, "boxes": 684, "agreement": rows, "mAP": rows}
    content = {
        "command": "python -m benchmarks.label_free --detector d.pt", "results": results, "seed": 0, "scale": 2,
        "environment": {"date": "2026-12-01T01:00:11+00:00", "cpu": "A CPU"}, "steps": {"long, too": 1400},
        "rivals": {"long, too": "EDSR 8x32"},
    }  # fmt: skip
    (tmp_path / "run").mkdir()
    (tmp_path / "run/label_free.json").write_text(json.dumps(content))
    torch.manual_seed(0)
    network = build_sr("edsr", 2, {"n_blocks": 1, "n_feats": 8, "tail": "single"})
    system = ConditionalSRDetector(SingleSR(network), tiny_system().detector)
    (tmp_path / "run/trained/long_too").mkdir(parents=True)
    save_system(tmp_path / "run/trained/long_too/system.pth", system, {"stage": 3, "mode": "frozen_detector"})
    return tmp_path / "run"


def test_the_file_is_the_network_and_the_card_has_its_figures(run: Path, tmp_path: Path, monkeypatch, capsys):
    out = tmp_path / "published"
    assert main([str(run), "--variant", "long, too", "--name", "edsr_tiny_x2", "--out", str(out)]) == 0
    assert "published:" in capsys.readouterr().out
    file = out / "edsr_tiny_x2.safetensors"
    network, trained = load_sr(file), load_system(run / "trained/long_too/system.pth").front.network
    assert network.spec["args"]["n_feats"] == 8 and network.scale == 2
    assert all(torch.equal(value, trained.state_dict()[key]) for key, value in network.state_dict().items())
    card = file.with_suffix(".md").read_text()
    assert "| agreement, held-out crops | **0.558**, shipped EDSR 8x32 0.506 (lead +0.016 to +0.076)" in card
    assert "1,400 steps" in card and "1,079 images" in card and "| mAP, labelled photographs |" in card
    assert card.rstrip().endswith("python -m benchmarks.label_free --detector d.pt\n```")
    monkeypatch.setattr("loading.assembled_system.LABEL_FREE", out)
    monkeypatch.setattr("loading.shipped_weights.LABEL_FREE", out)
    assert ready_network("edsr_tiny", 2).spec == network.spec  # as --sr names it
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(CheckpointError, match="is not as it was published"):
        ready_network("edsr_tiny_x2", None)


def test_what_is_missing_is_named(run: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"--variant: 'short' is not in .*; there are long, too"):
        main([str(run), "--variant", "short", "--name", "n", "--out", str(tmp_path / "o")])
    with pytest.raises(UserError, match=r"label_free\.json does not exist; let benchmarks/label_free\.py finish"):
        main([str(tmp_path), "--variant", "short", "--name", "n", "--out", str(tmp_path / "o")])
    assert not (tmp_path / "o").exists()


def test_what_is_shipped_is_as_it_was_published():
    folder = ROOT / FOLDER
    files = sorted(folder.glob("*.safetensors"))
    listed = dict(line.split()[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert files and listed == {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    for file in files:
        network = ready_network(file.stem, None)
        assert network.spec["name"] == "edsr" and "agreement" in file.with_suffix(".md").read_text()
        with pytest.raises(CheckpointError, match=f"one of .*{file.stem.rpartition('_x')[0]}"):
            ready_network("nothing_of_the_kind", 4)
