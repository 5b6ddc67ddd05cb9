"""Graphs compute what systems do, at any size, before any of them is written."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deployment.export.graphs import BudgetGraph, CallGraph, DetectorGraph, SRGraph, masker_logits
from models import build_sr
from models.conditional_sr import ConditionalSR
from models.mask_policy import MaskPolicy, parse_policy
from models.masker import Masker
from models.single_sr import HRImages, SingleSR
from models.sr_fast import cubic_convolution
from models.system import ConditionalSRDetector
from models.tiling.run_patches import TileOptions
from prediction.predictor import PredictOptions, Predictor
from tests.deployment.export.tiny import tiny_system
from utils.convert import GREY
from utils.errors import UserError

SIZES = st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 70))
SHARES = (0.1, 0.25, 0.35, 0.5, 0.9)


def padded(images: torch.Tensor, unit: int) -> torch.Tensor:
    height, width = images.shape[-2:]
    return torch.nn.functional.pad(images, (0, -width % unit, 0, -height % unit), value=GREY / 255)


@functools.cache
def kept_system(patch: int, halo: int | None) -> ConditionalSRDetector:
    return tiny_system(patch, halo=halo)


@torch.no_grad()
def compare_with_the_front_end(front: ConditionalSR, share: float, size: tuple[int, int, int], seed: int) -> None:
    images = torch.rand(size[0], 3, *size[1:], generator=torch.Generator().manual_seed(seed))
    lr, content = padded(images, 4), torch.tensor([[[0, 0, *size[1:]]]] * size[0])
    expected = front.infer(lr, MaskPolicy("budget", share), content)
    sr, mask = BudgetGraph(front, share)(lr, *size[1:])
    assert torch.equal(mask, expected.mask[:, 0])
    torch.testing.assert_close(sr, expected.sr, atol=1e-5, rtol=0)


@pytest.mark.parametrize("patch", [8, 6])
@settings(max_examples=8)
@given(size=SIZES, share=st.sampled_from(SHARES), seed=st.integers(0, 99))
def test_with_the_exact_halo_the_budget_graph_is_the_front_end(patch: int, size: tuple, share: float, seed: int):
    compare_with_the_front_end(kept_system(patch, None).front, share, size, seed)


@pytest.mark.parametrize(("patch", "halo"), [(8, 1), (6, 2), (16, 2)])
@settings(max_examples=5)
@given(size=st.tuples(st.integers(1, 2), st.integers(24, 70), st.integers(24, 70)), seed=st.integers(0, 99))
def test_with_a_short_halo_it_is_the_front_end_that_merges_no_patches(patch: int, halo: int, size: tuple, seed: int):
    front = kept_system(patch, halo).front.with_execution(tiles=TileOptions(merge=False))
    compare_with_the_front_end(front, 0.2, size, seed)


@torch.no_grad()
def test_equal_scores_are_taken_in_reading_order():
    system = tiny_system()
    images = torch.full((1, 3, 40, 40), 0.3)
    _, mask = BudgetGraph(system.front, 0.25)(images, 40, 40)
    assert torch.equal(mask, system.super_resolve(images, parse_policy("budget=0.25")).mask[:, 0])


@torch.no_grad()
def test_where_windows_cost_more_than_the_image_the_image_is_computed():
    front = tiny_system(patch=4, halo=4).front
    graph = BudgetGraph(front, 0.5)
    assert graph.dense and not BudgetGraph(front, 0.1).dense
    lr = torch.rand(2, 3, 32, 32)
    sr, mask = graph(lr, 32, 32)
    torch.testing.assert_close(sr, front.fuse(front.sr_fast(lr), front.sr_quality(lr), mask[:, None]).clamp(0, 1))


@torch.no_grad()
@settings(max_examples=20)
@given(size=SIZES, scale=st.sampled_from((2, 3, 4)))
def test_bicubic_without_matrices_is_bicubic(size: tuple, scale: int):
    lr = torch.rand(size[0], 3, *size[1:])
    torch.testing.assert_close(cubic_convolution(lr, scale), build_sr("bicubic", scale)(lr), atol=2e-6, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("patch", [4, 5, 6, 7, 16])
def test_logits_are_those_of_the_masker(patch: int):
    masker = Masker(patch, 4).eval()
    for size in ((40, 64), (43, 51), (3, 50), (1, 1)):
        lr = torch.rand(2, 3, *size)
        torch.testing.assert_close(masker_logits(masker, lr), masker(lr), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("policy", ["budget=0.25", "all_fast", "all_quality", "budget=0", "budget=1"])
def test_the_call_finds_the_boxes_of_the_predictor(policy: str):
    system = tiny_system().with_execution(tiles=TileOptions(merge=False))
    predictor = Predictor(system, torch.device("cpu"))
    predictor.system = system  # as it is: rounding of fused layers is no part of this test
    graph, image = (
        CallGraph(system, parse_policy(policy)).eval(),
        np.random.default_rng(0).integers(0, 256, (43, 51, 3)),
    )
    image = image.astype(np.uint8)
    (expected,) = predictor([image], PredictOptions(parse_policy(policy), conf=0.2))
    with torch.no_grad():
        found, sr, *_ = graph(torch.from_numpy(image).permute(2, 0, 1)[None] / 255)
    torch.testing.assert_close(sr[0], expected.sr.image, atol=1e-5, rtol=0)
    best = found[0, :, found[0, 4:].amax(0) > 0.2].T
    assert len(expected.boxes) > 3
    for box in expected.boxes:
        ours = torch.cat((best[:, :2] - best[:, 2:4] / 2, best[:, :2] + best[:, 2:4] / 2), 1)
        ours = ours.clamp(min=0).minimum(torch.tensor([51.0, 43, 51, 43]))
        assert (ours - torch.from_numpy(box[:4])).abs().amax(1).min() < 1e-3


@torch.no_grad()
def test_one_network_or_none_before_the_detector():
    detector = tiny_system().detector
    images = torch.rand(1, 3, 20, 24)
    for front in (SingleSR(build_sr("bicubic", 2)), HRImages()):
        system = ConditionalSRDetector(front.eval(), detector)
        found, sr = CallGraph(system, MaskPolicy("all_fast"))(images)
        assert sr.shape[-2:] == (20 * front.scale, 24 * front.scale)
        (whole,) = DetectorGraph(detector)(front.infer(padded(images, 16 // front.scale), None).sr)
        torch.testing.assert_close(found[:, :4] * front.scale, whole[:, :4])


def refusal(**capabilities) -> str:
    network = build_sr("edsr", 4, {"n_blocks": 1, "n_feats": 8})
    network.capabilities = replace(network.capabilities, **capabilities)
    with pytest.raises(UserError) as error:
        SRGraph(network)
    return str(error.value)


def test_networks_without_a_fixed_graph_are_refused_by_name_and_reason():
    assert "edsr cannot be exported: it draws noise" in refusal(stochastic=True)
    assert "15 passes" in refusal(steps=15)
    assert "fade into each other" in refusal(tiling="own")
    with pytest.raises(UserError, match="lm_liif cannot be exported: it colours single points"):
        SRGraph(build_sr("lm_liif", 4))


def test_a_conditional_system_names_the_role_of_what_it_refuses():
    front = tiny_system().front
    front.sr_quality.capabilities = replace(front.sr_quality.capabilities, steps=4)
    with pytest.raises(UserError, match="sr_quality edsr cannot be exported"):
        CallGraph(ConditionalSRDetector(front, tiny_system().detector), parse_policy("budget=0.25"))


@pytest.mark.parametrize("policy", ["learned", "threshold=0.5", "random=0.25", "latency_ms=3"])
def test_policies_without_a_fixed_number_of_patches_are_refused(policy: str):
    with pytest.raises(UserError, match=r"no fixed number of patches.*budget=R"):
        CallGraph(tiny_system(), parse_policy(policy))


def test_a_shared_stem_is_seen():
    system = tiny_system()
    fast = build_sr("espcn", 4)
    masker = Masker(8, 4, stem=fast.features).eval()
    front = ConditionalSR(masker, fast, system.front.sr_quality, system.front.execution).eval()
    lr = torch.rand(1, 3, 21, 30)
    with torch.no_grad():
        torch.testing.assert_close(masker_logits(front.masker, lr), front.masker(lr), atol=1e-5, rtol=1e-4)
