"""Loss terms: reference values, where they vanish, where their gradient points."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from utils.losses import (
    charbonnier,
    feature_distance,
    object_ranking,
    output_distance,
    reconstruction,
    smoothness,
    sparsity_flops,
    sparsity_mean,
)


def mask_of(share, patches=20):
    return (torch.arange(patches) < share * patches).float().view(1, 1, 4, patches // 4).requires_grad_()


def test_sparsity_mean_is_the_kept_share():
    assert sparsity_mean(mask_of(0.25)).item() == pytest.approx(0.25)


def test_charbonnier_by_hand():
    """sqrt(0.3^2 + 0.4^2) at one of two pixels, epsilon at the other."""
    hr = torch.zeros(1, 1, 1, 2)
    assert charbonnier(torch.tensor([0.3, 0.0]).view_as(hr), hr, 0.4).item() == pytest.approx((0.5 + 0.4) / 2)


@pytest.mark.parametrize("fast_share", [0.0, 0.02, 0.2])
@pytest.mark.parametrize("target", [0.1, 0.25, 0.5])
def test_sparsity_flops_vanishes_at_the_target_share_only(target, fast_share):
    assert sparsity_flops(mask_of(target), target, fast_share).item() == pytest.approx(0, abs=1e-12)
    for share in (0.0, 0.75, 1.0):
        mask = mask_of(share)
        loss = sparsity_flops(mask, target, fast_share)
        assert loss.item() == pytest.approx(((1 - fast_share) * (share - target)) ** 2, rel=1e-5)
        loss.backward()
        assert ((mask.grad > 0) == (share > target)).all()


def test_sparsity_flops_leads_to_the_target():
    logits = torch.full((1, 1, 8, 8), 2.0, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        (10 * sparsity_flops(logits.sigmoid(), 0.25, 0.2)).backward()
        optimizer.step()
    assert logits.sigmoid().mean().item() == pytest.approx(0.25, abs=0.02)


def test_smoothness_is_the_mean_difference_of_neighbours():
    probability = torch.tensor([[0.0, 1.0, 0.5], [0.0, 0.0, 0.5]])[None, None]
    assert smoothness(probability).item() == pytest.approx((1 + 0.5 + 0 + 0.5 + 0 + 1 + 0) / 7)
    assert smoothness(torch.full((2, 1, 5, 5), 0.3)) == 0


@pytest.mark.parametrize("grid", [(1, 1), (1, 4), (4, 1)])
def test_smoothness_of_a_thin_grid_is_finite(grid):
    probability = torch.rand(2, 1, *grid, requires_grad=True)
    loss = smoothness(probability)
    loss.backward()
    assert loss.isfinite() and probability.grad.isfinite().all()


def test_reconstruction_is_l1_and_refuses_other_shapes():
    assert reconstruction(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.25)).item() == pytest.approx(0.25)
    with pytest.raises(ValueError, match=r"SR is \(1, 3, 4, 4\) but HR is \(1, 1, 4, 4\)"):
        reconstruction(torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4))


def test_feature_distance_is_relative_and_a_mean_over_levels():
    target = [torch.full((2, 3, 4, 4), 2.0), torch.full((2, 5, 2, 2), -4.0)]
    own = [torch.full((2, 3, 4, 4), 3.0), torch.full((2, 5, 2, 2), -3.0)]
    assert feature_distance(own, target).item() == pytest.approx((1 / 2 + 1 / 4) / 2)
    scaled = feature_distance([100 * level for level in own], [100 * level for level in target])
    assert scaled.item() == pytest.approx(0.375)
    assert feature_distance(target, target) == 0
    silent = [torch.zeros_like(level) for level in target]
    assert feature_distance(silent, target) == 1 and feature_distance(own, silent).isfinite()


def test_feature_distance_refuses_another_architecture():
    with pytest.raises(ValueError, match=r"losses\.distill: .*\(3, 4, 4\).*\(5, 4, 4\).*losses\.teacher"):
        feature_distance([torch.zeros(1, 3, 4, 4)], [torch.zeros(1, 5, 4, 4)])
    with pytest.raises(ValueError, match="neck features"):
        feature_distance([torch.zeros(1, 3, 4, 4)] * 2, [torch.zeros(1, 3, 4, 4)])


@pytest.mark.parametrize("bins", [1, 16])
def test_output_distance_is_its_formula(bins):
    scores, target_scores = torch.randn(2, 3, 7), torch.randn(2, 3, 7)
    boxes, target_boxes = torch.randn(2, 4 * bins, 7), torch.randn(2, 4 * bins, 7)
    p, q = target_scores.sigmoid(), scores.sigmoid()
    expected, weights = 0.0, 0.0
    for image in range(2):
        for anchor in range(7):
            mine, theirs = q[image, :, anchor], p[image, :, anchor]
            expected += (F.binary_cross_entropy(mine, theirs) - F.binary_cross_entropy(theirs, theirs)) * 3
            weight, sides = theirs.max(), 0.0
            for side in range(4):
                a = boxes[image, side * bins : (side + 1) * bins, anchor]
                b = target_boxes[image, side * bins : (side + 1) * bins, anchor]
                sides += (
                    (a - b).abs().sum() if bins == 1 else (b.softmax(0) * (b.softmax(0) / a.softmax(0)).log()).sum()
                )
            expected += weight * sides / 4
            weights += weight
    found = output_distance(scores, boxes, target_scores, target_boxes)
    assert found.item() == pytest.approx((expected / max(weights, 1)).item(), rel=1e-4)


@pytest.mark.parametrize("bins", [1, 16])
def test_output_distance_vanishes_with_its_gradient_where_both_agree(bins):
    target_scores, target_boxes = torch.randn(2, 3, 7) * 4, torch.randn(2, 4 * bins, 7)
    scores, boxes = target_scores.clone().requires_grad_(), target_boxes.clone().requires_grad_()
    distance = output_distance(scores, boxes, target_scores, target_boxes)
    assert distance.item() == pytest.approx(0, abs=1e-6)
    gradients = torch.autograd.grad(distance, [scores, boxes])
    assert all(gradient.abs().max() < 1e-6 for gradient in gradients)


def test_boxes_count_where_the_teacher_sees_something():
    scores = torch.tensor([[[9.0, -30.0]]])  # one class, two anchors: an object and nothing
    target = torch.zeros(1, 4, 2)
    at_object, at_nothing = target.clone(), target.clone()
    at_object[:, 0, 0], at_nothing[:, 0, 1] = 1.0, 1.0
    assert output_distance(scores, at_object, scores, target).item() == pytest.approx(0.25, rel=1e-3)
    assert output_distance(scores, at_nothing, scores, target).item() < 1e-6


def test_output_distance_refuses_other_heads():
    with pytest.raises(ValueError, match=r"losses\.distill_outputs: .*losses\.teacher"):
        output_distance(torch.zeros(1, 3, 7), torch.zeros(1, 64, 7), torch.zeros(1, 3, 7), torch.zeros(1, 4, 7))


def test_padding_has_no_part_in_any_mean():
    image = torch.zeros(2, 1, 4, 5, dtype=torch.bool)
    image[:, :, 1:3] = True
    inner = torch.rand(2, 1, 2, 5)
    objects = torch.randint(3, (2, 1, 4, 5)).float()
    for level in (0.0, 0.5, 1.0):
        values = torch.full((2, 1, 4, 5), level)
        values[:, :, 1:3] = inner
        values.requires_grad_()
        pairs = [
            (sparsity_mean(values, image), sparsity_mean(inner)),
            (sparsity_flops(values, 0.3, 0.1, image), sparsity_flops(inner, 0.3, 0.1)),
            (smoothness(values, image), smoothness(inner)),
            (object_ranking(values, objects, image), object_ranking(inner, objects[:, :, 1:3])),
            (reconstruction(values, objects, image), reconstruction(inner, objects[:, :, 1:3])),
        ]
        for found, expected in pairs:
            torch.testing.assert_close(found, expected)
            (gradient,) = torch.autograd.grad(found, values)
            assert gradient.isfinite().all() and not gradient[~image].any() and gradient[image].any()
        nowhere = torch.zeros_like(image)
        assert sparsity_mean(values, nowhere) == smoothness(values, nowhere) == 0
        assert object_ranking(values, objects, nowhere) == reconstruction(values, objects, nowhere) == 0


def test_object_ranking_by_hand():
    """Scores whose softmax over the whole batch is 0.1, 0.2, 0.3 and 0.4; one object in the first patch, two in the
    third."""
    score = torch.tensor([1.0, 2.0, 3.0, 4.0]).log().add(5).view(2, 1, 1, 2).requires_grad_()
    objects = torch.tensor([1.0, 0.0, 2.0, 0.0]).view(2, 1, 1, 2)
    loss = object_ranking(score, objects)
    assert loss.item() == pytest.approx(-(math.log(0.1) + 2 * math.log(0.3)) / 3, rel=1e-6)
    loss.backward()
    expected = torch.tensor([0.1 - 1 / 3, 0.2, 0.3 - 2 / 3, 0.4])  # softmax minus the share of objects
    torch.testing.assert_close(score.grad.flatten(), expected)
