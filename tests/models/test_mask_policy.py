"""Mask policies: exact counts, determinism, independence of the batch, messages."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.mask_policy import MaskPolicy, gradient_energy, parse_policy, top_share

ALL_FORMS = ["learned", "threshold=0.6", "budget=0.25", "all_fast", "all_quality", "random=0.3", "edge=0.4"]


def logits_of(score):
    """Logits (B, 2, gh, gw) whose difference is `score` (B, gh, gw)."""
    return torch.stack([torch.zeros_like(score), score], dim=1)


@pytest.mark.parametrize("text", ALL_FORMS)
def test_text_and_policy_are_the_same(text):
    assert str(parse_policy(text)) == text
    assert parse_policy(text).needs_masker == (text.partition("=")[0] in ("learned", "threshold", "budget"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "unknown kind ''"),
        ("best", "unknown kind 'best'"),
        ("budget", "budget needs a value"),
        ("budget=", "'' is no number"),
        ("budget=lots", "'lots' is no number"),
        ("budget=1.5", "1.5 is outside"),
        ("threshold=-0.1", "-0.1 is outside"),
        ("random=nan", "nan is outside"),
        ("learned=0.5", "learned takes no value"),
    ],
)
def test_a_wrong_policy_lists_the_valid_forms(text, problem):
    with pytest.raises(ValueError, match=problem) as error:
        parse_policy(text)
    for form in ("learned", "threshold=T", "budget=R", "all_fast", "all_quality", "random=R", "edge=R"):
        assert form in str(error.value)


@given(
    batch=st.integers(1, 3), rows=st.integers(1, 9), columns=st.integers(1, 9), share=st.floats(0, 1),
    levels=st.integers(1, 100), seed=st.integers(0, 1000),
)  # fmt: skip
@settings(deadline=None, max_examples=100)
def test_a_share_is_met_exactly_in_every_image(batch, rows, columns, share, levels, seed):
    score = torch.randint(levels, (batch, rows, columns), generator=torch.Generator().manual_seed(seed)).float()
    lr = torch.rand(batch, 3, 4 * rows, 4 * columns)
    for kind in ("budget", "random", "edge"):
        mask = MaskPolicy(kind, share).select(lr, logits_of(score), 4)
        assert mask.shape == score.shape and mask.dtype == torch.bool
        assert mask.sum((1, 2)).tolist() == [round(share * rows * columns)] * batch
    chosen = MaskPolicy("budget", share).select(lr, logits_of(score), 4)
    for image, selected in zip(score, chosen, strict=True):
        if 0 < selected.sum() < selected.numel():
            assert image[selected].min() >= image[~selected].max()


def test_ties_go_to_the_first_patches():
    assert top_share(torch.zeros(1, 2, 3), 0.5).flatten().tolist() == [True] * 3 + [False] * 3


def test_learned_and_threshold_read_the_probability():
    score = torch.tensor([[[-2.0, 0.0], [1e-6, 2.0]]])
    lr = torch.rand(1, 3, 8, 8)
    assert parse_policy("learned").select(lr, logits_of(score), 4).tolist() == [[[False, False], [True, True]]]
    for threshold in (0.0, 0.1, 0.5, 0.8, 1.0):
        expected = score.sigmoid() > threshold
        assert torch.equal(MaskPolicy("threshold", threshold).select(lr, logits_of(score), 4), expected)


def test_all_fast_and_all_quality():
    lr = torch.rand(2, 3, 9, 5)
    assert parse_policy("all_quality").select(lr, None, 4).all()
    mask = parse_policy("all_fast").select(lr, None, 4)
    assert mask.shape == (2, 3, 2) and not mask.any()


@pytest.mark.parametrize("text", ALL_FORMS)
def test_every_image_is_judged_on_its_own_and_repeatably(text):
    lr, score = torch.rand(3, 3, 37, 41), torch.randn(3, 10, 11)
    policy = parse_policy(text)
    mask = policy.select(lr, logits_of(score), 4)
    torch.rand(7)  # the state of the global generator has no influence
    singles = [policy.select(lr[i : i + 1], logits_of(score[i : i + 1]), 4) for i in range(3)]
    assert torch.equal(mask, torch.cat(singles))


def test_random_differs_between_images_and_ignores_the_precision():
    lr = (torch.rand(2, 3, 64, 64) * 255).round() / 255
    mask = parse_policy("random=0.5").select(lr, None, 8)
    assert not torch.equal(mask[0], mask[1])
    assert torch.equal(parse_policy("random=0.5").select(lr.half(), None, 8), mask)


def test_edge_takes_the_patches_with_contrast():
    lr = torch.full((1, 3, 20, 18), 0.5)
    lr[..., 9, 10] = 1.0
    mask = parse_policy("edge=0.05").select(lr, None, 4)
    assert mask.nonzero().tolist() == [[0, 2, 2]]
    lr = torch.rand(1, 3, 20, 18)
    grey = lr.mean(1)
    assert gradient_energy(lr, 4).sum() == pytest.approx(
        (grey.diff(dim=1).square().sum() + grey.diff(dim=2).square().sum()).item(), rel=1e-4
    )


def test_missing_logits_are_named():
    with pytest.raises(ValueError, match="needs the masker's logits"):
        parse_policy("budget=0.5").select(torch.rand(1, 3, 8, 8), None, 4)


@pytest.mark.parametrize("place", [(-1, -1), (0, 0), (-1, 0), (17, 30)])
def test_random_masks_of_images_that_differ_in_one_pixel(place):
    """Every image of a batch has a mask of its own, wherever the difference lies."""
    lr = torch.rand(1, 3, 64, 64).repeat(4, 1, 1, 1)
    lr[:, 2, place[0], place[1]] = torch.tensor([0.0, 0.3, 0.6, 1.0])
    policy = parse_policy("random=0.5")
    masks = policy.select(lr, None, 8)
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == 4
    assert torch.equal(masks, torch.cat([policy.select(image[None], None, 8) for image in lr]))
