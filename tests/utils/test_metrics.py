"""utils/metrics.py: PSNR, SSIM and COCO mAP against published values and other implementations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from data.sr_pairs import benchmark_pairs
from tests.drawn import draw_sr_benchmark
from tests.imresize import imresize
from utils.metrics import PSNR_CEILING, coco_map, mean_over_images, psnr_rgb, psnr_y, rgb_to_y, ssim_rgb, ssim_y
from utils.resize import resize

# ---------------------------------------------------------------------- images


def noisy_pair(height: int = 40, width: int = 50) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 256, (height // 5, width // 5, 3), dtype=np.uint8).repeat(5, 0).repeat(5, 1)
    return np.clip(clean + rng.normal(0, 12, clean.shape), 0, 255).astype(np.uint8), clean


@pytest.mark.parametrize("folder", ["Set5", "Set5/HR"], ids=["shipped LR", "own LR"])
@pytest.mark.parametrize(("scale", "psnr", "ssim"), [(2, 33.66, 0.9299), (3, 30.39, 0.8682), (4, 28.42, 0.8104)])
def test_bicubic_reaches_the_published_values(shared_data, folder: str, scale: int, psnr: float, ssim: float) -> None:
    pairs = benchmark_pairs(shared_data("sr_bench") / folder, scale)
    results = [(resize(lr, *hr.shape[:2]), hr) for _, lr, hr in pairs]
    assert len(results) == 5
    assert np.mean([psnr_y(sr, hr, scale) for sr, hr in results]) == pytest.approx(psnr, abs=0.02)
    assert np.mean([ssim_y(sr, hr, scale) for sr, hr in results]) == pytest.approx(ssim, abs=0.001)


@pytest.mark.parametrize(("scale", "psnr", "ssim"), [(2, 32.63, 0.8861), (3, 30.97, 0.8436), (4, 29.97, 0.8129)])
def test_bicubic_on_a_drawn_benchmark(tmp_path: Path, scale: int, psnr: float, ssim: float) -> None:
    """A published table of our own: the figures, and those of other people's luma, PSNR, SSIM and bicubic."""
    ours, theirs = [], []
    for _, lr, hr in benchmark_pairs(draw_sr_benchmark(tmp_path, (scale,)), scale):
        sr = resize(lr, *hr.shape[:2])
        ours.append((psnr_y(sr, hr, scale), ssim_y(sr, hr, scale)))
        inside = np.s_[scale:-scale, scale:-scale]
        x, y = (rgb2ycbcr(image)[..., 0][inside] for image in (imresize(lr, scale), hr))
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
        theirs.append((peak_signal_noise_ratio(y, x, data_range=255), structural_similarity(y, x, **options)))
    assert len(ours) == 3 and np.mean(ours, 0) == pytest.approx([psnr, ssim], rel=2e-4)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_luma_is_not_rounded() -> None:
    image, _ = noisy_pair()
    exact = rgb2ycbcr(image)[..., 0]
    np.testing.assert_allclose(rgb_to_y(image / 255.0), exact, atol=1e-9)
    np.testing.assert_allclose(rgb_to_y(image), exact, atol=1e-9)
    ends = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    assert rgb_to_y(ends).tolist() == [[16, 235]]


@pytest.mark.parametrize("border", [0, 4])
@pytest.mark.parametrize("as_float", [False, True])
def test_agrees_with_skimage(border: int, as_float: bool) -> None:
    image, clean = (x / np.float32(255) if as_float else x for x in noisy_pair())
    inside = (slice(border, 40 - border), slice(border, 50 - border))
    y, y_clean = rgb_to_y(image)[inside], rgb_to_y(clean)[inside]
    expected = peak_signal_noise_ratio(y_clean, y, data_range=255)
    assert psnr_y(image, clean, border) == pytest.approx(expected, abs=1e-9)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    expected = structural_similarity(y_clean, y, **options)
    assert ssim_y(image, clean, border) == pytest.approx(expected, abs=1e-7)


