"""The Triton kernel in Triton's interpreter: against PyTorch, against windows of PyTorch, against the native kernel."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from deployment import native_execution
from deployment.native import build
from deployment.native.build import NativeError
from deployment.native_execution import NativeNetwork
from deployment.triton_execution import TritonNetwork, active_tiles
from models import build_sr
from models.tiling.run_patches import expand_mask, run_on_tiles

ROOT = Path(__file__).resolve().parents[2]
needs_triton = pytest.mark.skipif(
    find_spec("triton") is None, reason="triton not installed; PyTorch's CUDA builds bring it along"
)
ARGS = {"n_blocks": 1, "n_feats": 16, "tail": "single", "res_scale": 0.5}
CHOSEN = torch.tensor([[[1, 0], [0, 0]], [[1, 1], [1, 1]], [[0, 0], [0, 0]]], dtype=torch.bool)


@pytest.fixture(scope="module")
def edsr():
    """An EDSR of 16 maps with weights of its own in every layer."""
    torch.manual_seed(0)
    network = build_sr("edsr", 2, ARGS).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    return network


@pytest.fixture(scope="module")
def case(edsr) -> dict:
    """Images of 2 x 2 patches of 8, the last ones partial: one patch, all and none of them."""
    masks = {"exact": (CHOSEN, None), "short": (CHOSEN[:1], 2)}
    pictures = {"lr": torch.rand(3, 3, 13, 15), "canvas": torch.rand(3, 3, 26, 30)}
    return pictures | {"args": ARGS, "weights": edsr.state_dict(), "masks": masks}


@pytest.fixture(scope="module")
def interpreted(case, tmp_path_factory) -> dict[str, torch.Tensor]:
    folder = tmp_path_factory.mktemp("triton")
    torch.save(case, folder / "case.pt")
    command = [sys.executable, "-m", "tests.deployment.run_interpreted", folder / "case.pt", folder / "result.pt"]
    subprocess.run(command, cwd=ROOT, check=True)
    return torch.load(folder / "result.pt", weights_only=True)


@needs_triton
def test_on_all_patches_it_is_the_network(edsr, case, interpreted):
    assert (interpreted["exact"][1:2] - edsr(case["lr"][1:2])).abs().max() < 1e-4


@needs_triton
def test_on_some_patches_it_is_the_network_there_and_touches_nothing_else(edsr, case, interpreted):
    expected = run_on_tiles(edsr, case["lr"], CHOSEN, 8, None, case["canvas"].clone())
    assert (interpreted["exact"] - expected).abs().max() < 1e-4
    outside = ~expand_mask(CHOSEN, 16, 26, 30).expand_as(expected)
    assert outside.any() and torch.equal(interpreted["exact"][outside], case["canvas"][outside])


@needs_triton
def test_with_a_short_halo_it_is_the_native_kernel(edsr, case, interpreted, portable_library, monkeypatch):
    monkeypatch.setattr(native_execution, "find_library", lambda: portable_library)
    monkeypatch.setattr(native_execution, "cpu_flags", lambda: build.NEEDED)
    native = NativeNetwork(edsr, torch.float32).run(case["lr"][:1], CHOSEN[:1], 8, 2, case["canvas"][:1].clone())
    assert (interpreted["short"] - native).abs().max() < 1e-4
    assert (interpreted["short"] - interpreted["exact"][:1]).abs().max() > 1e-4  # the halo matters


def test_tiles_are_listed_on_the_device():
    active = torch.zeros(2, 1, 12, 9)
    active[0, 0, 9, 3] = active[1, 0, 0, 8] = 1
    tiles, number = active_tiles(active)
    assert (number.tolist(), tiles[:2].tolist(), sorted(tiles.tolist())) == ([2], [2, 5], list(range(8)))


def test_other_networks_are_refused():
    with pytest.raises(NativeError, match="tail 'single'"):
        TritonNetwork(build_sr("fsrcnn", 2), torch.device("cpu"), torch.float32)
