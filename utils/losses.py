"""Loss terms: Charbonnier of SR training; sparsity, smoothness, reconstruction and distillation of joint training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F


def charbonnier(sr: torch.Tensor, hr: torch.Tensor, epsilon: float = 1e-3) -> torch.Tensor:
    """Mean of sqrt(d^2 + epsilon^2), a smooth absolute difference (Lai et al. 2017, arXiv:1704.03915).

    Args:
        sr: (B, 3, H, W) in [0, 1].
        hr: the same shape.
        epsilon: where it bends, in the same units.
    """
    return ((sr - hr).square() + epsilon**2).sqrt().mean()


def mean_over(values: torch.Tensor, image: torch.Tensor | None) -> torch.Tensor:
    """Mean of the values where `image` (bool, broadcastable) is true, 0 where it is nowhere; None: everywhere."""
    if image is None:
        return values.mean()
    image = image.expand_as(values)
    return (values * image).sum() / image.sum().clamp_min(1)


def sparsity_mean(mask: torch.Tensor, image: torch.Tensor | None = None) -> torch.Tensor:
    """Share of patches (B, 1, gh, gw) that SR_Quality computes, in [0, 1]; pushes towards none.

    `image`, here and below: bool (B, 1, gh, gw), true at the patches that hold image and thus count; None: all do.
    """
    return mean_over(mask, image)


def sparsity_flops(
    mask: torch.Tensor, target: float, fast_share: float = 0.0, image: torch.Tensor | None = None
) -> torch.Tensor:
    """(F / F_full - F_target / F_full)^2, the form of LAUDNet (Han et al. 2023, arXiv:2308.15949); about 10 x L_det.

    SR costs F(k) = F_fixed + k * F_quality when the share k of patches is kept; F_fixed is what always runs (masker and
    SR_Fast) and F_full = F(1). The target is a kept share, F_target = F(target), so the loss vanishes at k = target
    whatever the fixed part is. Halos do not count: they belong to the execution, not to the network.

    Args:
        mask: patches (B, 1, gh, gw), 1 where SR_Quality runs; k is its mean over the image patches of the batch.
        target: kept share to reach, in [0, 1].
        fast_share: F_fixed / F_full, in [0, 1).
        image: see `sparsity_mean`.
    """
    cost = fast_share + (1 - fast_share) * mean_over(mask, image)
    return (cost - (fast_share + (1 - fast_share) * target)).square()


def smoothness(probability: torch.Tensor, image: torch.Tensor | None = None) -> torch.Tensor:
    """Total variation of the mask probabilities (B, 1, gh, gw): mean absolute difference of neighbouring patches.

    With `image`, see `sparsity_mean`, of neighbours that both hold image.
    """
    rows, columns = probability.diff(dim=2).abs(), probability.diff(dim=3).abs()
    if image is not None:
        both = image[:, :, 1:] & image[:, :, :-1], image[..., 1:] & image[..., :-1]
        pairs = both[0].sum() + both[1].sum()
        return ((rows * both[0]).sum() + (columns * both[1]).sum()) / pairs.clamp_min(1)
    return (rows.sum() + columns.sum()) / max(rows.numel() + columns.numel(), 1)  # a single patch has no neighbours


def object_ranking(score: torch.Tensor, objects: torch.Tensor, image: torch.Tensor | None = None) -> torch.Tensor:
    """Listwise cross-entropy between the masker's scores and where objects lie, in the manner of ListNet (Cao et al.
    2007) with the counts themselves as target.

    - sum_i n_i log softmax(score)_i / sum_i n_i over all patches i of the batch. It orders patches by the objects that
    they are expected to hold (score = log of that number + constant) and leaves the level, hence the kept share, to the
    sparsity loss.

    Args:
        score: (B, 1, gh, gw), see ConditionalOutput.
        objects: number of objects n in every patch, of the same shape; 0 is returned where there are none.
        image: see `sparsity_mean`; other patches take no part.

    Raises:
        ValueError: the shapes differ.
    """
    if score.shape != objects.shape:
        raise ValueError(f"object ranking: scores are {tuple(score.shape)}, objects {tuple(objects.shape)}")
    score = score.float()
    if image is not None:  # the least finite score instead of minus infinity, which times no objects would be no number
        score = score.masked_fill(~image, torch.finfo(score.dtype).min)
        objects = objects * image
    share = score.flatten().log_softmax(0).view_as(score)
    return -(objects * share).sum() / objects.sum().clamp_min(1)


def reconstruction(sr: torch.Tensor, hr: torch.Tensor, pixels: torch.Tensor | None = None) -> torch.Tensor:
    """Mean absolute difference of SR and HR images (B, 3, H, W) in [0, 1].

    Args:
        sr, hr: the images.
        pixels: bool (B, 1, H, W), true where there is image; padding, which any network reproduces, would only dilute
            the mean. None: everywhere.

    Raises:
        ValueError: the shapes differ.
    """
    if sr.shape != hr.shape:
        raise ValueError(f"reconstruction loss: SR is {tuple(sr.shape)} but HR is {tuple(hr.shape)}")
    return F.l1_loss(sr, hr) if pixels is None else mean_over((sr - hr).abs(), pixels)


def feature_distance(features: Sequence[torch.Tensor], target: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean over levels of mean |f - t| / mean |t|: L1 without a scale, 1 where all features are silent.

    Args:
        features: one (B, C, h, w) a level.
        target: the teacher's, of the same shapes, without gradient.

    Raises:
        ValueError: number of levels or shapes differ.
    """
    shapes = [[tuple(level.shape[1:]) for level in levels] for levels in (features, target)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"losses.distill: the detector's neck features are {shapes[0]}, the teacher's {shapes[1]}; name a teacher "
            "of the same architecture in losses.teacher, or use losses.distill_outputs"
        )
    distances = [
        (own.float() - wanted.float()).abs().mean() / wanted.float().abs().mean().clamp_min(1e-6)
        for own, wanted in zip(features, target)
    ]
    return torch.stack(distances).mean()


