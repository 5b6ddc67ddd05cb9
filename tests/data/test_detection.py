"""Samples and batches: LR, HR and boxes belong together in every mode, and depend on their key alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from configs.schema import AugmentConfig
from data.augment import draw_plan
from data.data_spec import DataSetError, Record
from data.degradation import degrade_bicubic
from data.detection import DetectionDataset, canvas_size, make_loader
from data.detection_batch import collate_detection
from data.images import ImageError
from data.label_share import share_labels
from data.sampler import EpochBatchSampler

COLOURS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1]], np.uint8) * 255
GEOMETRIC = AugmentConfig(mosaic=0.5, scale=0.5, translate=0.2, flip_lr=0.5, flip_ud=0.5)
EVERYTHING = replace(GEOMETRIC, hsv_h=0.02, hsv_s=0.5, hsv_v=0.4)


def save(folder: Path, name: str, image: np.ndarray, boxes=(), classes=()) -> Record:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    Image.fromarray(image).save(path)
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return Record(path, path.with_suffix(".txt"), *image.shape[:2], np.array(classes, np.int64), boxes)


def rectangles(folder: Path, sizes: list[tuple[int, int]], seed: int = 0) -> list[Record]:
    """Black images with one rectangle each, whose colour is its class."""
    rng = np.random.default_rng(seed)
    records = []
    for label, (height, width) in enumerate(sizes):
        image = np.zeros((height, width, 3), np.uint8)
        h, w = rng.integers(height // 4, height // 2), rng.integers(width // 4, width // 2)
        y, x = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
        image[y : y + h, x : x + w] = COLOURS[label]
        box = [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]
        records.append(save(folder / "images", str(label), image, [box], [label]))
    return records


def textures(folder: Path, sizes: list[tuple[int, int]]) -> list[Record]:
    """Smooth random pictures."""
    rng = np.random.default_rng(1)
    records = []
    for i, (height, width) in enumerate(sizes):
        coarse = Image.fromarray(rng.integers(0, 256, (7, 7, 3), dtype=np.uint8))
        image = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
        records.append(save(folder / "images", str(i), image, [[0.5, 0.5, 0.4, 0.3]], [0]))
    return records


def lr_copies(records: list[Record], folder: Path, scale: int) -> Path:
    for record in records:
        save(folder, record.image.stem, degrade_bicubic(np.asarray(Image.open(record.image)), scale))
    return folder


def pixels(tensor: torch.Tensor) -> np.ndarray:
    return tensor.numpy().transpose(1, 2, 0)


def corners(sample: dict, canvas: tuple[int, int]) -> dict[int, np.ndarray]:
    """class -> x1, y1, x2, y2 in canvas pixels."""
    boxes = sample["boxes"].numpy() * [canvas[1], canvas[0], canvas[1], canvas[0]]
    boxes = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
    return dict(zip(sample["classes"].tolist(), boxes))


def check_boxes(sample: dict, image: np.ndarray, unit: int, canvas: tuple[int, int], tolerance: float) -> None:
    """Every label lies on the pixels of its colour, every rectangle that shows well has a label."""
    labels = corners(sample, canvas)
    for label, colour in enumerate(COLOURS):
        hit = (np.abs(image.astype(int) - colour) < 120).all(axis=-1)
        rows, columns = np.flatnonzero(hit.any(axis=1)), np.flatnonzero(hit.any(axis=0))
        if label in labels:
            assert hit.any()
            found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) * unit
            assert np.abs(found - labels[label]).max() <= tolerance, (label, found, labels[label])
        elif hit.any():
            assert hit.sum() * unit**2 < 0.1 * min(canvas) ** 2


def shows_twice(dataset: DetectionDataset, epoch: int, index: int) -> bool:
    """Whether a mosaic holds an image twice, so that colours do not tell objects apart."""
    plan = draw_plan(dataset.augment, dataset.seed, epoch, index, len(dataset), dataset.epochs)
    return len(set(plan.indices)) < len(plan.indices)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("sets")


SIZES = [(60, 80), (64, 64), (50, 90), (128, 96), (33, 47), (64, 96), (96, 61)]


@pytest.fixture(scope="module")
def drawn(folder) -> list[Record]:
    return rectangles(folder / "drawn", SIZES)


@pytest.fixture(scope="module")
def smooth(folder) -> list[Record]:
    return textures(folder / "smooth", [(96, 128), (90, 122), (128, 128), (61, 75), (150, 100)])


# ---------------------------------------------------------------------- evaluation


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_image_of_canvas_size_is_not_resampled(folder, scale):
    record = textures(folder / f"same{scale}", [(96, 120)])[0]
    sample = DetectionDataset([record], ("a",), (96, 120), scale)[0]
    hr = np.asarray(Image.open(record.image))
    np.testing.assert_array_equal(pixels(sample["hr"]), hr)
    np.testing.assert_array_equal(pixels(sample["lr"]), degrade_bicubic(hr, scale))
    np.testing.assert_array_equal(sample["boxes"].numpy(), record.boxes)
    assert sample["epoch"] == -1 and sample["lr"].dtype == torch.uint8


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_padding_is_grey_and_never_bleeds_into_the_image(drawn, scale):
    dataset = DetectionDataset(drawn, tuple("abcdefg"), (96, 144), scale)
    for index in range(len(drawn)):
        sample, box = dataset[index], dataset.letterbox(index)
        content = np.s_[box.top : box.top + box.content[0], box.left : box.left + box.content[1]]
        hr, lr = pixels(sample["hr"]).copy(), pixels(sample["lr"]).copy()
        expected = degrade_bicubic(np.ascontiguousarray(hr[content]), scale)
        inside = np.s_[box.top // scale :, box.left // scale :]
        np.testing.assert_array_equal(lr[inside][: expected.shape[0], : expected.shape[1]], expected)
        lr[inside][: expected.shape[0], : expected.shape[1]] = 114
        hr[content] = 114
        assert (hr == 114).all() and (lr == 114).all()
        check_boxes(sample, pixels(sample["hr"]), 1, (96, 144), 2)


def test_evaluation_ignores_augmentation_and_keeps_every_box(folder):
    image = np.zeros((400, 400, 3), np.uint8)
    record = save(folder / "tiny", "a", image, [[0.5, 0.5, 0.002, 0.002]], [0])
    dataset = DetectionDataset([record], ("a",), (64, 64), 4, augment=EVERYTHING, epochs=3)
    assert len(dataset[0]["classes"]) == 1
    assert len(dataset[0, 0]["classes"]) == 0
    torch.testing.assert_close(dataset[0]["hr"], DetectionDataset([record], ("a",), (64, 64), 4)[0]["hr"])


def test_one_pixel_image(folder):
    record = save(folder / "dot", "a", np.full((1, 1, 3), 200, np.uint8), [[0.5, 0.5, 1, 1]], [0])
    sample = DetectionDataset([record], ("a",), (32, 64), 4)[0]
    assert sample["hr"].shape == (3, 32, 64) and sample["lr"].shape == (3, 8, 16)
    np.testing.assert_allclose(sample["boxes"], [[0.5, 0.5, 0.5, 1.0]])


# ---------------------------------------------------------------------- training


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(epoch=st.integers(0, 10_000), index=st.integers(0, 6), scale=st.sampled_from([2, 3, 4]))
def test_boxes_stay_on_their_objects(drawn, epoch, index, scale):
    dataset = DetectionDataset(drawn, tuple("abcdefg"), (96, 144), scale, augment=GEOMETRIC, epochs=10_001)
    if not shows_twice(dataset, epoch, index):
        sample = dataset[epoch, index]
        check_boxes(sample, pixels(sample["hr"]), 1, (96, 144), 2)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(epoch=st.integers(0, 10_000), index=st.integers(0, 6))
def test_boxes_stay_on_their_objects_in_native_images(drawn, epoch, index):
    dataset = DetectionDataset(drawn, tuple("abcdefg"), (192, 256), 2, lr="native", augment=GEOMETRIC, epochs=10_001)
    sample = dataset[epoch, index]
    assert sample["hr"] is None and sample["lr"].shape == (3, 96, 128)
    if not shows_twice(dataset, epoch, index):
        check_boxes(sample, pixels(sample["lr"]), 2, (192, 256), 4)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_lr_belongs_to_hr_under_augmentation(smooth, folder, scale):
    """In all ways of getting LR, it is the degraded HR canvas: far closer than one that is shifted by an LR pixel."""
    lr_folder = lr_copies(smooth, folder / f"smooth_x{scale}", scale)
    for lr, where in (("bicubic", None), ("folder", lr_folder)):
        dataset = DetectionDataset(
            smooth, ("a",), (96, 144), scale, lr=lr, lr_folder=where, augment=EVERYTHING, epochs=99
        )
        for key in [0, 1, 2, 3, 4] + [(epoch, index) for epoch in range(6) for index in range(5)]:
            sample = dataset[key]
            found, expected = pixels(sample["lr"]).astype(float), degrade_bicubic(pixels(sample["hr"]), scale)
            error = np.median(np.abs(found - expected))
            shifted = min(np.median(np.abs(np.roll(found, 1, axis) - expected)) for axis in (0, 1))
            assert error <= 1.0 + 0.25 * shifted, (lr, key, error, shifted)


def test_folder_agrees_with_bicubic_where_nothing_is_resampled(folder):
    records = textures(folder / "agree", [(96, 144)] * 3)
    lr_folder = lr_copies(records, folder / "agree_x4", 4)
    config = AugmentConfig(flip_lr=0.5, flip_ud=0.5)
    shared = {"canvas": (96, 144), "scale": 4, "augment": config, "epochs": 9}
    bicubic = DetectionDataset(records, ("a",), **shared)
    folder_set = DetectionDataset(records, ("a",), lr="folder", lr_folder=lr_folder, **shared)
    for key in [0, 1, 2] + [(epoch, index) for epoch in range(5) for index in range(3)]:
        a, b = bicubic[key], folder_set[key]
        torch.testing.assert_close(a["hr"], b["hr"], rtol=0, atol=0)
        torch.testing.assert_close(a["lr"], b["lr"], rtol=0, atol=1 if isinstance(key, tuple) else 0)


def test_flips_without_resampling_keep_the_evaluation_geometry(drawn):
    config = AugmentConfig(flip_lr=1.0, flip_ud=1.0)
    dataset = DetectionDataset(drawn, tuple("abcdefg"), (96, 144), 4, augment=config, epochs=1)
    for index in range(len(drawn)):
        plain, flipped = dataset[index], dataset[0, index]
        for kind in ("lr", "hr"):
            torch.testing.assert_close(flipped[kind].flip(1, 2), plain[kind], rtol=0, atol=0)


def test_mosaic_never_mixes_images_with_and_without_labels(drawn):
    some = share_labels(drawn, 0.4, 0, keep_unlabelled=True)
    config = replace(EVERYTHING, mosaic=1.0)
    dataset = DetectionDataset(some, tuple("abcdefg"), (96, 144), 4, augment=config, epochs=50)
    for epoch in range(8):
        for index, record in enumerate(some):
            partners = dataset._plan(epoch, index).indices
            assert len(partners) == 4 and {some[i].labelled for i in partners} == {record.labelled}
            sample = dataset[epoch, index]
            assert sample["labelled"] == record.labelled and (record.labelled or not len(sample["classes"]))


def test_labels_change_no_pixel(drawn):
    some = share_labels(drawn, 0.4, 0, keep_unlabelled=True)
    config = replace(EVERYTHING, mosaic=0.0)
    sets = [DetectionDataset(rows, tuple("abcdefg"), (96, 144), 4, augment=config, epochs=9) for rows in (drawn, some)]
    for index in range(len(drawn)):
        full, part = (dataset[2, index] for dataset in sets)
        assert torch.equal(full["hr"], part["hr"]) and torch.equal(full["lr"], part["lr"])
    batch = collate_detection([sets[1][0, i] for i in range(len(drawn))])
    assert (
        batch.labelled.tolist() == [record.labelled for record in some] and batch.to("cpu").labelled.dtype == torch.bool
    )
    assert batch.labelled[batch.image_index].all()


def test_mosaic_joins_four_images(drawn):
    config = replace(AugmentConfig(flip_lr=0.0), mosaic=1.0)
    dataset = DetectionDataset(drawn, tuple("abcdefg"), (96, 144), 4, augment=config, epochs=50)
    counts = [len(dataset[epoch, 0]["classes"]) for epoch in range(40)]
    assert max(counts) >= 3 and np.mean(counts) > 1.5


# ---------------------------------------------------------------------- order, batches


def same(a, b) -> bool:
    tensors = ("lr", "hr", "boxes", "classes", "image_index", "indices")
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in tensors) and (
        (a.epoch, a.files, a.letterboxes, a.scale) == (b.epoch, b.files, b.letterboxes, b.scale)
    )


def test_batches_do_not_depend_on_workers(drawn):
    dataset = DetectionDataset(drawn, tuple("abcdefg"), (96, 144), 4, augment=EVERYTHING, epochs=9, seed=5)

    def batches(workers, epoch):
        return list(make_loader(dataset, EpochBatchSampler(7, 4, 2, 5, epoch), 0, workers))

    for epoch in (0, 3):
        alone, two = batches(0, epoch), batches(2, epoch)
        assert len(alone) == 2 and all(same(a, b) for a, b in zip(alone, two, strict=True))
    evaluation = [list(make_loader(dataset, None, 3, workers)) for workers in (0, 2)]
    assert [len(batch.files) for batch in evaluation[0]] == [3, 3, 1]
    assert all(same(a, b) for a, b in zip(*evaluation, strict=True))


def test_samples_do_not_depend_on_order_or_seed_state(drawn):
    keys = [(epoch, index) for epoch in (0, 2) for index in range(7)]
    dataset = DetectionDataset(drawn, tuple("abcdefg"), (96, 144), 4, augment=EVERYTHING, epochs=9)
    first = {key: dataset[key] for key in keys}
    np.random.seed(3)
    for key in reversed(keys):
        again = dataset[key]
        assert all(torch.equal(first[key][name], again[name]) for name in ("lr", "hr", "boxes", "classes"))
    assert not torch.equal(first[0, 1]["hr"], first[2, 1]["hr"])


def test_batch_layout(drawn):
    empty = replace(drawn[1], boxes=np.zeros((0, 4), np.float32), classes=np.zeros(0, np.int64))
    dataset = DetectionDataset([drawn[0], empty, drawn[2]], tuple("abcdefg"), (96, 144), 4)
    batch = collate_detection([dataset[i] for i in range(3)])
    assert batch.image_index.tolist() == [0, 2] and batch.classes.tolist() == [0, 2]
    assert batch.lr.dtype == torch.uint8 and batch.lr.shape == (3, 3, 24, 36) and batch.canvas == (96, 144)
    moved = batch.to("cpu")
    assert moved.lr.dtype == moved.hr.dtype == torch.float32 and batch.lr.dtype == torch.uint8
    torch.testing.assert_close(moved.hr, batch.hr / 255)
    torch.testing.assert_close(moved.to("cpu").hr, moved.hr)
    none = collate_detection([dataset[1]])
    assert none.boxes.shape == (0, 4) and none.image_index.shape == (0,)
    native = DetectionDataset(drawn, tuple("abcdefg"), (96, 144), 4, lr="native")
    assert collate_detection([native[0], native[1]]).to("cpu").hr is None


@pytest.mark.parametrize("lr", ["bicubic", "native"])
def test_boxes_go_back_to_the_original_image(drawn, lr):
    dataset = DetectionDataset(drawn, tuple("abcdefg"), (96, 144), 4, lr=lr)
    for index, record in enumerate(drawn):
        sample = dataset[index]
        found = sample["letterbox"].to_original(corners(sample, (96, 144))[index][None])[0]
        cx, cy, w, h = record.boxes[0] * [record.width, record.height, record.width, record.height]
        np.testing.assert_allclose(found, [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], atol=1e-3)


# ---------------------------------------------------------------------- faults


def test_canvas_size():
    assert canvas_size(640, 4) == (640, 640) and canvas_size([512, 640], 4) == (512, 640)
    for scale, step in ((2, 32), (3, 96), (4, 32)):  # as the comment in configs/stage1_yolo_pretrain.yaml says
        assert canvas_size([step, 3 * step], scale) == (step, 3 * step)
        with pytest.raises(ValueError, match=f"each a multiple of {step}"):
            canvas_size(step // 2, scale)
    with pytest.raises(ValueError, match=r"multiple of 96 .*use 672"):
        canvas_size(640, 3)
    with pytest.raises(ValueError, match=r"use \[512, 640\]"):
        canvas_size([500, 640], 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": "folder"}, "lr_folder"),
        ({"lr_folder": "x"}, "lr_folder"),
        ({"lr": "other"}, "bicubic, folder, native"),
        ({"canvas": (97, 144)}, "multiple of the scale"),
        ({"records": []}, "empty"),
        ({"augment": AugmentConfig(scale=1.0)}, "augment.scale"),
        ({"lr": "folder", "lr_folder": "/nowhere"}, "no such folder.*prepare_detection_data"),
    ],
)
def test_settings_that_do_not_fit(drawn, settings, message):
    with pytest.raises(ValueError, match=message):
        DetectionDataset(**{"records": drawn, "names": ("a",), "canvas": (96, 144), "scale": 4} | settings)


def test_lr_folder_of_another_scale_or_incomplete(smooth, folder):
    lr_folder = lr_copies(smooth, folder / "wrong_x2", 2)
    with pytest.raises(DataSetError, match=r"0\.png: is 64x48, expected 32x24 .*data\.scale 4"):
        DetectionDataset(smooth, ("a",), (96, 144), 4, lr="folder", lr_folder=lr_folder)
    (lr_folder / "3.png").rename(lr_folder / "other.png")
    with pytest.raises(DataSetError, match=r"3\.png: no LR copy .*wrong_x2"):
        DetectionDataset(smooth, ("a",), (96, 144), 2, lr="folder", lr_folder=lr_folder)
    save(lr_folder, "3", np.zeros((5, 5, 3), np.uint8))
    dataset = DetectionDataset(smooth, ("a",), (96, 144), 2, lr="folder", lr_folder=lr_folder)
    with pytest.raises(DataSetError, match="is 5x5, expected 38x31"):
        dataset[3]


def test_image_that_changed_is_named(folder):
    record = save(folder / "changed", "a", np.zeros((20, 20, 3), np.uint8))
    dataset = DetectionDataset([record], ("a",), (32, 32), 4)
    save(folder / "changed", "a", np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(ImageError, match="is 30x20 now, was 20x20"):
        dataset[0]
    with pytest.raises(Exception, match="is 30x20 now"):
        list(make_loader(dataset, None, 1, 1))
    with pytest.raises(IndexError):
        dataset[1]
