"""OpenVINO as a backend: the same boxes and images as PyTorch, chosen as the user says."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch

from deployment import openvino_backend
from deployment.openvino_backend import BACKENDS, OpenVINOModule, may_be_openvino
from deployment.prepare import InferencePreparation, how_it_runs, prepare_system
from deployment.prepare_detector import prepare_detector
from models import build_sr
from models.mask_policy import parse_policy
from tests.conftest import ROOT
from tests.deployment.export.tiny import tiny_system
from tests.extras import needs
from utils.errors import UserError

CPU = torch.device("cpu")
needs_openvino = needs("openvino")


@pytest.fixture(scope="module")
def system():
    return tiny_system(halo=None)


@pytest.fixture(scope="module")
def prepared(system):
    return prepare_system(system, CPU, torch.float32, backend="openvino")


@needs_openvino
@pytest.mark.parametrize("shape", [(1, 3, 64, 96), (2, 3, 32, 48), (3, 3, 16, 16)])
def test_the_detector_finds_the_same_boxes(system, prepared, shape: tuple):
    images = torch.rand(shape)
    expected = system.detector.predict(images, conf=0.1)
    got = prepared.detector.predict(images, conf=0.1)
    assert sum(map(len, expected)) > 5 and prepared.detector.how == "OpenVINO, float32"
    for ours, theirs in zip(expected, got, strict=True):
        assert (theirs[:, :4] - ours[:, :4]).abs().max() < 1e-3
        torch.testing.assert_close(theirs, ours, atol=1e-3, rtol=0)


@needs_openvino
def test_every_thread_gets_its_own_result():
    module = OpenVINOModule(
        torch.nn.Sequential(*[torch.nn.Conv2d(3, 3, 5, padding=2) for _ in range(9)]), torch.float32
    )
    images = [torch.rand(1, 3, 128, 128) for _ in range(4)]
    with torch.no_grad(), ThreadPoolExecutor(4) as threads:
        expected = [module(image) for image in images]
        for _ in range(10):
            assert all(map(torch.equal, threads.map(module, images), expected))


DROPPED_IN_A_THREAD = """
import faulthandler, signal, subprocess, threading, torch
from deployment.openvino_backend import OpenVINOModule
faulthandler.enable()
signal.signal(signal.SIGCHLD, lambda *_: None)
models = [OpenVINOModule(torch.nn.Conv2d(3, 3, 3), torch.float32)]
thread = threading.Thread(target=models.clear)
thread.start()
thread.join()
subprocess.run(["true"])
print("alive")
"""


@needs_openvino
@pytest.mark.skipif(sys.platform != "linux", reason="signals and stacks of Linux")
def test_the_next_signal_does_no_harm_when_a_thread_drops_a_model():
    command = [sys.executable, "-c", DROPPED_IN_A_THREAD]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0 and done.stdout == "alive\n", done.stderr


@needs_openvino
def test_limits_and_classes_are_passed_on(system, prepared):
    images = torch.rand(1, 3, 64, 64)
    for options in ({"max_det": 2}, {"classes": [1]}, {"iou": 0.1, "agnostic": True}, {"multi_label": True}):
        (ours,), (theirs,) = (one.detector.predict(images, conf=0.05, **options) for one in (system, prepared))
        torch.testing.assert_close(theirs, ours, atol=1e-3, rtol=0)
    with pytest.raises(UserError, match="multiples of 16"):
        prepared.detector.predict(torch.rand(1, 3, 40, 64))


@needs_openvino
@pytest.mark.parametrize("policy", ["budget=0.25", "all_quality"])
def test_the_whole_system_does_what_it_does_in_pytorch(system, prepared, policy: str):
    lr = torch.rand(2, 3, 44, 32)
    boxes, expected = system.predict(lr, parse_policy(policy), conf=0.1)
    found, got = prepared.predict(lr, parse_policy(policy), conf=0.1)
    torch.testing.assert_close(got.mask, expected.mask)
    torch.testing.assert_close(got.sr, expected.sr, atol=1e-5, rtol=0)
    for ours, theirs in zip(boxes, found, strict=True):
        torch.testing.assert_close(theirs, ours, atol=1e-2, rtol=0)
    how = how_it_runs(prepared)
    assert how.count("OpenVINO, float32") == 3 and "native" not in how


@needs_openvino
@pytest.mark.slow
def test_a_network_whose_graph_holds_for_one_size_stays_in_pytorch():
    network = build_sr("swinir_light", 2, {"dim": 12, "n_groups": 1, "n_blocks": 1, "n_heads": 2}).eval()
    prepared = InferencePreparation(CPU, torch.float32, backend="openvino").network(network)
    lr = torch.rand(1, 3, 27, 33)
    with torch.no_grad():
        torch.testing.assert_close(prepared(lr), network(lr), atol=1e-4, rtol=0)


@needs_openvino
@pytest.mark.parametrize(("seconds", "word"), [((9.0, 1.0), "taken"), ((1.0, 9.0), "left")])
def test_auto_takes_what_is_faster_and_says_so(system, monkeypatch, seconds: tuple, word: str):
    monkeypatch.setattr(openvino_backend, "fastest_ms", lambda runs: dict(zip(("torch", "openvino"), seconds)))
    # Converting takes ten seconds; what it gives is looked at above.
    monkeypatch.setattr("deployment.prepare_detector.OpenVINODetector", lambda *_: SimpleNamespace(how="OpenVINO"))
    detector = prepare_detector(system.detector, CPU, torch.float32, "auto")
    assert f"OpenVINO {word}" in detector.how and detector.how.startswith("OpenVINO") == (word == "taken")


def test_torch_measures_nothing_and_takes_no_native_kernel(system):
    how = how_it_runs(prepare_system(system, CPU, torch.float32, backend="torch"))
    assert "native" not in how and "OpenVINO" not in how and "against" not in how


def test_where_openvino_is_missing_auto_is_as_before_and_asking_for_it_is_an_error(system, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(openvino_backend, "find_spec", lambda name: None)
    assert not may_be_openvino("auto", CPU)
    with pytest.raises(UserError, match=r"backend openvino needs openvino.*requirements-export.txt"):
        prepare_detector(system.detector, CPU, torch.float32, "openvino")


def test_backends_are_checked():
    with pytest.raises(UserError, match="use one of native, torch, openvino, auto"):
        may_be_openvino("tensorrt", CPU)
    with pytest.raises(UserError, match="--device cpu"):
        may_be_openvino("openvino", torch.device("cuda"))
    assert not may_be_openvino("native", CPU) and BACKENDS[0] == "native"
