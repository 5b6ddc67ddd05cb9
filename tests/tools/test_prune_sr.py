"""tools/prune_sr.py: what is taken out is what matters least, and the rest computes as before."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loading.load_sr import load_sr
from models import build_sr
from tools.prune_sr import main, parts, pruned
from utils.checkpoint import save_network
from utils.errors import UserError


def lively(n_feats: int = 8, n_blocks: int = 2):
    network = build_sr("edsr", 2, {"n_feats": n_feats, "n_blocks": n_blocks, "tail": "single"})
    with torch.no_grad():
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


def silence(network, maps: list[int], inner: list[list[int]]) -> None:
    """Nothing writes these maps of the trunk, nor those inside each block."""
    convolutions = parts(network)
    with torch.no_grad():
        for writer in [convolutions["head"], convolutions["last"], *(second for _, second in convolutions["blocks"])]:
            writer.weight[maps], writer.bias[maps] = 0, 0
        for (first, _), dead in zip(convolutions["blocks"], inner, strict=True):
            first.weight[dead], first.bias[dead] = 0, 0


@given(
    dead=st.sets(st.integers(0, 7), min_size=1, max_size=4),
    first=st.permutations(range(8)),
    second=st.permutations(range(8)),
)
def test_maps_that_nothing_writes_go_and_the_image_stays(dead: set[int], first: list[int], second: list[int]):
    torch.manual_seed(0)
    network = lively()
    silence(network, sorted(dead), [first[: len(dead)], second[: len(dead)]])
    narrow = pruned(network, 8 - len(dead))
    assert narrow.spec["args"]["n_feats"] == 8 - len(dead) and narrow.spec["args"]["n_blocks"] == 2
    lr = torch.rand(1, 3, 9, 7)
    with torch.no_grad():
        torch.testing.assert_close(narrow(lr), network(lr), atol=1e-5, rtol=1e-5)


def test_all_maps_kept_is_the_same_network():
    network = lively()
    again = pruned(network, 8).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in network.state_dict().items())


def test_a_file_that_stage_2_takes(tmp_path: Path, capsys):
    network = lively(6)
    save_network(tmp_path / "wide.pth", "sr", "edsr", network.spec["args"], network.state_dict(), {})
    out = tmp_path / "new" / "narrow.pth"
    assert main([str(tmp_path / "wide.pth"), "--n-feats", "4", "--out", str(out)]) == 0
    assert "'n_feats': 4" in capsys.readouterr().out
    assert load_sr(out).spec["args"]["n_feats"] == 4
    with pytest.raises(UserError, match=r"narrow\.pth: is there already; name another --out"):
        main([str(tmp_path / "wide.pth"), "--n-feats", "3", "--out", str(out)])
    assert load_sr(out).spec["args"]["n_feats"] == 4


@pytest.mark.parametrize(
    ("name", "args", "n_feats", "message"),
    [
        ("espcn", {}, 4, "only edsr"),
        ("edsr", {"n_feats": 8, "n_blocks": 1, "tail": "staged"}, 4, "only edsr with tail single"),
        ("edsr", {"n_feats": 8, "n_blocks": 1, "tail": "single"}, 9, "has 8, take fewer"),
        ("edsr", {"n_feats": 8, "n_blocks": 1, "tail": "single"}, 0, "has 8, take fewer"),
    ],
)
def test_what_is_not_pruned(name: str, args: dict, n_feats: int, message: str):
    with pytest.raises(UserError, match=message):
        pruned(build_sr(name, 2, args), n_feats)
