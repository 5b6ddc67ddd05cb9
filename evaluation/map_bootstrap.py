"""How certain an mAP is: images are drawn with replacement, the same ones for every row, and it is computed again.

A paired bootstrap over images (Efron & Tibshirani 1993, chapter 10). Detections are matched with ground truth once, by
pycocotools; a draw only changes how often an image counts, so that thousands of AP are cumulative sums of weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from utils.metrics import GroundTruth, coco_evaluation

MOST = 100  # detections of an image and class that count, as in COCO
RECALLS = torch.from_numpy(np.linspace(0, 1, 101))  # pycocotools compares with these very numbers
CELLS = 4_000_000  # numbers in one tensor, bounds the memory
LOW, HIGH = 2.5, 97.5  # percentiles of an interval


@dataclass(frozen=True)
class ClassMatches:
    """Detections of one class, best first.

    Args:
        image: int64 (D,), index of the image of each.
        hit: bool (T, D), whether it has found an object at each of the IoU thresholds.
        objects: float64 (I,), ground-truth objects of every image.
    """

    image: Tensor
    hit: Tensor
    objects: Tensor


def class_matches(
    ground_truth: Sequence[GroundTruth], detections: Sequence[np.ndarray], names: Sequence[str]
) -> list[ClassMatches]:
    """Of every class that has ground truth; arguments as `coco_map`."""
    evaluation, images = coco_evaluation(ground_truth, detections, names, by_size=False), len(ground_truth)
    thresholds = len(evaluation.params.iouThrs)
    matches = []
    for category in range(len(names)):
        found = evaluation.evalImgs[category * images : (category + 1) * images]
        objects = torch.tensor([0 if one is None else len(one["gtIds"]) for one in found], dtype=torch.float64)
        if not objects.any():
            continue
        scores = [np.zeros(0) if one is None else np.asarray(one["dtScores"][:MOST], float) for one in found]
        hits = [np.zeros((thresholds, 0)) if one is None else one["dtMatches"][:, :MOST] for one in found]
        order = np.argsort(-np.concatenate(scores), kind="mergesort")
        image = np.repeat(np.arange(images), [len(one) for one in scores])[order]
        hit = np.concatenate(hits, axis=1)[:, order] > 0
        matches.append(ClassMatches(torch.from_numpy(image), torch.from_numpy(hit), objects))
    return matches


def weighted_map(matches: Sequence[ClassMatches], weights: Tensor) -> Tensor:
    """mAP 0.50:0.95 for every weighting of the images, float64 (B,); NaN where no class has an object.

    Args:
        matches: of `class_matches`.
        weights: float64 (B, I), how often each image counts; all ones give what `coco_map` gives.
    """
    precisions = torch.stack([average_precision(one, weights) for one in matches])  # (classes, B)
    return precisions.nanmean(0)


def average_precision(matches: ClassMatches, weights: Tensor) -> Tensor:
    """Mean over IoU thresholds of the AP at 101 recalls, (B,); NaN where the weighted images have no object."""
    objects = weights @ matches.objects  # (B,)
    places = matches.hit.any(0).nonzero()[:, 0]  # (P,), precision and recall rise here only
    if not len(places):
        return torch.where(objects > 0, 0.0, torch.nan)
    parts = [_of_part(matches, places, part) for part in weights.split(max(1, CELLS // len(places)))]
    return torch.where(objects > 0, torch.cat(parts), torch.nan)


def _of_part(matches: ClassMatches, places: Tensor, weights: Tensor) -> Tensor:
    counts = weights.T.contiguous()  # (I, B), so that an image's weights are picked in one piece
    shown = shown_images(matches.image, places, len(counts)) @ counts  # (P, B), weight of the detections up to there
    objects = (matches.objects @ counts).clamp_min(1e-12)
    image, hits = matches.image[places], matches.hit[:, places]
    return torch.stack([_at_threshold(counts[image[hit]].cumsum(0), shown[hit], objects) for hit in hits]).mean(0)


def shown_images(image: Tensor, places: Tensor, images: int) -> Tensor:
    """How many detections of every image there are up to each place, float64 (P, images)."""
    counted = torch.zeros(len(places) + 1, images, dtype=torch.float64)
    following = torch.searchsorted(places, torch.arange(len(image)))  # the place at or after each detection
    counted.index_put_((following, image), torch.ones(len(image), dtype=torch.float64), accumulate=True)
    return counted[:-1].cumsum(0)


def _at_threshold(found: Tensor, shown: Tensor, objects: Tensor) -> Tensor:
    """AP (B,) at one IoU threshold.

    Args:
        found: (H, B), weight of the hits up to each.
        shown: (H, B), weight of all detections up to each hit.
        objects: (B,), weight of all objects.
    """
    if not len(found):
        return torch.zeros_like(objects)
    precision = found / shown.clamp_min(1e-12)
    envelope = precision.flip(0).cummax(0).values.flip(0)
    reached = torch.searchsorted(RECALLS, found / objects, right=True)  # how many of the recalls, at each hit
    newly = reached.diff(dim=0, prepend=torch.zeros_like(reached[:1]))
    return (envelope * newly).sum(0) / len(RECALLS)


def image_draws(images: int, resamples: int, seed: int) -> Tensor:
    """How often each image is drawn in every resample, float64 (resamples, images)."""
    drawn = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), resamples)
    return torch.from_numpy(drawn).double()


def interval(samples: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of the samples, those without any object left out."""
    low, high = np.nanpercentile(samples, [LOW, HIGH])
    return float(low), float(high)