def output_distance(
    scores: torch.Tensor, boxes: torch.Tensor, target_scores: torch.Tensor, target_boxes: torch.Tensor
) -> torch.Tensor:
    """Distance of undecoded predictions from a teacher's, 0 where they agree.

    With the teacher's class probabilities p and its highest one w at each anchor, and q those of the detector,
    (sum [BCE(q, p) - BCE(p, p)] + sum w D) / max(sum w, 1). BCE(p, p) has no gradient, it only moves the zero. D is the
    mean over the four sides of KL(teacher's bins || own bins), or |difference| in cells where a side is one number.

    Args:
        scores: logits (B, classes, anchors).
        boxes: logits (B, 4 * bins, anchors) of the distribution of each side's distance; bins may be 1.
        target_scores, target_boxes: the teacher's, without gradient.

    Raises:
        ValueError: shapes differ.
    """
    shapes = [(tuple(s.shape[1:]), tuple(b.shape[1:])) for s, b in ((scores, boxes), (target_scores, target_boxes))]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"losses.distill_outputs: the detector gives scores and boxes {shapes[0]}, the teacher {shapes[1]}; name "
            "a teacher with the same classes and the same kind of head in losses.teacher"
        )
    probability = target_scores.sigmoid()
    weight = probability.amax(1)  # (B, anchors)
    classes = F.binary_cross_entropy_with_logits(scores, probability, reduction="none")
    classes = classes - F.binary_cross_entropy_with_logits(target_scores, probability, reduction="none")
    own, wanted = (x.unflatten(1, (4, -1)) for x in (boxes, target_boxes))  # (B, 4, bins, anchors)
    if own.shape[2] == 1:
        sides = (own - wanted).abs()[:, :, 0]
    else:
        sides = F.kl_div(own.log_softmax(2), wanted.log_softmax(2), reduction="none", log_target=True).sum(2)
    return (classes.sum() + (weight * sides.mean(1)).sum()) / weight.sum().clamp_min(1.0)
