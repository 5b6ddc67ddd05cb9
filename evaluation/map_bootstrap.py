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
    thresholds, count = matches.hit.shape
    if count == 0:
        return torch.where(objects > 0, 0.0, torch.nan)
    size = max(1, CELLS // (thresholds * count))
    parts = [_of_part(matches, part) for part in weights.split(size)]
    return torch.where(objects > 0, torch.cat(parts), torch.nan)


def _of_part(matches: ClassMatches, weights: Tensor) -> Tensor:
    shown = weights[:, matches.image]  # (B, D)
    found = (shown[:, None] * matches.hit).cumsum(-1)  # (B, T, D)
    precision = found / shown.cumsum(-1)[:, None].clamp_min(1e-12)
    recall = found / (weights @ matches.objects)[:, None, None].clamp_min(1e-12)
    envelope = precision.flip(-1).cummax(-1).values.flip(-1)
    places = torch.searchsorted(recall, RECALLS.expand(*recall.shape[:2], -1).contiguous())
    reached = places < recall.shape[-1]
    at = envelope.gather(-1, places.clamp_max(recall.shape[-1] - 1)) * reached
    return at.mean((1, 2))


def image_draws(images: int, resamples: int, seed: int) -> Tensor:
    """How often each image is drawn in every resample, float64 (resamples, images)."""
    drawn = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), resamples)
    return torch.from_numpy(drawn).double()


def interval(samples: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of the samples, those without any object left out."""
    low, high = np.nanpercentile(samples, [LOW, HIGH])
    return float(low), float(high)
