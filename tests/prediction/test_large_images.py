"""Large images in parts: the same boxes, mask and super-resolved image as in one call, where both fit."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from loading.systems import load_system
from models.front_end import ConditionalOutput
from models.mask_policy import parse_policy
from models.patch_reuse import ReuseOptions
from models.system import ConditionalSRDetector
from models.tiling.detection_parts import PartPlan
from prediction.api import ConditionalYOLO
from prediction.large_images import LargeImages
from prediction.png_strips import save_png
from prediction.predictor import PredictOptions, Predictor
from tests.prediction.running import entries, infer, noise

CPU = torch.device("cpu")
PLAN = PartPlan(tile=64, objects=16, margin=4, unit=8)


class Repeated(nn.Module):
    """A front end that repeats every pixel."""

    zoom, patch, sees_hr = 1, None, False

    def __init__(self, scale: int):
        super().__init__()
        self.scale = scale

    def infer(self, images, policy, content=None):
        return ConditionalOutput(images.repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3))


class Blobs(nn.Module):
    """A detector that finds exactly the bright rectangles of an image, red of class 0 and others of class 1."""

    stride, names, dtype, spec = 32, ("red", "white"), None, {"args": {}}

    def predict(self, images, conf=0.25, iou=0.7, max_det=300):
        assert not any(side % self.stride for side in images.shape[-2:])
        found = []
        for image in images:
            bright = (image[0] > 0.8).byte().numpy()
            _, _, stats, centres = cv2.connectedComponentsWithStats(bright, connectivity=4)
            rows = [
                [x, y, x + w, y + h, 0.5 + area / 1e6, float(image[1, int(cy), int(cx)] > 0.8)]
                for (x, y, w, h, area), (cx, cy) in zip(stats[1:].tolist(), centres[1:].tolist())
            ]
            found.append(torch.tensor(sorted(rows, key=lambda row: -row[4])[:max_det]).reshape(-1, 6))
        return found


def drawn(rng: np.random.Generator, height: int, width: int, largest: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """A dark image with bright rectangles that do not touch, and these."""
    image, taken, boxes = np.full((height, width, 3), 20, np.uint8), np.zeros((height, width), bool), []
    for _ in range(30):
        w, h = rng.integers(1, largest + 1, 2)
        x, y = (int(rng.integers(0, max(1, side - length + 1))) for side, length in ((width, w), (height, h)))
        if not taken[max(0, y - 1) : y + h + 1, max(0, x - 1) : x + w + 1].any():
            label = int(rng.integers(2))
            image[y : y + h, x : x + w] = (255, 255 * label, 255 * label)
            taken[y : y + h, x : x + w] = True
            boxes.append([x, y, min(x + w, width), min(y + h, height), label])
    return image, np.array(boxes, float)


def in_order(boxes: np.ndarray) -> np.ndarray:
    return boxes[np.lexsort(boxes.T)]


@pytest.mark.parametrize("all_of_them", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_drawn_object_is_found_exactly_once(all_of_them):
    """Through front end, detector and merging: 60 or 1,000 drawn images, at two scales (boxes alone: 1,000 layouts in
    tests/models/tiling/test_merge_parts.py)."""
    rng = np.random.default_rng(0)
    for number in range(1000 if all_of_them else 60):
        scale = (1, 4)[number % 2]
        system = ConditionalSRDetector(Repeated(scale), Blobs())
        large = LargeImages(system, CPU, replace(PLAN, unit=32 // scale), unit=32 // scale)
        height, width = rng.integers(20, 150, 2)
        image, expected = drawn(rng, height, width)
        found = large.detect(
            image, None, lambda sr, most, own=system: own.detect(sr)[0], 300, lambda stage: nullcontext()
        )
        boxes, _, more = found
        np.testing.assert_array_equal(in_order(boxes[:, [0, 1, 2, 3, 5]]), in_order(expected.reshape(-1, 5)))
        assert not more


@pytest.fixture(scope="module")
def both(weights) -> tuple[Predictor, Predictor]:
    """The same system in one call and in parts, SR_Quality and SR_Fast exact at the borders of parts."""
    system = load_system(weights).with_execution(halo=None)
    whole, parts = Predictor(system, CPU), Predictor(system, CPU)
    parts.large = replace(parts.large, plan=PLAN)
    return whole, parts


@pytest.mark.parametrize("policy", ["learned", "budget=0.25", "random=0.3", "edge=0.1", "all_fast", "all_quality"])
def test_mask_and_image_are_those_of_one_call(both, policy):
    image = noise(70, 110, 3)
    (expected,), (found,) = (predictor([image], PredictOptions(parse_policy(policy))) for predictor in both)
    assert expected.parts == 1 and found.parts > 4
    np.testing.assert_array_equal(found.mask, expected.mask)
    assert found.kept_share == expected.kept_share and found.patch == expected.patch
    if policy not in ("all_fast", "all_quality"):
        assert 0 < found.kept_share < 1
    difference = np.abs(found.sr_image().astype(int) - expected.sr_image())
    assert difference.shape == (280, 440, 3) and difference.max() <= 1
    upscaled = both[1].super_resolve(image, parse_policy(policy))
    np.testing.assert_array_equal(upscaled, found.sr_image())


def test_images_of_a_batch_do_not_decide_for_one_another(both):
    """63 x 64 pixels are those of a part, 64 x 72 are not; both are padded to the latter."""
    images, options = [noise(58, 66, 3), noise(64, 72, 3)], PredictOptions(parse_policy("all_fast"))
    one_by_one = [both[1]([image], options)[0].parts for image in images]
    assert [found.parts for found in both[1](images, options)] == one_by_one
    assert [found.parts for found in both[1](images[::-1], options)] == one_by_one[::-1]


def test_a_line_of_pixels_counts_with_its_padding(both):
    (found,) = both[1]([noise(1, 600, 3)], PredictOptions(parse_policy("all_fast")))
    assert found.parts > 4 and found.sr_image().shape == (4, 2400, 3)


def test_what_runs_in_parts_says_that_nothing_is_reused(both):
    options = PredictOptions(parse_policy("all_fast"))
    with pytest.warns(UserWarning, match="reuse nothing; raise memory_mb"):
        (found,) = both[1]([noise(70, 110, 3)], options, reuse=both[1].reuse(ReuseOptions()))
    assert found.reused_share is None


def test_a_share_holds_over_the_whole_image_wherever_its_patches_lie(both):
    image = np.full((104, 96, 3), 90, np.uint8)
    image[:12] = noise(12, 96, 3)  # all edges in the first parts
    (found,) = both[1]([image], PredictOptions(parse_policy("edge=0.1")))
    assert found.mask.sum() == round(0.1 * 26 * 24) and not found.mask[4:].any()


def test_max_det_reached_is_said(both):
    image = noise(70, 110, 3)
    for predictor in both:
        options = [PredictOptions(parse_policy("all_fast"), conf=0.01, max_det=most) for most in (3, 3000)]
        (few,), (all_of_them,) = (predictor([image], option) for option in options)
        assert few.max_det_reached and len(few.boxes) == 3 < len(all_of_them.boxes)
        assert not all_of_them.max_det_reached
        assert (np.diff(few.boxes[:, 4]) <= 0).all()


def test_the_best_of_all_parts_are_taken():
    system = ConditionalSRDetector(Repeated(4), Blobs())
    large = LargeImages(system, CPU, PLAN, unit=8)
    image, _ = drawn(np.random.default_rng(3), 140, 150)

    def boxes(most):
        return large.detect(image, None, lambda sr, limit: system.detect(sr, max_det=limit)[0], most, nullcontext)

    (all_of_them, parts, more), (few, _, fewer) = boxes(300), boxes(5)
    assert parts > 9 and len(all_of_them) > 10 and not more and fewer
    np.testing.assert_array_equal(few[:, 4], all_of_them[:5, 4])


def test_memory_decides(weights):
    small = ConditionalYOLO(weights, device="cpu", memory_mb=16)
    assert not small.predictor.large.plan.whole(120, 120) and small.predictor.large.plan.whole(48, 48)
    assert ConditionalYOLO(weights, device="cpu").predictor.large.plan.whole(300, 300)
    image = Image.fromarray(noise(70, 90, 3))
    (found,) = small.predict(image, policy="budget=0.25")
    assert found.parts > 1 and found.sr.shape == (280, 360, 3)  # made when asked for
    assert found.patch_mask.sum() == round(0.25 * 18 * 23)


def test_files_of_a_large_image(weights, tmp_path, capsys):
    """Boxes are drawn on the image itself; the SR image is written as it would be from memory."""
    Image.fromarray(noise(70, 90, 3)).save(tmp_path / "wide.png")
    options = ("--memory-mb", "16", "--save-sr", "true", "--save-json", "true", "--save-mask", "true", "--max-det", "5")
    options += ("--policy", "budget=0.25", "--conf", "0.01")
    assert infer(weights, tmp_path / "wide.png", tmp_path / "out", *options) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "wide.png" in line)
    assert "max_det reached, " in line and " parts, kept 0.25" in line
    assert Image.open(tmp_path / "out" / "wide.png").size == (90, 70)
    assert Image.open(tmp_path / "out" / "masks" / "wide.png").size == (90, 70)
    (entry,) = entries(tmp_path / "out").values()
    assert len(entry["detections"]) == 5
    model = ConditionalYOLO(weights, device="cpu", memory_mb=16)
    (result,) = model.predict(tmp_path / "wide.png", policy="budget=0.25", conf=0.01, max_det=5)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "sr" / "wide.png")), result.sr)


def test_nan_is_told_and_no_image(weights, tmp_path, capsys, monkeypatch):
    """At once and in parts alike: a black image would look like an answer."""
    Image.fromarray(noise(70, 90, 3)).save(tmp_path / "wide.png")
    super_resolve = ConditionalSRDetector.super_resolve

    def broken(self, *arguments, **options):
        output = super_resolve(self, *arguments, **options)
        output.sr.fill_(torch.nan)
        return output

    monkeypatch.setattr(ConditionalSRDetector, "super_resolve", broken)
    for number, memory in enumerate(("16", "1024")):
        out = tmp_path / str(number)
        with pytest.warns(UserWarning, match=r"1 super-resolved image\(s\) hold NaN, so nothing can be found"):
            options = ("--memory-mb", memory, "--save-sr", "true", "--policy", "all_fast")
            assert infer(weights, tmp_path / "wide.png", out, *options) == 1
        assert "skipped, the network gives NaN; compute in fp32" in capsys.readouterr().out
        assert not list((out / "sr").glob("*"))


def test_a_part_that_is_full_may_hide_more_objects():
    """Ten times `max_det` boxes of a part are looked at; whether there were more is not known."""
    large = LargeImages(ConditionalSRDetector(Repeated(4), Blobs()), CPU, PLAN, unit=8)
    outside = torch.tensor([[250.0, 250.0, 254.0, 254.0, 0.9, 0.0]])  # in the core of another part

    def more(count):
        return large.detect(noise(80, 80, 3), None, lambda sr, most: outside.repeat(count, 1), 2, nullcontext)[2]

    assert more(20) and not more(1)


@pytest.mark.parametrize("rows", [[1], [70], [64, 1, 3], [5, 200]])
def test_png_of_strips(tmp_path, rows):
    image = noise(sum(rows), 37, 3)
    strips = np.split(image, np.cumsum(rows)[:-1])
    save_png(tmp_path / "a.png", strips, image.shape[:2])
    with Image.open(tmp_path / "a.png") as picture:
        picture.load()
        assert picture.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(picture), image)
    with pytest.raises(ValueError, match="rows of an image"):
        save_png(tmp_path / "b.png", strips[:-1], image.shape[:2])
    with pytest.raises(ValueError, match="wide"):
        save_png(tmp_path / "b.png", strips, (len(image), 38))
    assert not (tmp_path / "b.png").exists()
