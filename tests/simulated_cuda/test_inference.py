"""Prepared systems on the simulated device: what graphs replay is what the CPU computes; how often a call waits."""

from __future__ import annotations

import warnings

import pytest
import torch

from deployment.prepare import prepare_network, prepare_system
from models import build_sr
from models.lmf.tiled import super_resolve_tiled
from models.mask_policy import parse_policy
from models.sliced_detection import SlicedDetector, Slicer
from tests.simulated_cuda.systems import ARGS, POLICIES, image, tiny_detector, tiny_system

CUDA = torch.device("cuda")
# Host waits of a whole call: the one copy at the end; before it the number of patches that the device alone knows, and
# the pixels by which the host draws random patches, and these.
WAITS = {"learned": 2, "threshold": 2, "random": 3} | dict.fromkeys(("budget", "edge", "all_fast", "all_quality"), 1)
ONE = pytest.param((1, 48, 64), marks=pytest.mark.slow)
SIZES = pytest.mark.parametrize("size", [(2, 48, 64), ONE], ids=["batch", "one"])


LONG = pytest.param(torch.float32, (1, 48, 64), marks=pytest.mark.slow)
CASES = [(torch.float32, (3, 44, 52)), pytest.param(torch.float16, (1, 48, 64), marks=pytest.mark.slow), LONG]


@pytest.mark.parametrize(("dtype", "size"), CASES, ids=["partial", "half", "even"])
def test_graphs_give_what_the_cpu_gives(cuda, dtype, size):
    system, tolerance = tiny_system(), 1e-5 if dtype is torch.float32 else 2e-3
    expected = {}
    for policy in POLICIES:
        for seed in (0, 1):
            with torch.no_grad():
                expected[policy, seed] = system.super_resolve(image(*size, seed), parse_policy(policy)).sr
    prepared = prepare_system(system, CUDA, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for policy in POLICIES:
            for _ in range(2):  # seen, seen, captured, replayed
                for seed in (0, 1):
                    got = prepared.super_resolve(image(*size, seed).cuda(), parse_policy(policy)).sr
                    assert (got.float().cpu() - expected[policy, seed]).abs().max() <= tolerance, policy
    assert len(prepared.calls.fronts.graphs) >= 5 and not cuda.broken


@SIZES
def test_a_whole_call_waits_once(cuda, size):
    system = tiny_system()
    prepared = prepare_system(system, CUDA, torch.float32)
    images = {seed: image(*size, seed) for seed in range(2)}
    on_device = {seed: lr.cuda() for seed, lr in images.items()}
    for text in POLICIES:
        policy = parse_policy(text)
        expected = [system.predict(lr, policy) for lr in images.values()]
        for _ in range(3):
            prepared.predict(on_device[0], policy)
        cuda.reset()
        found = [prepared.predict(lr, policy) for lr in on_device.values()]
        assert cuda.total() == 2 * WAITS[text.partition("=")[0]], f"{text}\n{cuda.report()}"
        for (boxes, output), (theirs, reference) in zip(found, expected, strict=True):
            assert (output.sr.cpu() - reference.sr).abs().max() < 1e-5
            assert torch.equal(output.mask.cpu(), reference.mask)
            assert [len(own) for own in boxes] == [len(own) for own in theirs] and len(boxes[0])
            alone = prepared.detector.predict(output.sr)  # as Ultralytics suppresses them
            assert all(torch.equal(own, other.cpu()) for own, other in zip(boxes, alone, strict=True))
            if reference.probability is not None:
                assert (output.probability.cpu() - reference.probability).abs().max() < 1e-5


def test_a_budget_is_one_launch(cuda):
    prepared, lr = prepare_system(tiny_system(), CUDA, torch.float32), image(1, 48, 64).cuda()
    for _ in range(3):
        prepared.predict(lr, parse_policy("budget=0.25"))
    cuda.reset()
    prepared.predict(lr, parse_policy("budget=0.25"))
    assert (cuda.replays, cuda.captures) == (1, 0) and cuda.launches <= 5  # copies in and out beside it


def test_padding_takes_no_part_and_no_wait(cuda):
    system, policy, lr = tiny_system(), parse_policy("budget=0.25"), image(2, 48, 64)
    content = torch.tensor([[[0, 0, 40, 64]], [[0, 0, 48, 30]]])
    expected = system.predict(lr, policy, content=content)[1]
    prepared, lr = prepare_system(system, CUDA, torch.float32), lr.cuda()
    for _ in range(4):
        cuda.reset()
        output = prepared.predict(lr, policy, content=content)[1]
        assert torch.equal(output.mask.cpu(), expected.mask)
    assert cuda.total() == 1 and cuda.replays == 1


CAPTURED = ("bicubic", "espcn", "fsrcnn", "edsr", "srresnet", "carn", "carn_m", "imdn", "rfdn", "span", "rcan")


@pytest.mark.parametrize("name", [*CAPTURED, "swinir_light"])
def test_networks_are_captured(cuda, name):
    network = build_sr(name, 2, ARGS.get(name)).eval()
    with torch.no_grad():
        expected = [network(image(1, 16, 16, seed)) for seed in (0, 1)]
    prepared = prepare_network(network, CUDA, torch.float32)
    images = [image(1, 16, 16, seed).cuda() for seed in (0, 1)]
    with torch.no_grad():
        for _ in range(3):
            prepared(images[0])
        with cuda.no_syncs():
            got = [prepared(lr) for lr in images]  # the second replay may not change what the first one gave
    assert cuda.captures == 1
    assert all((own.cpu() - sr).abs().max() < 1e-5 for own, sr in zip(got, expected, strict=True))


def test_swinir_computes_in_half_precision(cuda):
    prepared = prepare_network(build_sr("swinir_light", 2, ARGS["swinir_light"]).eval(), CUDA, torch.float16)
    assert prepared.how == "CUDA graphs, float16"


def test_sliced_detection_waits_once(cuda):
    detector, lr = tiny_detector(), image(2, 48, 64)
    sliced = SlicedDetector(Slicer(2, 2, 2, 0.25, True), detector).eval()
    expected = sliced.predict(lr, parse_policy("all_fast"))[0]
    sliced.to("cuda")
    lr = lr.cuda()
    for _ in range(2):
        cuda.reset()
        found = sliced.predict(lr, parse_policy("all_fast"))[0]
    own = {key: number for key, number in cuda.syncs.items() if " > " not in key[1]}
    assert sum(own.values()) == 1, cuda.report()
    assert len(expected[0]) and all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_tiles_of_lmf_do_not_wait(cuda):
    torch.manual_seed(0)
    network, lr = build_sr("lm_lte", 2, {"n_blocks": 1, "n_feats": 8}).eval(), image(1, 24, 30)
    expected = super_resolve_tiled(network, lr, (60, 75), 8, 4)
    network.to("cuda")
    on_device = lr.cuda()
    super_resolve_tiled(network, on_device, (60, 75), 8, 4)
    with cuda.no_syncs():
        found = super_resolve_tiled(network, on_device, (60, 75), 8, 4)
    assert (found.cpu() - expected).abs().max() < 1e-5
