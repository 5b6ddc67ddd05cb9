"""When graphs are captured, what they keep, and what happens where none can be."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deployment import cuda_graphs
from deployment.cuda_graphs import CapturedCalls, GraphedNetwork, eagerly
from deployment.graphed_calls import release_graphs
from deployment.prepare import prepare_network, prepare_system
from models import build_sr
from models.capabilities import Capabilities
from models.mask_policy import parse_policy
from models.sr_network import SRNetwork
from tests.simulated_cuda.systems import image, tiny_system

CUDA = torch.device("cuda")


def test_graphs_keep_the_constants_that_they_read(cuda, monkeypatch):
    """More sizes than the cache of bicubic matrices holds, then the first again: its matrices must still be there."""
    monkeypatch.setattr(cuda_graphs, "SIGHTS", 1)
    prepared = prepare_network(build_sr("bicubic", 2), CUDA, torch.float32)
    first = image(1, 8, 9)
    expected = build_sr("bicubic", 2)(first)
    for side in range(8, 8 + 40):
        prepared(image(1, side, side + 41).cuda())
        prepared(first.cuda())
    assert (prepared(first.cuda()).cpu() - expected).abs().max() < 1e-6


def test_a_shape_is_captured_at_its_third_sight(cuda):
    network = GraphedNetwork(build_sr("edsr", 2, {"n_blocks": 1, "n_feats": 8}).eval().to("cuda"))
    with torch.no_grad():
        for side in (*range(8, 20), *range(8, 20)):
            network(image(1, side, side).cuda())
        assert cuda.captures == 0
        network(image(1, 8, 8).cuda())
        assert (cuda.captures, cuda.replays) == (1, 1)


def test_the_graph_unused_for_longest_goes(cuda, monkeypatch):
    monkeypatch.setattr(cuda_graphs, "SIGHTS", 1)
    monkeypatch.setattr(cuda_graphs, "MOST_GRAPHS", 2)
    calls, x = CapturedCalls("a function"), torch.ones(2, device="cuda")
    for key in ("a", "b", "a", "c", "a"):
        calls(key, lambda y: (2 * y,), x)
    assert [key[0] for key in calls.graphs] == ["c", "a"] and cuda.captures == 3


class Waits(SRNetwork):
    """A network that looks at its result on the host, as a layer of somebody else's might."""

    capabilities = Capabilities(receptive_radius=0)
    scale, tail, spec = 1, None, {}

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        return lr if lr.sum().item() >= 0 else -lr


def test_what_waits_is_never_captured(cuda):
    prepared, lr = prepare_network(Waits(), CUDA, torch.float32), image(1, 8, 8).cuda()
    prepared(lr), prepared(lr)
    with pytest.warns(UserWarning, match="Waits runs without CUDA graphs"):
        assert torch.equal(prepared(lr).cpu(), lr.cpu())
    for side in range(8, 12):  # said once; another shape is not tried
        for _ in range(4):
            prepared(image(1, side, side).cuda())
    assert cuda.captures == 0 and not cuda.broken and torch.cuda.get_sync_debug_mode() == 0


class Overflows(SRNetwork):
    capabilities = Capabilities(receptive_radius=0)
    scale, tail, spec = 1, None, {}

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(300.0))

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        return lr * self.factor * self.factor / self.factor / self.factor


def test_half_precision_that_overflows_becomes_bfloat16(cuda):
    prepared = prepare_network(Overflows().eval(), CUDA, torch.float16)
    assert prepared.how == "CUDA graphs, bfloat16 (float16 overflows)"
    assert prepared(image(1, 8, 8).cuda()).isfinite().all().item()


def test_images_that_are_not_finite_are_told(cuda):
    prepared, lr = prepare_system(tiny_system(), CUDA, torch.float32), image(1, 48, 64).cuda()
    lr[:, :, 5, 5] = torch.nan
    with pytest.warns(UserWarning, match=r"1 super-resolved image\(s\) are not finite"):
        prepared.predict(lr, parse_policy("budget=0.25"))


def test_memory_is_measured_without_graphs(cuda):
    prepared, lr = prepare_system(tiny_system(), CUDA, torch.float32), image(1, 48, 64).cuda()
    for _ in range(4):
        prepared.predict(lr, parse_policy("budget=0.25"))
    cuda.reset()
    with eagerly():
        prepared.predict(lr, parse_policy("budget=0.25"))
    assert cuda.replays == 0 and cuda.launches > 50


def test_graphs_are_let_go(cuda):
    prepared, lr = prepare_system(tiny_system(), CUDA, torch.float32), image(1, 48, 64).cuda()
    for _ in range(4):
        prepared.predict(lr, parse_policy("budget=0.25"))
    release_graphs(prepared)
    assert not prepared.calls.wholes.graphs and prepared.calls.pool.handle is None
    prepared.predict(lr, parse_policy("budget=0.25"))


def test_another_front_end_gets_graphs_of_its_own(cuda):
    prepared = prepare_system(tiny_system(), CUDA, torch.float32)
    assert prepared.with_execution(halo=4).calls is not prepared.calls