def test_equal_images_and_float_against_uint8() -> None:
    image, clean = noisy_pair()
    assert psnr_y(image, image, 2) == PSNR_CEILING == 100 and ssim_y(image, image, 2) == pytest.approx(1)
    assert psnr_y(image / 255.0, clean / 255.0, 2) == pytest.approx(psnr_y(image, clean, 2), abs=0.05)
    assert psnr_y(image, clean, 2) == psnr_y(clean, image, 2)


def test_the_border_is_left_out() -> None:
    image, _ = noisy_pair()
    other = image.copy()
    other[:3], other[:, -3:] = 0, 0
    assert psnr_y(image, other, 3) == PSNR_CEILING and psnr_y(image, other, 2) < 60


def test_psnr_is_bounded_and_falls_with_the_error() -> None:
    """One level in one channel of one pixel of a large image would have more than 100 dB."""
    image = np.full((512, 512, 3), 90, np.uint8)
    other = image.copy()
    other[100, 100, 0] += 1
    assert psnr_rgb(image, other, 0) == PSNR_CEILING == psnr_rgb(image, image, 0)
    worse = np.full_like(image, 91)
    assert psnr_rgb(image, worse, 0) == pytest.approx(48.13, abs=0.01)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("metric", [psnr_y, psnr_rgb, ssim_y, ssim_rgb])
def test_an_image_that_is_no_image_is_refused(metric, value: float) -> None:
    image = np.zeros((20, 20, 3), np.float32)
    broken = image.copy()
    broken[9, 9, 0] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        metric(broken, image, 2)
    broken[9, 9, 0], broken[0, 0, 0] = 0, value  # outside of what is compared
    assert metric(broken, image, 2) in (PSNR_CEILING, pytest.approx(1))


def test_a_mean_over_images_is_a_number() -> None:
    assert mean_over_images([PSNR_CEILING, 30.0]) == 65
    for values, words in (([30.0, float("inf")], "image 1 of the set"), ([float("nan")], "image 0"), ([], "one image")):
        with pytest.raises(ValueError, match=words):
            mean_over_images(values)


def test_bad_images() -> None:
    image, _ = noisy_pair()
    with pytest.raises(ValueError, match="differ in size"):
        psnr_y(image, image[:-1], 0)
    with pytest.raises(ValueError, match="border of 20"):
        psnr_y(image, image, 20)
    with pytest.raises(ValueError, match="11x11"):
        ssim_y(image, image, 15)
    with pytest.raises(ValueError, match="RGB"):
        rgb_to_y(image[..., :1])
    with pytest.raises(ValueError, match="int64"):
        rgb_to_y(image.astype(np.int64))


# ------------------------------------------------------------------ detections

NAMES = ("small", "large", "absent")
SIZE = (480, 640)


