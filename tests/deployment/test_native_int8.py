"""A quantised SR_Quality in a prepared system: by the native kernel where it was built, with the image of PyTorch."""

from __future__ import annotations

import pytest
import torch

import deployment.native_execution as native_execution
import deployment.prepare as prepared
from deployment.export.graphs import SRGraph
from deployment.native.build import NativeError
from deployment.native_execution import NativeNetwork
from models import build_sr
from models.conditional_sr import ConditionalSR
from models.edsr_int8 import quantised
from models.execution import Execution
from models.mask_policy import GivenMask, parse_policy
from models.masker import Masker
from models.single_sr import SingleSR
from utils.errors import UserError

CPU = torch.device("cpu")
TAKEN = "int8 by the native kernel, fp32 around it"


@pytest.fixture
def kernel(native_int8_library, monkeypatch):
    monkeypatch.setattr(native_execution, "find_library", lambda *_: native_int8_library)


def front_of(halo=None):
    torch.manual_seed(0)
    quality = build_sr("edsr", 2, {"n_blocks": 1, "n_feats": 16, "tail": "single"}).eval()
    with torch.no_grad():
        for parameter in quality.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    integers = quantised(quality, [torch.rand(1, 3, 20, 20)])
    return ConditionalSR(Masker(8), build_sr("espcn", 2, {"n_feats": 4}), integers, Execution(halo)).eval()


def prepare(front, backend="native", dtype=torch.float32):
    return front.prepared(prepared.InferencePreparation(CPU, dtype, backend=backend))


def counted(monkeypatch):
    """Calls of the kernel on patches and on whole images."""
    calls = []
    for name in ("run", "forward"):
        function = getattr(NativeNetwork, name)
        monkeypatch.setattr(
            NativeNetwork, name, lambda *a, name=name, function=function: calls.append(name) or function(*a)
        )
    return calls


@pytest.mark.parametrize("backend", ["native", "auto"])
def test_the_kernel_is_taken_and_the_image_is_the_same(kernel, monkeypatch, backend):
    if backend == "auto":
        monkeypatch.setattr(prepared, "may_be_openvino", lambda *_: False)
    front, lr = front_of(), torch.rand(2, 3, 29, 34)
    ready = prepare(front, backend)
    assert ready.sr_quality.how == TAKEN
    calls = counted(monkeypatch)
    mask = torch.rand(2, 4, 5) < 0.4
    for policy, way in ((GivenMask(mask), ["run"]), (parse_policy("all_quality"), ["forward"])):
        expected, calls[:] = front.infer(lr, policy).sr, []
        assert (ready.infer(lr, policy).sr - expected).abs().max() < 1e-5
        assert calls == way


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_backends_of_others_compute_it_in_pytorch(kernel, monkeypatch, backend):
    monkeypatch.setattr(prepared, "may_be_openvino", lambda *_: False)
    front, lr, calls = front_of(), torch.rand(1, 3, 29, 34), counted(monkeypatch)
    ready = prepare(front, backend)
    assert ready.sr_quality.how == "int8 by PyTorch, fp32 around it" and ready.execution.patches is None
    policy = parse_policy("all_quality")
    assert torch.equal(ready.infer(lr, policy).sr, front.infer(lr, policy).sr) and not calls


def test_without_the_kernel_the_log_says_why(monkeypatch):
    def missing(*_):
        raise NativeError("the native int8 kernel was not built: python -m deployment.native.build")

    monkeypatch.setattr(native_execution, "find_library", missing)
    ready = prepare(front_of())
    assert ready.execution.patches is None
    assert ready.sr_quality.how.endswith("was not built: python -m deployment.native.build")


def test_bf16_systems_and_single_networks_take_it_too(kernel):
    front, lr = front_of(), torch.rand(1, 3, 29, 34)
    mixed = prepare(front, dtype=torch.bfloat16).infer(lr, GivenMask(torch.rand(1, 4, 5) < 0.5)).sr
    assert mixed.isfinite().all()
    single = prepare(SingleSR(front.sr_quality))
    assert single.networks["sr"].how == TAKEN
    policy = parse_policy("all_quality")
    assert (single.infer(lr, policy).sr - front.infer(lr, policy).sr).abs().max() < 1e-5


def test_export_asks_for_the_network_that_it_was_made_of():
    with pytest.raises(UserError, match="its integers are for the native kernel; give the network that it was made of"):
        SRGraph(front_of().sr_quality)
