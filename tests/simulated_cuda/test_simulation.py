"""The simulated device finds what it is for."""

from __future__ import annotations

import pytest
import torch

from tests.simulated_cuda import CaptureError, HostRace, HostSync, MixedDevices


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
    assert x.to(device="cuda", non_blocking=True).is_cuda and not x.to(device="cpu").is_cuda
    assert cuda.total() == before + 2


def test_what_did_not_arrive_is_not_read(cuda):
    host = torch.rand(4, 4, device="cuda").to("cpu", non_blocking=True)
    for look in (lambda: host + 1, host.numpy, host.tolist, lambda: host.view(16).sum()):
        with pytest.raises(HostRace):
            look()
    torch.cuda.synchronize()
    assert host.numpy().shape == (4, 4)


def test_what_does_not_repeat_is_found(cuda):
    x = torch.rand(1, 1, 5, 5, device="cuda", requires_grad=True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        torch.nn.functional.adaptive_avg_pool2d(x, 2).sum().backward()
        torch.nn.functional.pad(x, (1, 1, 1, 1), mode="replicate").sum().backward()  # has another way then
    finally:
        torch.use_deterministic_algorithms(False)
    assert [name for name, _ in cuda.unrepeatable] == ["aten::_adaptive_avg_pool2d_backward"]


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
