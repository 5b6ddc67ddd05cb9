"""Stage 2 builds every fixed-scale network from its configuration, makes a step and saves what can be loaded again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from loading.load_sr import load_sr
from stage2_pretrain_sr import main
from tests.drawn import draw_photographs
from tests.loading import published

PAIRS = [
    (("carn", {"n_feats": 8}), ("carn_m", {"n_feats": 16})),
    (("imdn", {"n_blocks": 1, "n_feats": 16}), ("rfdn", {"n_blocks": 1, "n_feats": 8})),
    (("span", {"n_feats": 8}), ("rcan", {"n_groups": 1, "n_blocks": 1, "n_feats": 16})),
    (("rdn", {"n_blocks": 1, "n_layers": 1, "growth": 8, "n_feats": 8}), ("srresnet", {"n_blocks": 1, "n_feats": 8})),
    (("swinir_light", {"dim": 12, "n_groups": 1, "n_heads": 2}), ("swinir", {"dim": 12, "n_groups": 1, "n_heads": 2})),
    (("fsrcnn", {}), ("edsr", {"n_blocks": 1, "n_feats": 8, "div2k_mean": True})),
    (("bicubic", {}), ("espcn", {})),
]


def arguments(tmp_path: Path) -> list[str]:
    data = draw_photographs(tmp_path / "photos")
    return [
        f"--run.out={tmp_path / 'run'}", "--run.device=cpu", "--run.threads=1", "--run.workers=0", "--scale=2",
        f"--data.train=[{data}]", f"--data.val=[{data}]", "--data.patch=12", "--data.samples_per_epoch=4",
        "--optim_fast.epochs=1", "--optim_fast.batch=4", "--optim_quality.epochs=1", "--optim_quality.batch=4",
    ]  # fmt: skip


@pytest.mark.parametrize(("fast", "quality"), PAIRS, ids=lambda network: network[0])
def test_one_step_of_every_network(tmp_path: Path, fast: tuple, quality: tuple):
    named = [f"--sr_fast.name={fast[0]}", f"--sr_fast.args={json.dumps(fast[1])}"]
    named += [f"--sr_quality.name={quality[0]}", f"--sr_quality.args={json.dumps(quality[1])}"]
    assert main(arguments(tmp_path) + named) == 0
    for role, (name, _) in (("sr_fast", fast), ("sr_quality", quality)):
        network = load_sr(tmp_path / "run" / f"{role}_pretrained.pth", 2)
        assert network.spec["name"] == name
        assert network(torch.rand(1, 3, 7, 9)).isfinite().all()


def test_published_weights_are_the_start(tmp_path: Path, capsys):
    weights = published.carn(4, n=16)
    save_file(weights, tmp_path / "carn_m.safetensors")
    named = ["--sr_fast.name=bicubic", "--sr_fast.args={}", f"--sr_quality.weights={tmp_path / 'carn_m.safetensors'}"]
    named += ["--sr_quality.name=carn_m", '--sr_quality.args={"n_feats": 16}', "--optim_quality.lr=1e-9"]
    assert main(arguments(tmp_path) + named) == 0
    assert "carn_m(scale=2, n_feats=16" in capsys.readouterr().out
    network = load_sr(tmp_path / "run" / "sr_quality_pretrained.pth")
    assert torch.allclose(network.entry.weight, weights["entry.weight"], atol=1e-6)
    lr = torch.rand(1, 3, 8, 9)
    assert torch.allclose(network(lr), published.run_carn(weights, lr, 2, "up2", 4), atol=1e-4)
