"""The stage-3 objective with few labels or none, HR steps and drawn budgets."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from configs.stage3_schema import LossConfig
from tests.models.test_system import make_batch, make_system
from training.distillation import Distillation
from training.task import Progress
from training.tasks.joint import JointTask
from training.tasks.joint_turns import is_hr_step, turn_of
from utils.gumbel import random_shares
from utils.optimizer_utils import freeze_parts

PROGRESS = Progress(step=0, total_steps=10)
DETECTION = ("det", "box", "cls", "dfl")


def make_distillation(system, features: float = 1.0, outputs: float = 1.0) -> Distillation:
    teacher = copy.deepcopy(system.detector)
    teacher.freeze()
    return Distillation(teacher, features, outputs)


def gradients(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


# ---------------------------------------------------------------------- labels


def test_without_detection_loss_poisoned_labels_change_nothing():
    results = []
    for poisoned in (False, True):
        system = make_system()
        freeze_parts(system, "frozen_detector")
        objective = JointTask(
            system, LossConfig(det=0.0, rec=1.0, objects=0.0), distillation=Distillation(system.detector, 1.0, 1.0)
        )
        batch = make_batch()
        if poisoned:
            batch.boxes, batch.classes = torch.full((3, 4), float("nan")), torch.full((3,), 99)
            batch.image_index = torch.full((3,), -7)
        losses = objective.train()(batch, PROGRESS)
        losses["total"].backward()
        results.append((losses, gradients(system)))
    assert not set(DETECTION) & set(results[0][0])
    for clean, poisoned in zip(*results, strict=True):
        assert clean.keys() == poisoned.keys() and all(torch.equal(clean[name], poisoned[name]) for name in clean)
    with pytest.raises(ValueError, match="boxes hold values"):
        JointTask(make_system(), LossConfig(objects=0.0))(batch, PROGRESS)


@pytest.mark.parametrize("distilled", [False, True])
def test_detection_loss_sees_labelled_images_only(distilled):
    system = make_system(front="espcn").eval()
    batch = make_batch()
    batch.labelled = torch.tensor([False, True])
    batch.boxes, batch.classes, batch.image_index = batch.boxes[1:], batch.classes[1:], torch.tensor([1])
    distillation = make_distillation(system) if distilled else None
    objective = JointTask(system, LossConfig(objects=0.0), distillation=distillation, label_share=0.25)
    losses = objective(batch, PROGRESS)
    sr = system.front(batch.lr).sr
    alone = system.detector.loss(sr[1:], batch.boxes, batch.classes, torch.tensor([0]))
    for name in DETECTION:
        expected = alone[name].item() * 0.5 / 0.25  # half of the batch, where a quarter would be usual
        assert losses[name].item() == pytest.approx(expected, rel=1e-4), name
    terms = sum(losses[name] for name in ("distill", "distill_outputs")) if distilled else 0.0
    assert losses["total"].item() == pytest.approx((losses["det"] + terms).item(), rel=1e-5)


def test_batch_without_any_label_still_teaches_and_logs_the_same_names():
    system = make_system().train()
    objective = JointTask(system, LossConfig(objects=0.0), distillation=make_distillation(system), label_share=0.1)
    batch = make_batch()
    names = set(objective(batch, PROGRESS))
    batch.labelled = torch.zeros(2, dtype=torch.bool)
    batch.boxes, batch.classes = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
    batch.image_index = torch.zeros(0, dtype=torch.long)
    losses = objective(batch, PROGRESS)
    assert set(losses) == names and all(losses[name] == 0 for name in DETECTION)
    losses["total"].backward()
    assert gradients(system.front) and gradients(system.detector)


@given(flags=st.lists(st.booleans(), min_size=8, max_size=8).filter(any))
def test_each_labelled_image_counts_the_same_in_any_batch(flags):
    """With a loss of 1 an image, the micro-batches of an epoch add up to the loss of full labels."""

    class One(torch.nn.Module):
        def loss(self, images, boxes, classes, image_index, raw=None):
            assert (images.flatten(1).amax(1) == 1).all(), "only labelled images are marked with ones"
            assert (image_index == torch.arange(len(images))).all()
            return {name: images.new_ones(()) for name in DETECTION}

    system = torch.nn.Module()
    system.detector, system.zoom, system.upscale, system.shown = One(), 1, 1, torch.nn.Identity()
    labelled = torch.tensor(flags)
    objective = JointTask(system, LossConfig(objects=0.0), label_share=labelled.float().mean().item())
    total = 0.0
    for part in torch.arange(8).split(2):
        batch = make_batch()
        batch.labelled = labelled[part]
        batch.image_index = batch.labelled.nonzero()[:, 0]
        images = batch.labelled.float()[:, None, None, None].expand(2, 3, 4, 4)
        total += objective.detection(images, batch, None)["det"].item() / 4
    assert total == pytest.approx(1.0)


# ---------------------------------------------------------------------- HR steps


@given(share=st.floats(0, 0.9), total=st.integers(1, 400))
def test_hr_steps_are_counted_and_evenly_spread(share, total):
    hr = [step for step in range(total) if is_hr_step(step, share)]
    assert abs(len(hr) - total * share) < 1 + 1e-9
    gaps = [later - earlier for earlier, later in itertools.pairwise(hr)]
    assert not gaps or max(gaps) - min(gaps) <= 1
    assert not (share == 0 and hr)


@pytest.mark.parametrize("distilled", [False, True])
def test_hr_step_trains_the_detector_alone_on_hr_images(distilled):
    system = make_system().train()
    system.detector.freeze_batchnorm()
    distillation = make_distillation(system) if distilled else None
    objective = JointTask(system, LossConfig(rec=1.0, hr_share=0.5, objects=0.0), distillation=distillation)
    batch = make_batch()
    assert "det" in objective(batch, PROGRESS)
    losses = objective(batch, Progress(step=1, total_steps=10))
    losses["total"].backward()
    assert not gradients(system.front) and gradients(system.detector)
    expected = system.detector.loss(batch.hr, batch.boxes, batch.classes, batch.image_index)
    assert losses["hr_det"].item() == pytest.approx(expected["det"].item(), rel=1e-5)
    assert all(name == "total" or name.startswith("hr_") for name in losses)
    assert not distilled or losses["hr_distill"] == 0, "teacher and detector are still the same"


# ---------------------------------------------------------------------- in turns


@given(share=st.floats(0, 0.5), total=st.integers(2, 400))
def test_turns_alternate_and_hr_steps_are_the_detectors(share, total):
    turns = [turn_of(step, share, True) for step in range(total)]
    assert [who for who, _ in turns] == (["front", "detector"] * total)[:total]
    assert not any(hr for who, hr in turns if who == "front")
    assert abs(sum(hr for _, hr in turns) - total * share) < 1.5
    assert {turn_of(step, 0.0, False) for step in range(total)} == {("both", False)}


@pytest.mark.parametrize("distilled", [False, True])
def test_front_end_and_detector_learn_in_turns_from_the_same_terms(distilled):
    def after(step: int, alternate: bool):
        system = make_system().train()
        system.detector.freeze_batchnorm()
        distillation = make_distillation(system) if distilled else None
        weights = LossConfig(rec=1.0, alternate=alternate, objects=0.0)
        losses = JointTask(system, weights, distillation=distillation)(make_batch(), Progress(step, 10))
        losses["total"].backward()
        assert all(p.requires_grad for p in system.front.parameters()), "what rested learns again"
        return losses, gradients(system.front), gradients(system.detector)

    for step in (0, 1):
        together, front, detector = after(step, False)
        losses, *own = after(step, True)
        expected = [front, {}] if step == 0 else [{}, detector]
        for found, wanted in zip(own, expected, strict=True):
            assert found.keys() == wanted.keys()
            for name, value in found.items():
                torch.testing.assert_close(value, wanted[name], rtol=1e-4, atol=1e-6)
        assert losses["total"].item() == pytest.approx(together["total"].item(), rel=1e-5)


# ---------------------------------------------------------------------- budgets


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize("bounds", [(0.1, 0.6), (0.0, 1.0), (0.5, 0.5)])
def test_images_keep_exactly_the_drawn_shares(tiles, bounds):
    system = make_system(halo=1).with_execution(train_tiles=tiles).train()
    objective = JointTask(system, LossConfig(objects=0.0), seed=3, budgets=bounds)
    for epoch in range(3):
        batch = make_batch()
        batch.epoch, batch.indices = epoch, torch.tensor([4, 9])
        output, _ = objective.draw(batch, PROGRESS)
        shares = random_shares([4, 9], epoch, 3, bounds)
        patches = output.mask[0].numel()
        assert output.mask.sum((1, 2, 3)).tolist() == [round(share * patches) for share in shares.tolist()]
        losses = objective(batch, PROGRESS)
        assert losses["kept_share"].item() == pytest.approx(output.mask.mean().item())


@pytest.mark.parametrize("tiles", [False, True])
def test_masker_learns_under_budgets(tiles):
    system = make_system(halo=1).with_execution(train_tiles=tiles).train()
    objective = JointTask(system, LossConfig(sparse=0.0, smooth=0.0, objects=0.0), budgets=(0.2, 0.8))
    objective(make_batch(), PROGRESS)["total"].backward()
    for name, parameter in system.front.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_budgets_belong_to_training_only():
    system = make_system().eval()
    objective = JointTask(system, LossConfig(objects=0.0), budgets=(0.0, 0.0))
    free, _ = JointTask(system, LossConfig(objects=0.0)).draw(make_batch(), PROGRESS)
    held, _ = objective.draw(make_batch(), PROGRESS)
    assert torch.equal(free.mask, held.mask)
    assert objective.train().draw(make_batch(), PROGRESS)[0].mask.sum() == 0


# ---------------------------------------------------------------------- padding


def test_terms_of_patches_and_pixels_do_not_see_the_padding():
    """Half of each canvas is padding, of which the HR and LR images say this or that, and so does the masker."""
    found = []
    for level in (0.1, 0.9):
        torch.manual_seed(0)
        system, batch = make_system(halo=1).train(), make_batch()
        batch.content = torch.tensor([[[0, 0, 16, 32]]] * 2)
        batch.boxes[:, 1] = 0.2
        batch.hr[:, :, 32:] = level
        # A masker that looks at single pixels, so that no patch of the image sees what lies beside it.
        pooled = torch.nn.AvgPool2d(8)
        system.front.masker._patch_features = lambda lr, pooled=pooled: pooled(lr)[:, [0, 1, 2, 0, 1, 2, 0, 1]]
        batch.lr[:, :, 16:] = level
        weights = LossConfig(det=1e-9, sparse=1.0, smooth=1.0, objects=1.0)
        losses = JointTask(system, weights, budgets=(0.5, 0.5))(batch, PROGRESS)
        found.append({name: losses[name].item() for name in ("sparse", "smooth", "objects", "expected_share")})
        assert losses["kept_share"] == 0.5, "of the patches that hold image"
        drawn = JointTask(system, weights, budgets=(0.5, 0.5)).draw(batch, PROGRESS)[0].mask
        assert drawn[:, :, :2].sum((1, 2, 3)).tolist() == [4, 4] and drawn[:, :, 2:].sum() == 0
    assert found[0] == pytest.approx(found[1])


def test_reconstruction_compares_image_pixels_alone():
    system, batch = make_system().train(), make_batch()
    batch.content = torch.tensor([[[0, 0, 16, 32]], [[4, 4, 32, 12]]])
    pixels = torch.zeros(2, 1, 64, 64, dtype=torch.bool)
    pixels[0, :, :32], pixels[1, :, 8:64, 8:24] = True, True
    objective = JointTask(system, LossConfig(det=0.0, sparse=0.0, smooth=0.0, objects=0.0, rec=1.0))
    assert torch.equal(objective.image_pixels(batch), pixels)
    before = objective(batch, PROGRESS)["rec"]
    batch.hr[~pixels.expand_as(batch.hr)] = 7.0
    assert objective(batch, PROGRESS)["rec"] == before
