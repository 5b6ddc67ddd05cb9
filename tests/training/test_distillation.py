"""Distillation: zero where both see the same, gradient to the learner only, the teacher stays outside."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from configs.schema import OptimConfig
from configs.stage3_schema import LossConfig, Stage3Config
from loading.systems import build_teacher
from models import build_sr
from models.detector_yolo import YoloDetector
from models.single_sr import HRImages, SingleSR
from models.system import ConditionalSRDetector
from tests.models.test_system import NAMES, make_batch, make_system
from training.distillation import Distillation
from training.ema import ModelEMA
from training.task import Progress
from training.tasks.joint import JointTask
from utils.checkpoint import CheckpointError, save_network
from utils.optimizer_utils import freeze_parts, stage3_groups

PROGRESS = Progress(step=0, total_steps=10)
QUIET = LossConfig(det=0.0, sparse=0.0, smooth=0.0, objects=0.0)


def frozen(detector: YoloDetector) -> YoloDetector:
    detector.freeze()
    return detector


@pytest.mark.parametrize("model", ["yolov5nu.yaml", "yolo11n.yaml", "yolo26n.yaml"])
def test_vanishes_where_the_teacher_itself_sees_the_hr_image(model):
    torch.manual_seed(0)
    detector, hr = YoloDetector(model, NAMES), torch.rand(2, 3, 64, 96)
    for layer in detector.modules():  # with statistics of no image the outputs hardly depend on the image
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    detector.train().raw(hr)
    detector = frozen(detector)
    total, terms = Distillation(detector, features=2.0, outputs=3.0)(detector.raw(hr), detector.raw(hr, one2one=False))
    assert set(terms) == {"distill", "distill_outputs"}
    assert total.item() == pytest.approx(0, abs=1e-5)
    other, terms = Distillation(detector, 2.0, 3.0)(detector.raw(hr * 0.3), detector.raw(hr, one2one=False))
    assert terms["distill"] > 0.01 and terms["distill_outputs"] > 1e-4
    assert other.item() == pytest.approx((2 * terms["distill"] + 3 * terms["distill_outputs"]).item(), rel=1e-5)


def test_takes_the_teacher_in_evaluation_mode_only():
    detector = YoloDetector("yolo11n.yaml", NAMES).train()
    with pytest.raises(ValueError, match="not frozen"):
        Distillation(detector, 1.0, 0.0)
    teacher = Distillation(frozen(detector), 1.0, 0.0).teacher
    assert not teacher.train().training


@pytest.mark.parametrize("term", ["features", "outputs"])
def test_gradient_reaches_the_learner_and_nothing_else(term):
    system = make_system()
    teacher = frozen(copy.deepcopy(system.detector))
    distillation = Distillation(teacher, **({"features": 0.0, "outputs": 0.0} | {term: 1.0}))
    losses = JointTask(system.train(), QUIET, distillation=distillation)(make_batch(), PROGRESS)
    losses["total"].backward()

    def moved(parameters) -> bool:
        return sum(p.grad.abs().sum().item() for p in parameters if p.grad is not None) > 0

    front, detector = system.front, system.detector
    assert all(moved(part.parameters()) for part in (front.masker, front.sr_fast, front.sr_quality))
    assert moved(detector.parameter_groups()["backbone"])
    assert moved(detector.head.parameters()) == (term == "outputs")
    assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())
    name = {"features": "distill", "outputs": "distill_outputs"}[term]
    assert losses[name].item() == pytest.approx(losses["total"].item()) and not losses[name].requires_grad


def test_teacher_stays_as_it_was_and_out_of_checkpoint_and_average():
    system = make_system()
    teacher = build_teacher(Stage3Config(), system.detector)
    assert teacher is not system.detector
    keys = set(JointTask(system, QUIET).state_dict())
    objective = JointTask(system, LossConfig(objects=0.0), distillation=Distillation(teacher, 1.0, 1.0)).train()
    optimizer = torch.optim.AdamW(stage3_groups(system, OptimConfig(lr=1e-2, lr_low=1e-2)))
    before = copy.deepcopy(teacher.state_dict())
    for _ in range(2):
        objective(make_batch(), PROGRESS)["total"].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not all(torch.equal(value, before[name]) for name, value in system.detector.state_dict().items())
    assert set(objective.state_dict()) == set(ModelEMA(objective, 0.9).shadow) == keys
    assert not teacher.training


def test_frozen_detector_is_its_own_teacher():
    system = make_system()
    freeze_parts(system, "frozen_detector")
    config = Stage3Config(mode="frozen_detector", losses=LossConfig(distill=1.0))
    assert build_teacher(config, system.detector) is system.detector
    objective = JointTask(system, QUIET, distillation=Distillation(system.detector, 1.0, 0.0)).train()
    batch = make_batch()
    objective(batch, PROGRESS)["total"].backward()
    assert all(p.grad is None for p in system.detector.parameters())
    assert all(p.grad.abs().sum() > 0 for p in system.front.masker.parameters())


def test_detector_learns_towards_its_teacher_without_labels():
    system = make_system(front="bicubic")
    teacher = frozen(copy.deepcopy(system.detector))
    objective = JointTask(system, QUIET, distillation=Distillation(teacher, 1.0, 0.0)).train()
    freeze_parts(system, "detector_only")
    optimizer = torch.optim.AdamW(stage3_groups(system, OptimConfig(lr=2e-4, lr_low=2e-4)))
    batch, distances = make_batch(), []
    for step in range(20):
        losses = objective(batch, Progress(step, 20))
        losses["total"].backward()
        optimizer.step()
        optimizer.zero_grad()
        distances.append(losses["distill"].item())
    assert distances[-1] < 0.8 * distances[0]


def test_bfloat16_gives_float32_losses_near_those_of_float32():
    system = make_system()
    distillation = Distillation(frozen(copy.deepcopy(system.detector)), 1.0, 1.0)
    objective = JointTask(system.train(), LossConfig(objects=0.0), distillation=distillation)
    whole = objective(make_batch(), PROGRESS)
    with torch.autocast("cpu", torch.bfloat16):
        half = objective(make_batch(), PROGRESS)
    half["total"].backward()
    for name in ("distill", "distill_outputs"):
        assert half[name].dtype == torch.float32
        assert half[name].item() == pytest.approx(whole[name].item(), rel=0.1), name
    assert all(p.grad.isfinite().all() for p in system.parameters() if p.grad is not None)


def test_named_teacher_is_a_stage1_checkpoint_for_the_same_classes(tmp_path):
    system, path = make_system(), tmp_path / "teacher.pth"
    torch.manual_seed(5)
    other = YoloDetector("yolo11n.yaml", NAMES)
    save_network(path, "detector", other.spec["name"], other.spec["args"], other.state_dict(), {})
    config = Stage3Config(mode="frozen_detector", losses=LossConfig(distill=1.0, teacher=str(path)))
    teacher = build_teacher(config, system.detector)
    assert teacher.frozen and teacher is not system.detector
    assert all(torch.equal(value, teacher.state_dict()[name]) for name, value in other.state_dict().items())
    with pytest.raises(ValueError, match=r"teacher\.pth: its classes are"):
        build_teacher(config, YoloDetector("yolo11n.yaml", ("a", "b", "c")))
    missing = replace(config, losses=LossConfig(distill=1.0, teacher=str(tmp_path / "none.pth")))
    with pytest.raises(CheckpointError, match=r"none\.pth: no such file"):
        build_teacher(missing, system.detector)


def test_a_stage_3_on_hr_images_can_teach_one_on_lr_images_cannot(tmp_path: Path):
    detector = make_system().detector
    for name, front in (("hr", HRImages()), ("lr", SingleSR(build_sr("espcn", 2)))):
        system = ConditionalSRDetector(front, detector)
        spec = system.spec
        save_network(tmp_path / f"{name}.pth", "system", spec["name"], spec["args"], system.state_dict(), {})
    config = Stage3Config(losses=LossConfig(distill=1.0, teacher=str(tmp_path / "hr.pth")))
    teacher = build_teacher(config, detector)
    assert teacher.frozen and teacher is not detector
    assert all(torch.equal(v, detector.state_dict()[name]) for name, v in teacher.state_dict().items())
    with pytest.raises(ValueError, match="saw LR images; name a stage 1, or a stage 3 with sr hr"):
        build_teacher(replace(config, losses=LossConfig(teacher=str(tmp_path / "lr.pth"))), detector)


def test_another_architecture_teaches_by_its_outputs_only():
    system = make_system()
    teacher = frozen(YoloDetector("yolo11s.yaml", NAMES))
    with pytest.raises(ValueError, match="same architecture"):
        JointTask(system, QUIET, distillation=Distillation(teacher, 1.0, 0.0))(make_batch(), PROGRESS)
    losses = JointTask(system, QUIET, distillation=Distillation(teacher, 0.0, 1.0))(make_batch(), PROGRESS)
    assert losses["distill_outputs"] > 0
