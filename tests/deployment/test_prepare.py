"""Prepared systems find what the systems find, with bounded memory."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from deployment.network_memory import activation_bytes
from deployment.prepare import (
    OVERHEAD,
    how_it_runs,
    prepare_front,
    prepare_network,
    prepare_system,
)
from deployment.prepare_detector import prepare_detector
from models import build_sr
from models.conditional_sr import ConditionalSR
from models.detector_yolo import YoloDetector
from models.execution import Execution
from models.mask_policy import parse_policy
from models.masker import Masker
from models.single_sr import SingleSR
from models.system import ConditionalSRDetector

CPU = torch.device("cpu")


def random_system(front=None):
    torch.manual_seed(0)
    quality = build_sr("edsr", 2, {"n_blocks": 1, "n_feats": 8})
    front = front or ConditionalSR(Masker(8), build_sr("espcn", 2), quality, Execution(halo=2))
    system = ConditionalSRDetector(front, YoloDetector("yolo11n.yaml", ["a", "b"])).eval()
    with torch.no_grad():
        for parameter in front.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return system


@pytest.mark.parametrize("policy", ["learned", "budget=0.3", "all_fast", "all_quality"])
def test_fp32_gives_the_same_image_mask_and_boxes(policy):
    system, policy = random_system(), parse_policy(policy)
    prepared = prepare_system(system, CPU, torch.float32)
    lr = torch.rand(2, 3, 48, 64)
    expected, got = (s.predict(lr, policy, conf=0.0) for s in (system, prepared))
    assert (got[1].sr - expected[1].sr).abs().max() <= 1e-5
    assert torch.equal(got[1].mask, expected[1].mask)
    for ours, theirs in zip(got[0], expected[0], strict=True):
        assert (ours[:20, 4] - theirs[:20, 4]).abs().max() <= 1e-4


def test_bf16_is_close_and_the_system_stays_as_it_was():
    system = random_system()
    before = {name: value.clone() for name, value in system.state_dict().items()}
    prepared, lr = prepare_system(system, CPU, torch.bfloat16), torch.rand(1, 3, 48, 64)
    policy = parse_policy("edge=0.5")
    boxes, output = prepared.predict(lr, policy, conf=0.0)
    assert output.sr.dtype == torch.bfloat16 and boxes[0].dtype == torch.float32
    assert (output.sr.float() - system.super_resolve(lr, policy).sr).abs().max() <= 0.05
    assert all(torch.equal(value, before[name]) for name, value in system.state_dict().items())


def test_one_network_everywhere_is_prepared_too():
    system = random_system(SingleSR(build_sr("espcn", 2)))
    prepared, lr = prepare_system(system, CPU, torch.float32), torch.rand(1, 3, 32, 32)
    policy = parse_policy("learned")
    assert (prepared.super_resolve(lr, policy).sr - system.super_resolve(lr, policy).sr).abs().max() <= 1e-5
    assert how_it_runs(prepared).startswith("sr: ") and "detector: " in how_it_runs(prepared)


def test_the_weights_of_the_original_are_let_go():
    system, policy, lr = random_system(), parse_policy("budget=0.3"), torch.rand(1, 3, 32, 32)
    prepared = prepare_system(system, CPU, torch.float32)
    expected, spec = system.super_resolve(lr, policy).sr, system.spec
    tensors = [weakref.ref(parameter) for parameter in system.front.parameters()]
    del system
    gc.collect()
    assert all(tensor() is None for tensor in tensors)
    assert (prepared.super_resolve(lr, policy).sr - expected).abs().max() <= 1e-5
    assert prepared.spec == spec and prepared.front.masker.grid(32, 40) == (4, 5)


def test_tiles_are_merged_as_suits_the_device_and_the_rest_is_run_as_before(monkeypatch):
    monkeypatch.setitem(OVERHEAD, "cpu", 12345.0)
    how = prepare_system(random_system(), CPU, torch.float32).front.execution
    assert how.tiles.overhead == 12345 and (how.halo, how.train_tiles, how.tiles.merge) == (2, False, True)


def test_what_runs_is_named():
    line = how_it_runs(prepare_system(random_system(), CPU, torch.float32))
    assert [part.split(":")[0] for part in line.split("; ")] == ["masker", "sr_fast", "sr_quality", "detector"]
    bicubic = prepare_network(build_sr("bicubic", 2), CPU, torch.float32)
    assert bicubic.how.startswith("eager") and (bicubic.scale, bicubic.capabilities.receptive_radius) == (2, 2)


@pytest.mark.parametrize("policy", ["all_quality", "all_fast", "edge=0.3"])
def test_little_memory_gives_the_same_image(policy):
    system, policy = random_system(), parse_policy(policy)
    ample, scarce = (prepare_front(system.front, CPU, torch.float32, memory_mb=mb) for mb in (1024, 1))
    assert scarce.execution.tiles.max_pixels < 96 * 120 < ample.execution.tiles.max_pixels
    lr = torch.rand(1, 3, 96, 120)
    assert (scarce.infer(lr, policy).sr - ample.infer(lr, policy).sr).abs().max() <= 1e-5


def test_activation_bytes_grow_with_width_and_shrink_with_precision():
    narrow, wide = (build_sr("edsr", 2, {"n_blocks": 1, "n_feats": width}) for width in (8, 32))
    assert activation_bytes(wide, torch.float32) == pytest.approx(4 * activation_bytes(narrow, torch.float32), rel=0.2)
    assert activation_bytes(wide, torch.bfloat16) == activation_bytes(wide, torch.float32) / 2


FAMILIES = ["yolov5nu", "yolov8n", "yolov9t", "yolov10n", "yolo11n", "yolo12n", "yolo26n"]


def detector_with_statistics(model):
    """A detector whose BatchNorm layers have something to fold."""
    torch.manual_seed(0)
    detector = YoloDetector(f"{model}.yaml", ["a", "b"]).eval()
    with torch.no_grad():
        for module in detector.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
    return detector


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")
@pytest.mark.parametrize("model", FAMILIES)
def test_detectors_are_fused_and_find_the_same(model):
    detector = detector_with_statistics(model)
    prepared = prepare_detector(detector, CPU, torch.float32)
    assert prepared.how == "fused oneDNN convolutions, float32"
    image = torch.rand(1, 3, 64, 96)
    expected, got = (d.raw(image, one2one=False) for d in (detector, prepared))
    for name in ("boxes", "scores"):
        theirs, ours = (raw.get("one2many", raw)[name] for raw in (expected, got))
        assert (ours - theirs).abs().max() <= 1e-3 * max(1, theirs.abs().max())


def test_a_fusion_that_changes_the_detector_is_refused(monkeypatch):
    def spoil(net, dtype):
        for parameter in net.parameters():
            parameter.data.normal_()

    monkeypatch.setattr("deployment.prepare_detector.fuse_conv_blocks", spoil)
    detector = detector_with_statistics("yolo11n")
    prepared, image = prepare_detector(detector, CPU, torch.float32), torch.rand(1, 3, 64, 64)
    assert prepared.how.startswith("eager, float32 (its output would differ")
    expected, got = (d.raw(image, one2one=False)["scores"] for d in (detector, prepared))
    assert (got - expected).abs().max() <= 1e-3 * max(1, expected.abs().max())


def test_a_cpu_that_cannot_pack_runs_eagerly(monkeypatch):
    def refuse(net, dtype):
        raise RuntimeError("mkldnn_reorder_conv2d_weight: bf16 path needs the cpu support avx512bw")

    monkeypatch.setattr("deployment.prepare_detector.fuse_conv_blocks", refuse)
    prepared = prepare_detector(detector_with_statistics("yolo11n"), CPU, torch.bfloat16)
    assert "avx512bw" in prepared.how and prepared.predict(torch.rand(1, 3, 64, 64))[0].shape[1] == 6


@pytest.mark.parametrize(("name", "args"), [("carn", {}), ("swinir_light", {}), ("lm_lte", {}), ("rfdn", {})])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_networks_run_prepared(name, args, dtype):
    torch.manual_seed(0)
    quality = build_sr(name, 4, args).eval()
    front = ConditionalSR(Masker(8), build_sr("espcn", 4), quality, Execution(halo=2)).eval()
    prepared, lr = prepare_front(front, CPU, dtype), torch.rand(1, 3, 17, 23)
    policy = parse_policy("edge=0.3")
    with torch.no_grad():
        difference = (prepared.infer(lr, policy).sr.float() - front.infer(lr, policy).sr).abs().max()
    assert difference <= (1e-4 if dtype == torch.float32 else 0.1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_cuda_graphs_give_what_the_cpu_gives(dtype):
    system, cuda = random_system(), torch.device("cuda")
    prepared = prepare_system(system, cuda, dtype)
    policy = parse_policy("edge=0.3")
    for batch in (1, 3, 1):  # the second and third call replay
        lr = torch.rand(batch, 3, 48, 64)
        first = prepared.super_resolve(lr.to(cuda), policy).sr
        kept = first.clone()
        prepared.super_resolve(torch.rand_like(lr).to(cuda), policy)
        assert torch.equal(first, kept), "results are the caller's own"
        expected = system.super_resolve(lr, policy).sr
        assert (first.float().cpu() - expected).abs().max() <= (1e-3 if dtype == torch.float32 else 0.05)
    assert not prepared.front.sr_quality.network.failed
    with torch.inference_mode():
        prepared.super_resolve(torch.rand(2, 3, 40, 40, device=cuda), policy)
    # A graph captured in inference mode serves others.
    prepared.super_resolve(torch.rand(2, 3, 40, 40, device=cuda), policy)
