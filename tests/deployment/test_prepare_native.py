"""Prepared systems run the native kernel where it is faster, on patches and on whole images, and say what they do."""

from __future__ import annotations

import time

import pytest
import torch

import deployment.native_execution as native_execution
import deployment.prepare as prepared
from deployment.native.build import NativeError
from deployment.native_execution import NativeNetwork
from models import build_sr
from models.conditional_sr import ConditionalSR
from models.execution import Execution
from models.mask_policy import parse_policy
from models.masker import Masker
from models.tiling.run_patches import TileOptions
from tests.deployment.native_networks import PATCH, close, definition, random_edsr


class Checkerboard:
    """A policy that selects every second patch."""

    kind, needs_masker = "checkerboard", False

    def select(self, lr, logits, patch, content=None):
        rows, columns = -(-lr.shape[2] // patch), -(-lr.shape[3] // patch)
        return ((torch.arange(rows)[:, None] + torch.arange(columns)) % 2 == 0).expand(len(lr), -1, -1)


def system_of(halo=1):
    fast = build_sr("espcn", 4, {"n_feats": 4})
    return ConditionalSR(Masker(PATCH), fast, random_edsr(4, 16, 2), Execution(halo)).eval()


def chosen(front):
    quality = prepared.prepare_network(front.sr_quality, torch.device("cpu"), torch.float32)
    return prepared.choose_native(front.sr_quality, quality, front.patch, front.execution.halo)


def test_infer_runs_the_kernel_on_patches(kernel):
    front, lr = system_of(), torch.rand(2, 3, 29, 34)
    mask = Checkerboard().select(lr, None, PATCH)
    with torch.no_grad():
        fast = front.sr_fast(lr)
    expected = definition(front.sr_quality, lr, mask, PATCH, 1, fast).clamp(0, 1)
    front = front.with_execution(patches=NativeNetwork(front.sr_quality, torch.float32))
    close(front.infer(lr, Checkerboard()).sr, expected, 1e-5)


def test_images_above_the_memory_bound_run_on_tiles(kernel, monkeypatch):
    front, lr = system_of(halo=None), torch.rand(1, 3, 29, 34)
    expected = front.infer(lr, Checkerboard()).sr
    runner, bounded = NativeNetwork(front.sr_quality, torch.float32), TileOptions(max_pixels=29 * 34 - 1)
    monkeypatch.setattr(NativeNetwork, "run", lambda *_: pytest.fail("the kernel was called"))
    front = front.with_execution(patches=runner, tiles=bounded)
    close(front.infer(lr, Checkerboard()).sr, expected, 1e-5)


@pytest.mark.parametrize("slow", ["run", "forward"])
def test_the_kernel_is_taken_where_it_is_faster(kernel, monkeypatch, slow):
    function = getattr(NativeNetwork, slow)

    def slowed(*args):
        time.sleep(0.05)
        return function(*args)

    monkeypatch.setattr(NativeNetwork, slow, slowed)
    native, whole = chosen(system_of())
    if slow == "run":
        assert native is None
        assert "left on patches" in whole.how
    else:
        assert not isinstance(whole.network, NativeNetwork)
        assert "left on whole images" in whole.how


@pytest.mark.parametrize("fast", [(), ("patches",), ("dense",), ("patches", "dense")])
def test_the_faster_one_is_what_runs(kernel, monkeypatch, fast):
    """Where the kernel wins by the clock it is called, on patches and on whole images each for itself."""
    ms = {name: 1.0 if name in fast else 3.0 for name in ("patches", "dense")} | {"tiles": 2.0, "fused": 2.0}
    monkeypatch.setattr(prepared, "fastest_ms", lambda rivals, repeats: {name: ms[name] for name in rivals})
    calls, run, forward = [], NativeNetwork.run, NativeNetwork.forward
    native, whole = chosen(system_of())
    assert isinstance(native, NativeNetwork) == ("patches" in fast)
    assert isinstance(whole.network, NativeNetwork) == ("dense" in fast)
    system, lr = system_of(halo=None), torch.rand(2, 3, 29, 34)
    front = prepared.prepare_front(system, torch.device("cpu"), torch.float32)
    monkeypatch.setattr(NativeNetwork, "run", lambda *args: calls.append("patches") or run(*args))
    monkeypatch.setattr(NativeNetwork, "forward", lambda *args: calls.append("dense") or forward(*args))
    close(front.infer(lr, Checkerboard()).sr, system.infer(lr, Checkerboard()).sr, 1e-4)
    assert ("patches" in calls) == ("patches" in fast)
    calls.clear()
    close(front.infer(lr, parse_policy("all_quality")).sr, system.infer(lr, parse_policy("all_quality")).sr, 1e-4)
    assert ("dense" in calls) == ("dense" in fast)


def test_without_the_kernel_the_log_says_why(monkeypatch):
    def missing():
        raise NativeError("the native kernel was not built: python -m deployment.native.build")

    monkeypatch.setattr(native_execution, "find_library", missing)
    native, whole = chosen(system_of())
    assert native is None
    refused = "the native kernel was not built: python -m deployment.native.build"
    assert whole.how == f"fused oneDNN convolutions, float32, {refused}"
    lr = torch.rand(1, 3, 16, 16)
    close(whole(lr), random_edsr(4, 16, 2)(lr), 1e-4)


def test_a_prepared_system_uses_the_kernel(kernel):
    from models.detector_yolo import YoloDetector
    from models.system import ConditionalSRDetector

    system = ConditionalSRDetector(system_of(halo=None), YoloDetector("yolo11n.yaml", ["a"])).eval()
    front = prepared.prepare_system(system, torch.device("cpu"), torch.float32).front
    assert "native kernel" in front.sr_quality.how
    lr = torch.rand(2, 3, 29, 34)
    runner = NativeNetwork(system.front.sr_quality, torch.float32)
    front = front.with_execution(patches=runner)  # whatever the clock said
    for policy in ("all_quality", "all_fast", "budget=0.5"):
        close(front.infer(lr, parse_policy(policy)).sr, system.front.infer(lr, parse_policy(policy)).sr, 1e-4)
