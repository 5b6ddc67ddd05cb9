"""The simulated device finds what it is for."""

from __future__ import annotations

import pytest
import torch

from tests.simulated_cuda import CaptureError, HostSync, MixedDevices


def test_mixed_devices_raise(cuda):
    x, y = torch.rand(4, 4, device="cuda"), torch.rand(4, 4)
    for wrong in (lambda: x + y, lambda: torch.cat([x, y]), lambda: y[torch.arange(2, device="cuda")], lambda: x @ y):
        with pytest.raises(MixedDevices):
            wrong()
    with pytest.raises(TypeError, match=r"Tensor\.cpu\(\) first"):
        x.numpy()
    assert (x + y.sum()).device == (x[torch.arange(2)]).device == torch.device("cuda", 0)  # allowed on a GPU too


def test_waits_are_counted(cuda):
    x = torch.rand(4, 4, device="cuda")
    constant = lambda: torch.tensor([1.0], device=x.device)  # noqa: E731
    for waits in (x.sum().item, x.cpu, x.tolist, x.nonzero, lambda: x[x > 0.5], constant):
        before = cuda.total()
        waits()
        assert cuda.total() == before + 1
    before = cuda.total()
    torch.rand(2, 2).pin_memory().to("cuda", non_blocking=True)
    assert cuda.total() == before
    torch.rand(2, 2).to("cuda", non_blocking=True)  # not pinned
    assert cuda.total() == before + 1


def test_hot_paths_may_not_wait(cuda):
    x = torch.rand(4, 4, device="cuda")
    with cuda.no_syncs():
        x.mul(2).add_(1).to(torch.bfloat16).clamp(0, 1)
        with pytest.raises(HostSync):
            bool((x > 2).any())
    torch.cuda.set_sync_debug_mode("error")
    with pytest.raises(HostSync):
        x.sum().item()
    torch.cuda.set_sync_debug_mode("default")
    x.sum().item()


def test_graphs_replay_on_the_same_memory(cuda):
    x = torch.rand(4, 4, device="cuda")
    graph, cached = torch.cuda.CUDAGraph(), torch.rand(4, 4, device="cuda")
    static = torch.zeros(4, 4, device="cuda")
    with torch.cuda.graph(graph):
        out = static @ cached
        with pytest.raises(CaptureError):
            static.sum().item()
    static.copy_(x)
    graph.replay()
    assert torch.equal(out.cpu(), (x @ cached).cpu())
    del cached
    with pytest.raises(CaptureError, match="freed"):
        graph.replay()


def test_a_failed_capture_leaves_the_device_broken(cuda):
    with pytest.raises(CaptureError), torch.cuda.graph(torch.cuda.CUDAGraph()):
        torch.rand(2, device="cuda").sum().item()
    assert cuda.broken
