"""Image quality (PSNR, SSIM on luma, as SR papers report them) and detection quality (COCO mAP through pycocotools)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout

import cv2
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from utils.errors import UserError

LUMA = np.array([65.481, 128.553, 24.966])
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
PSNR_CEILING = 100.0  # dB of equal images, as is the custom; 8-bit images that differ visibly stay far below

# ---------------------------------------------------------------------- images


def rgb_to_y(image: np.ndarray) -> np.ndarray:
    """Luma by ITU-R BT.601 in studio range, not rounded, as the authors of SR networks measure it (BasicSR, IMDN).

    MATLAB's `rgb2ycbcr` rounds the luma of 8-bit images: there IMDN x2 has 37.91 dB on Set5 instead of the published
    38.00, and bicubic interpolation 33.65 instead of 33.68.

    Args:
        image: (H, W, 3) RGB, uint8 or floating point in [0, 1].

    Returns:
        float64 (H, W) in [16, 235].

    Raises:
        ValueError: another shape or dtype.
    """
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected an RGB image (H, W, 3), got shape {image.shape}")
    if image.dtype == np.uint8:
        return 16.0 + (image / 255.0) @ LUMA
    if not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"expected uint8 or floating point in [0, 1], got {image.dtype}")
    return 16.0 + image.astype(np.float64) @ LUMA


def psnr_y(image: np.ndarray, reference: np.ndarray, border: int) -> float:
    """Peak signal-to-noise ratio on luma in dB, peak 255.

    Args:
        image: (H, W, 3) RGB, uint8 or floating point in [0, 1].
        reference: the same size, either kind.
        border: pixels left out on each side; the custom is the scale.

    Returns:
        dB, at most PSNR_CEILING, which equal images have: one of them in a set (a uniform image) leaves the mean
        finite, and a network that gets it exactly right is never behind one that does not.

    Raises:
        ValueError: sizes differ, nothing is left inside the border, or a value is NaN or infinite.
    """
    return _psnr(*_luma_pair(image, reference, border, least=1))


def ssim_y(image: np.ndarray, reference: np.ndarray, border: int) -> float:
    """Structural similarity on luma (Wang et al. 2004): Gaussian window 11x11, sigma 1.5, range 255, valid region.

    Arguments as `psnr_y`.

    Returns:
        Mean over the valid region, at most 1.

    Raises:
        ValueError: sizes differ, the image without its border is smaller than the window, or a value is NaN or inf.
    """
    return _ssim(*_luma_pair(image, reference, border, least=SSIM_WINDOW))


def psnr_rgb(image: np.ndarray, reference: np.ndarray, border: int) -> float:
    """Peak signal-to-noise ratio over the three channels together in dB; arguments, result and errors as `psnr_y`."""
    x, y = _inside(image, reference, border, least=1)
    return _psnr(_levels(x), _levels(y))


def ssim_rgb(image: np.ndarray, reference: np.ndarray, border: int) -> float:
    """Mean structural similarity of the three channels; otherwise as `ssim_y`."""
    x, y = _inside(image, reference, border, least=SSIM_WINDOW)
    channels = zip(np.moveaxis(_levels(x), 2, 0), np.moveaxis(_levels(y), 2, 0), strict=True)
    return float(np.mean([_ssim(np.ascontiguousarray(a), np.ascontiguousarray(b)) for a, b in channels]))


def mean_over_images(values: Sequence[float]) -> float:
    """The mean of a figure over the images of a set. All means over images are taken here: none may hide a NaN.

    Args:
        values: one per image, at least one; PSNR is bounded, so that equal images need no exception.

    Raises:
        ValueError: there is no value, or one is NaN or infinite.
    """
    figures = np.asarray(values, np.float64)
    if not figures.size:
        raise ValueError("a mean over images needs at least one image")
    if not np.isfinite(figures).all():
        raise ValueError(f"image {int(np.flatnonzero(~np.isfinite(figures))[0])} of the set has a figure of NaN or inf")
    return float(np.mean(figures))


def _psnr(x: np.ndarray, y: np.ndarray) -> float:
    """PSNR of values in [0, 255], at most PSNR_CEILING."""
    mse = np.mean((x - y) ** 2)
    return PSNR_CEILING if mse == 0 else min(PSNR_CEILING, float(10 * np.log10(255.0**2 / mse)))


def _ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Structural similarity of two planes (H, W) in [0, 255]."""
    kernel = cv2.getGaussianKernel(SSIM_WINDOW, SSIM_SIGMA)
    margin = SSIM_WINDOW // 2

    def blur(values: np.ndarray) -> np.ndarray:
        return cv2.sepFilter2D(values, -1, kernel, kernel)[margin:-margin, margin:-margin]

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y, covariance = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2, blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return float(np.mean(luminance * structure))


def _levels(image: np.ndarray) -> np.ndarray:
    """uint8, or floating point in [0, 1] -> float64 in [0, 255]."""
    return image.astype(np.float64) * (1 if image.dtype == np.uint8 else 255)


