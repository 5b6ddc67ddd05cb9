"""A detector that learns from slices: which parts of an image it sees, and where the boxes are in them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.stage3_schema import LossConfig
from models.build_front import build_front
from models.detector_yolo import YoloDetector
from models.sliced_detection import Slicer
from models.system import ConditionalSRDetector
from training.task import Progress
from training.tasks.slices import SlicesTask

PROGRESS = Progress(step=0, total_steps=10)
HEIGHT, WIDTH, SCALE = 24, 32, 2


def task_of(detector=None, full: bool = True, seed: int = 0, det: float = 1.0) -> SlicesTask:
    front = build_front({"name": "bicubic", "args": {"scale": SCALE}})
    system = ConditionalSRDetector(front, detector or NoDetector())
    return SlicesTask(system, LossConfig(det=det), Slicer(SCALE, 2, 2, 0.2, full), seed)


class NoDetector(torch.nn.Module):
    stride = 1


def batch_of(boxes: list[list[float]], rows: list[int], images: int = 2, epoch: int = 0) -> SimpleNamespace:
    """Boxes (left, top, right, bottom) in LR pixels."""
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4) / torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])
    return SimpleNamespace(
        lr=torch.rand(images, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)),
        boxes=torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1),
        classes=torch.arange(len(boxes)),
        image_index=torch.tensor(rows, dtype=torch.int64),
        indices=torch.arange(images) + 5,
        epoch=epoch,
        canvas=(HEIGHT * SCALE, WIDTH * SCALE),
    )


def windows_of(task: SlicesTask, batch) -> list:
    return [task.windows(batch, int(index)) for index in batch.indices]


@settings(max_examples=50)
@given(data=st.data(), full=st.booleans())
def test_boxes_are_where_the_pixels_are(data, full: bool):
    """Boxes drawn as white rectangles are white in the slices, at the places that the targets name."""
    boxes, rows = [], []
    for image in (0, 1):
        x, y = data.draw(st.integers(0, WIDTH - 4)), data.draw(st.integers(0, HEIGHT - 4))
        boxes.append(
            [
                x,
                y,
                x + data.draw(st.integers(4, min(12, WIDTH - x))),
                y + data.draw(st.integers(4, min(12, HEIGHT - y))),
            ]
        )
        rows.append(image)
    task, batch = task_of(full=full), batch_of(boxes, rows)
    batch.lr.zero_()
    for (x1, y1, x2, y2), row in zip(boxes, rows, strict=True):
        batch.lr[row, :, y1:y2, x1:x2] = 1
    windows = windows_of(task, batch)
    found, classes, index = task.targets(batch, windows)
    shown = torch.cat([task.slicer.cut(lr[None], own) for lr, own in zip(batch.lr, windows, strict=True)])
    assert len(shown) == 2 * (4 + full) and len(found) == len(classes) == len(index)
    assert found.numel() == 0 or (found.min() >= 0 and found.max() <= 1)
    for (cx, cy, w, h), label, number in zip(found.tolist(), classes.tolist(), index.tolist(), strict=True):
        assert label == number // (4 + full), "each image has a box of its own class"
        canvas_height, canvas_width = batch.canvas
        centre = shown[
            number, 0, min(int(cy * canvas_height), canvas_height - 1), min(int(cx * canvas_width), canvas_width - 1)
        ]
        assert centre > 0.5 and w > 0 and h > 0
    for number, (top, left, high, wide) in enumerate(window for own in windows for window in own):
        x1, y1, x2, y2 = boxes[number // (4 + full)]
        inside = max(0, min(x2, left + wide) - max(x1, left)) * max(0, min(y2, top + high) - max(y1, top))
        if inside == (x2 - x1) * (y2 - y1):
            assert number in index.tolist(), "a box that a slice holds whole is a target of it"
        elif inside < 0.09 * (x2 - x1) * (y2 - y1):
            assert number not in index.tolist(), "what is hardly there is none"


def test_whole_image_keeps_its_boxes():
    task, batch = task_of(), batch_of([[3, 4, 10, 12]], [1])
    boxes, classes, rows = task.targets(batch, windows_of(task, batch))
    torch.testing.assert_close(boxes[rows == 9], batch.boxes)
    assert classes.tolist() == [0] * len(rows) and set(rows.tolist()) <= {5, 6, 7, 8, 9}


def test_places_are_drawn_anew_in_every_epoch_and_again_in_a_resumed_one():
    task, batch = task_of(), batch_of([], [])
    first, again = windows_of(task, batch), windows_of(task, batch)
    assert first == again and first[0] != first[1]
    others = [windows_of(task, batch_of([], [], epoch=1)), windows_of(task_of(seed=1), batch)]
    assert first not in others and others[0] != others[1]
    size = task.slicer.windows(HEIGHT, WIDTH)[0][2:]
    assert all(window[2:] == size for own in first for window in own[:-1]), "as large as in inference"
    assert all(own[-1] == (0, 0, HEIGHT, WIDTH) for own in first)
    alone = batch_of([], [])
    alone.indices, alone.lr = batch.indices[1:], batch.lr[1:]
    assert windows_of(task, alone) == first[1:], "whatever else is in the batch"


def test_the_detector_learns_from_all_slices():
    torch.manual_seed(0)
    detector = YoloDetector("yolo11n.yaml", ("a", "b"))
    task, batch = task_of(detector, det=2.0), batch_of([[3, 4, 10, 12], [20, 2, 30, 20]], [0, 1])
    sizes = []
    detector.net.model[0].register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape))
    batch.lr = torch.rand(2, 3, 32, 32)
    batch.canvas = (64, 64)
    losses = task.train()(batch, PROGRESS)
    losses["total"].backward()
    assert sizes == [(10, 3, 64, 64)] and losses["total"].item() == pytest.approx(2 * losses["det"].item())
    assert all(parameter.grad is not None for parameter in detector.parameter_groups()["backbone"])


def test_an_image_without_objects():
    task, batch = task_of(), batch_of([], [])
    boxes, classes, rows = task.targets(batch, windows_of(task, batch))
    assert boxes.shape == (0, 4) and classes.shape == rows.shape == (0,) and rows.dtype == torch.int64
