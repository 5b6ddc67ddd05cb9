"""Objects per patch, from labels and from a teacher's boxes, and the ranking loss that they are for."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.stage3_schema import LossConfig
from models.object_patches import detected_centres, objects_per_patch
from tests.models.test_system import make_batch, make_system
from training.distillation import Distillation
from training.task import Progress
from training.tasks.joint import JointTask
from utils.losses import object_ranking

PROGRESS = Progress(step=0, total_steps=10)
RANKING = LossConfig(det=0.0, sparse=0.0, smooth=0.0, objects=1.0)


@given(
    centres=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(0, 2)), max_size=8),
    size=st.tuples(st.integers(4, 50), st.integers(4, 50)),
    patch=st.integers(4, 17),
)
def test_every_object_is_in_the_one_patch_that_holds_its_centre(centres, size, patch):
    grid = (-(-size[0] // patch), -(-size[1] // patch))
    points = torch.tensor([c[:2] for c in centres], dtype=torch.float32).view(-1, 2)
    rows = torch.tensor([c[2] for c in centres], dtype=torch.long)
    counts = objects_per_patch(points, rows, 3, size, patch, grid)
    assert counts.shape == (3, 1, *grid) and counts.sum() == len(centres)
    for (x, y), image in zip(points.tolist(), rows.tolist()):
        place = min(int(y * size[0] / patch + 1e-4), grid[0] - 1), min(int(x * size[1] / patch + 1e-4), grid[1] - 1)
        around = counts[image, 0, max(place[0] - 1, 0) : place[0] + 1, max(place[1] - 1, 0) : place[1] + 1]
        assert around.sum() >= 1  # a centre on a border may fall to either side by rounding


def test_centres_of_detections():
    first = torch.tensor([[0.0, 0.0, 16.0, 8.0, 0.9, 0.0], [32.0, 16.0, 64.0, 32.0, 0.5, 1.0]])
    centres, images = detected_centres([first, first[:0], first[:1]], canvas=(32, 64))
    assert centres.tolist() == [[0.125, 0.125], [0.75, 0.75], [0.125, 0.125]] and images.tolist() == [0, 0, 2]
    none, images = detected_centres([first[:0]], canvas=(32, 64))
    assert none.shape == (0, 2) and images.shape == (0,)


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), level=st.floats(-5, 5))
def test_ranking_ignores_the_level_and_is_least_at_the_log_of_the_counts(seed, level):
    generator = torch.Generator().manual_seed(seed)
    objects = torch.randint(0, 4, (2, 1, 3, 4), generator=generator).float()
    score = torch.randn(2, 1, 3, 4, generator=generator)
    loss = object_ranking(score, objects)
    assert object_ranking(score + level, objects).item() == pytest.approx(loss.item(), abs=1e-4)
    best = object_ranking(objects.clamp_min(1e-9).log(), objects)
    assert loss >= best - 1e-4


def test_without_objects_there_is_nothing_to_rank():
    assert object_ranking(torch.randn(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)) == 0
    with pytest.raises(ValueError, match="object ranking: scores are"):
        object_ranking(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 3))


def test_labels_count_where_they_may_be_looked_at():
    system, batch = make_system().train(), make_batch()
    masker, size = system.front.masker, batch.lr.shape[-2:]
    expected = objects_per_patch(
        batch.boxes[:, :2], batch.image_index, len(batch.lr), size, masker.patch, masker.grid(*size)
    )
    with_labels = JointTask(system, replace(RANKING, det=1.0))
    assert torch.equal(with_labels.objects(batch, None), expected) and expected.sum() == len(batch.boxes)
    assert JointTask(system, RANKING).objects(batch, None).sum() == 0


def test_the_teacher_tells_where_labels_are_withheld(monkeypatch):
    system, batch = make_system().train(), make_batch()
    teacher = copy.deepcopy(system.detector)
    teacher.freeze()
    height, width = batch.canvas
    found = torch.tensor([[0.0, 0.0, 2.0, 2.0, 0.9, 0.0], [width - 2.0, height - 2.0, width, height, 0.8, 0.0]])
    monkeypatch.setattr(teacher, "boxes", lambda raw, size, conf: [found] * len(batch.lr))
    objective = JointTask(system, replace(RANKING, det=1.0), distillation=Distillation(teacher, 1.0, 0.0))
    batch.labelled = torch.tensor([False, True])
    batch.boxes, batch.classes, batch.image_index = batch.boxes[1:], batch.classes[1:], torch.ones(1).long()
    counts = objective.objects(batch, objective.teacher_output(batch))
    assert counts[0, 0, 0, 0] == 1 and counts[0, 0, -1, -1] == 1 and counts[0].sum() == 2
    assert counts[1].sum() == len(batch.boxes)
    label_free = JointTask(system, RANKING, distillation=Distillation(teacher, 1.0, 0.0))
    assert label_free.objects(batch, objective.teacher_output(batch)).sum(dim=(1, 2, 3)).tolist() == [2, 2]


def test_images_whose_objects_nobody_knows_take_no_part():
    system, batch = make_system().train(), make_batch()
    both = JointTask(system, replace(RANKING, det=1e-9))(batch, PROGRESS)["objects"]
    batch.labelled = torch.tensor([False, True])
    batch.boxes, batch.classes, batch.image_index = batch.boxes[1:], batch.classes[1:], torch.ones(1).long()
    objective = JointTask(system, replace(RANKING, det=1e-9, rec=1.0))
    losses = objective(batch, PROGRESS)
    score, objects = objective.draw(batch, PROGRESS)[0].score, objective.objects(batch, None)
    assert losses["objects"].item() == pytest.approx(object_ranking(score[1:], objects[1:]).item(), rel=1e-4)
    assert losses["objects"] < both
    batch.labelled, batch.boxes = torch.tensor([False, False]), batch.boxes[:0]
    batch.classes, batch.image_index = batch.classes[:0], batch.image_index[:0]
    assert objective(batch, PROGRESS)["objects"] == 0


def test_the_teacher_counts_what_it_predicts_in_the_hr_image():
    system, batch = make_system().train(), make_batch()
    teacher = copy.deepcopy(system.detector)
    teacher.freeze()
    with torch.no_grad():  # sure of something everywhere
        for branch in teacher.head.cv3:
            branch[-1].bias.fill_(2.0)
    objective = JointTask(system, RANKING, distillation=Distillation(teacher, 1.0, 0.0))
    counts = objective.objects(batch, objective.teacher_output(batch))
    found = teacher.predict(batch.hr, conf=0.25)
    assert sum(map(len, found)) > 0
    masker, size = system.front.masker, batch.lr.shape[-2:]
    expected = objects_per_patch(*detected_centres(found, (64, 64)), 2, size, masker.patch, masker.grid(*size))
    assert torch.equal(counts, expected)


@pytest.mark.slow
def test_the_masker_learns_the_order_from_this_term_alone():
    torch.manual_seed(0)
    system, batch = make_system().train(), make_batch()
    objective = JointTask(system, replace(RANKING, det=1e-12))
    objects = objective.objects(batch, None)
    optimizer = torch.optim.AdamW(system.front.masker.parameters(), lr=1e-2)
    first = None
    for _ in range(60):
        optimizer.zero_grad()
        losses = objective(batch, PROGRESS)
        losses["total"].backward()
        optimizer.step()
        first = losses["objects"] if first is None else first
    assert losses["objects"] < 0.7 * first
    score = system.front(batch.lr).score
    assert score[objects > 0].mean() > score[objects == 0].mean() + 1