def _luma_pair(image: np.ndarray, reference: np.ndarray, border: int, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Luma of both images without the border."""
    image, reference = _inside(image, reference, border, least)
    return rgb_to_y(image), rgb_to_y(reference)


def _inside(image: np.ndarray, reference: np.ndarray, border: int, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Both images without the border."""
    if image.shape != reference.shape:
        raise ValueError(f"images differ in size: {image.shape} and {reference.shape}; crop both to the same size")
    height, width = image.shape[:2]
    if border < 0 or min(height, width) - 2 * border < least:
        raise ValueError(f"{height}x{width} pixels without a border of {border} are fewer than {least}x{least}")
    inside = slice(border, height - border), slice(border, width - border)
    for kind in (image, reference):
        if kind.dtype != np.uint8 and not np.isfinite(kind[inside]).all():
            raise UserError("an image holds NaN or infinite values; compute in fp32, or use other weights")
    return image[inside], reference[inside]


# ------------------------------------------------------------------ detections

GroundTruth = tuple[np.ndarray, np.ndarray, tuple[int, int]]


def coco_map(ground_truth: Sequence[GroundTruth], detections: Sequence[np.ndarray], names: Sequence[str]) -> dict:
    """Average precision by the rules of COCO: IoU 0.50:0.05:0.95, 101 recall points, per image and class at
    most the 100 detections with the highest scores.

    Args:
        ground_truth: per image boxes (n, 4) x1 y1 x2 y2 in pixels of the original image, classes (n,), (height, width).
        detections: per image (m, 6): x1 y1 x2 y2 in the same pixels, score, class.
        names: class names, index = class.

    Returns:
        {"map50_95", "map50", "ap_small", "ap_medium", "ap_large": share in [0, 1], "per_class": {name: AP 0.50:0.95},
        "pr_curve": precision at IoU 0.5 and recall 0, 0.01, ..., 1, the mean of the classes' interpolated curves,
        "pr_curve_per_class": {name: the same}}. Small is below 32^2, large above 96^2 original pixels. None where no
        such ground truth exists.

    Raises:
        ValueError: the lists differ in length, shapes are wrong, or a class is not in `names`.
    """
    evaluation = coco_evaluation(ground_truth, detections, names)
    with redirect_stdout(io.StringIO()):
        evaluation.accumulate()
        evaluation.summarize()
    keys = {"map50_95": 0, "map50": 1, "ap_small": 3, "ap_medium": 4, "ap_large": 5}
    result: dict = {key: _share(evaluation.stats[position]) for key, position in keys.items()}
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # (IoU, recall, class), all areas, 100 detections
    result["per_class"] = {name: _share(precision[:, :, k].mean()) for k, name in enumerate(names)}
    curves = precision[0].T.round(5)  # (class, recall); -1 everywhere where a class has no ground truth
    known = [curve for curve in curves if curve[0] >= 0]
    result["pr_curve"] = np.mean(known, axis=0).round(5).tolist() if known else None
    result["pr_curve_per_class"] = {
        name: curve.tolist() if curve[0] >= 0 else None for name, curve in zip(names, curves, strict=True)
    }
    return result


def coco_evaluation(
    ground_truth: Sequence[GroundTruth], detections: Sequence[np.ndarray], names: Sequence[str], by_size: bool = True
) -> COCOeval:
    """Every detection matched with ground truth, image by image, ready to `accumulate`; as `coco_map`, which wants it
    for small, medium and large objects too (`by_size`)."""
    if len(ground_truth) != len(detections):
        raise ValueError(f"{len(ground_truth)} images of ground truth, but {len(detections)} of detections")
    truth, found = [], []
    for image, ((boxes, classes, _), rows) in enumerate(zip(ground_truth, detections, strict=True)):
        rows = _rows(rows, 6, image, "detections")
        boxes, classes = _rows(boxes, 4, image, "ground-truth boxes"), np.asarray(classes)
        truth += _annotations(image, boxes, classes, np.ones(len(boxes)), len(names))
        found += _annotations(image, rows[:, :4], rows[:, 5], rows[:, 4], len(names))
    images = [{"id": i, "height": size[0], "width": size[1]} for i, (_, _, size) in enumerate(ground_truth)]
    with redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_index(images, truth, names), _index(images, found, names), "bbox")
        if not by_size:
            evaluation.params.areaRng = evaluation.params.areaRng[:1]
        evaluation.evaluate()
    return evaluation


def _rows(values: np.ndarray, columns: int, image: int, what: str) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.size == 0:
        return np.zeros((0, columns))
    if values.ndim != 2 or values.shape[1] != columns:
        raise ValueError(f"{what} of image {image}: expected shape (n, {columns}), got {values.shape}")
    return values


def _annotations(image: int, boxes: np.ndarray, classes: np.ndarray, scores: np.ndarray, n_classes: int) -> list[dict]:
    """COCO annotations of one image; ids are set later, category = class + 1."""
    if len(boxes) != len(classes):
        raise ValueError(f"image {image}: {len(boxes)} boxes, but {len(classes)} classes")
    annotations = []
    for (x1, y1, x2, y2), label, score in zip(boxes.tolist(), classes.tolist(), scores.tolist(), strict=True):
        if not 0 <= label < n_classes:
            raise ValueError(f"image {image}: class {label:g} lies outside 0..{n_classes - 1} of the data set")
        box = [x1, y1, x2 - x1, y2 - y1]
        entry = {"image_id": image, "category_id": int(label) + 1, "bbox": box, "area": box[2] * box[3]}
        annotations.append(entry | {"score": score, "iscrowd": 0})
    return annotations


def _index(images: list[dict], annotations: list[dict], names: Sequence[str]) -> COCO:
    # Ids start at 1: pycocotools takes a match with id 0 for no match.
    numbered = [annotation | {"id": number} for number, annotation in enumerate(annotations, start=1)]
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(names)]
    coco = COCO()
    coco.dataset = {"images": images, "annotations": numbered, "categories": categories}
    coco.createIndex()
    return coco


def _share(value: float) -> float | None:
    """pycocotools says -1 where there is no ground truth."""
    return None if value < 0 else float(value)