def truth(*rows: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Rows x1 y1 x2 y2 class."""
    table = np.array(rows, float).reshape(-1, 5)
    return table[:, :4], table[:, 4].astype(int), SIZE


def as_found(entry: tuple, score: float = 0.9) -> np.ndarray:
    boxes, classes, _ = entry
    return np.column_stack([boxes, np.full(len(boxes), score), classes])


def test_perfect_detections() -> None:
    images = [truth((10, 10, 30, 30, 0), (100, 100, 300, 300, 1)), truth((50, 50, 60, 75, 0)), truth()]
    result = coco_map(images, [as_found(image) for image in images], NAMES)
    assert result == {
        "map50_95": pytest.approx(1.0),
        "map50": pytest.approx(1.0),
        "ap_small": pytest.approx(1.0),
        "ap_medium": None,
        "ap_large": pytest.approx(1.0),
        "per_class": {"small": pytest.approx(1.0), "large": pytest.approx(1.0), "absent": None},
        "pr_curve": [1.0] * 101,
        "pr_curve_per_class": {"small": [1.0] * 101, "large": [1.0] * 101, "absent": None},
    }


def test_no_detections_and_no_ground_truth() -> None:
    images = [truth((10, 10, 30, 30, 0), (100, 100, 160, 160, 1))]
    result = coco_map(images, [np.zeros((0, 6))], NAMES)
    assert result["map50_95"] == result["map50"] == result["ap_small"] == result["ap_medium"] == 0.0
    assert result["ap_large"] is None and result["per_class"] == {"small": 0.0, "large": 0.0, "absent": None}
    nothing = coco_map([truth()], [as_found(images[0])], NAMES)
    assert nothing["map50_95"] is None and set(nothing["per_class"].values()) == {None}
    assert nothing["pr_curve"] is None and set(nothing["pr_curve_per_class"].values()) == {None}


def test_a_missed_class_counts_as_zero() -> None:
    images = [truth((10, 10, 30, 30, 0), (100, 100, 300, 300, 1))]
    result = coco_map(images, [as_found(images[0])[:1]], NAMES)
    assert result["map50_95"] == pytest.approx(0.5)
    assert result["per_class"] == {"small": pytest.approx(1.0), "large": 0.0, "absent": None}


def test_overlap_decides_between_thresholds() -> None:
    """IoU 0.8: found at 0.50..0.80, which are seven of the ten thresholds."""
    images = [truth((0, 0, 100, 100, 1))]
    result = coco_map(images, [np.array([[0, 0, 100, 80.01, 0.5, 1]])], NAMES)
    assert result["map50"] == pytest.approx(1.0) and result["map50_95"] == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("overlap", "map50", "found"), [(0.4, 0, 0), (0.49, 0, 0), (0.51, 1, 1), (0.62, 1, 3), (0.99, 1, 10)]
)
def test_a_box_is_found_from_half_an_overlap_on(overlap: float, map50: float, found: int) -> None:
    result = coco_map([truth((0, 0, 200, 100, 1))], [np.array([[0, 0, 200, 100 * overlap, 0.9, 1]])], NAMES)
    assert result["map50"] == pytest.approx(map50) and result["map50_95"] == pytest.approx(found / 10)


def test_the_first_annotation_counts_and_classes_are_kept_apart() -> None:
    images = [truth((0, 0, 50, 50, 0))]
    assert coco_map(images, [as_found(images[0])], NAMES)["map50"] == pytest.approx(1.0)
    wrong = as_found(images[0])
    wrong[:, 5] = 1
    assert coco_map(images, [wrong], NAMES)["map50"] == 0.0


def test_agrees_with_pycocotools_used_directly() -> None:
    rng = np.random.default_rng(0)
    images, detections, annotations, results = [], [], [], []
    for number in range(12):
        corners = rng.uniform(0, 300, (6, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(5, 180, (6, 2))], axis=1)
        classes = rng.integers(0, 2, 6)
        images.append((boxes, classes, SIZE))
        moved = np.concatenate([boxes + rng.normal(0, 4, boxes.shape), boxes[:2] + 150])
        scores, labels = rng.random(8), np.concatenate([classes, [0, 1]])
        detections.append(np.column_stack([moved, scores, labels]))
        for (x1, y1, x2, y2), label in zip(boxes, classes, strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": int(label), "iscrowd": 0}
            annotations.append(entry | {"bbox": box, "area": box[2] * box[3]})
        for (x1, y1, x2, y2), score, label in zip(moved, scores, labels, strict=True):
            entry = {"image_id": number, "category_id": int(label), "score": score}
            results.append(entry | {"bbox": [x1, y1, x2 - x1, y2 - y1]})
    coco = COCO()
    coco.dataset = {
        "images": [{"id": k, "height": SIZE[0], "width": SIZE[1]} for k in range(12)],
        "categories": [{"id": k, "name": name} for k, name in enumerate(NAMES)],
        "annotations": annotations,
        "info": {},
    }
    coco.createIndex()
    reference = COCOeval(coco, coco.loadRes(results), "bbox")
    reference.evaluate(), reference.accumulate(), reference.summarize()
    ours = coco_map(images, detections, NAMES)
    keys = ("map50_95", "map50", "ap_small", "ap_medium", "ap_large")
    np.testing.assert_allclose([ours[key] for key in keys], reference.stats[[0, 1, 3, 4, 5]], atol=1e-12)
    assert 0 < ours["map50_95"] < 1
    classes = [ours["per_class"][name] for name in NAMES[:2]]
    assert np.mean(classes) == pytest.approx(ours["map50_95"])
    assert len(ours["pr_curve"]) == 101 and ours["pr_curve"] == sorted(ours["pr_curve"], reverse=True)
    assert np.mean(ours["pr_curve"]) == pytest.approx(ours["map50"], abs=1e-4), "mAP50 is the area under the curve"
    for k, name in enumerate(NAMES[:2]):
        expected = reference.eval["precision"][0, :, k, 0, -1]
        np.testing.assert_allclose(ours["pr_curve_per_class"][name], expected, atol=1e-5)


def test_precision_recall_of_two_boxes_by_hand() -> None:
    """Scores 0.9 wrong, 0.8 right, and one object missed: precision 1/2 up to recall 1/2, then 0."""
    images = [truth((10, 10, 50, 50, 0), (100, 100, 140, 140, 0))]
    found = np.array([[200, 200, 240, 240, 0.9, 0], [10, 10, 50, 50, 0.8, 0]])
    result = coco_map(images, [found], NAMES)
    assert result["pr_curve"] == result["pr_curve_per_class"]["small"] == [0.5] * 51 + [0.0] * 50


def test_quiet_and_inputs_untouched(capsys: pytest.CaptureFixture) -> None:
    images = [truth((10, 10, 30, 30, 0))]
    found = as_found(images[0])
    before = found.copy(), images[0][0].copy()
    coco_map(images, [found], NAMES)
    assert capsys.readouterr().out == ""
    np.testing.assert_array_equal(found, before[0])
    np.testing.assert_array_equal(images[0][0], before[1])


def test_bad_detections() -> None:
    images = [truth((10, 10, 30, 30, 0))]
    with pytest.raises(ValueError, match="1 images of ground truth, but 0"):
        coco_map(images, [], NAMES)
    with pytest.raises(ValueError, match=r"expected shape \(n, 6\)"):
        coco_map(images, [np.zeros((1, 5))], NAMES)
    with pytest.raises(ValueError, match="class 3 lies outside"):
        coco_map([truth((10, 10, 30, 30, 3))], [np.zeros((0, 6))], NAMES)
    with pytest.raises(ValueError, match="1 boxes, but 2 classes"):
        coco_map([(np.zeros((1, 4)), np.zeros(2), SIZE)], [np.zeros((0, 6))], NAMES)


def test_rgb_metrics_against_their_formulas():
    rng = np.random.default_rng(0)
    one = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    other = np.clip(one.astype(int) + rng.integers(-20, 21, one.shape), 0, 255).astype(np.uint8)
    inside = (slice(3, -3), slice(3, -3))
    assert psnr_rgb(one, other, 3) == pytest.approx(peak_signal_noise_ratio(one[inside], other[inside]))
    settings = {"data_range": 255, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    maps = [
        structural_similarity(x.astype(float), y.astype(float), full=True, **settings)[1][5:-5, 5:-5]
        for x, y in zip(np.moveaxis(one[inside], 2, 0), np.moveaxis(other[inside], 2, 0), strict=True)
    ]
    assert ssim_rgb(one, other, 3) == pytest.approx(np.mean(maps), abs=1e-6)
    assert psnr_rgb(one / 255, other / 255, 3) == pytest.approx(psnr_rgb(one, other, 3))
    assert psnr_rgb(one, one, 0) == PSNR_CEILING and ssim_rgb(one, one, 0) == pytest.approx(1)
    with pytest.raises(ValueError, match="without a border of 15 are fewer than 11x11"):
        ssim_rgb(one, other, 15)
