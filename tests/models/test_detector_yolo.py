"""YoloDetector: the loss is Ultralytics' own, prediction is deterministic, the structure is what a YAML says."""

from __future__ import annotations

import copy
import json

import pytest
import torch

from models import detector_yolo
from models.detector_yolo import YoloDetector, model_yaml, non_max_suppression
from tests.lively_yolo import NAMES, build

FAMILIES = ["yolov5nu.yaml", "yolov8n.yaml", "yolo11n.yaml", "yolo26n.yaml"]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> YoloDetector:
    return build(request.param)


@pytest.fixture
def detector(family: YoloDetector) -> YoloDetector:
    return copy.deepcopy(family).train()


@pytest.fixture(scope="module")
def small() -> YoloDetector:
    return build("yolov5nu.yaml")


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Two images, three boxes, not grouped by image."""
    return {
        "images": torch.rand(2, 3, 64, 96),
        "boxes": torch.tensor([[0.5, 0.5, 0.3, 0.4], [0.3, 0.3, 0.2, 0.4], [0.7, 0.6, 0.4, 0.3]]),
        "classes": torch.tensor([0, 2, 1]),
        "image_index": torch.tensor([1, 0, 1]),
    }


def buffers(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.named_buffers()}


# ------------------------------------------------------------------------------------------------------------- loss


@pytest.mark.parametrize("training", [True, False])
def test_loss_is_ultralytics_own_per_image(detector, batch, training):
    reference = copy.deepcopy(detector)
    losses = detector.train(training).loss(**batch)
    grouped = torch.tensor([1, 0, 2])
    expected, _ = reference.train(training).net(
        {
            "img": batch["images"],
            "batch_idx": batch["image_index"][grouped].float(),
            "cls": batch["classes"][grouped].float()[:, None],
            "bboxes": batch["boxes"][grouped],
        }
    )
    assert expected[0] > 0
    torch.testing.assert_close(torch.stack([losses["box"], losses["cls"], losses["dfl"]]), expected.detach() / 2)
    torch.testing.assert_close(losses["det"].detach(), expected.detach().sum() / 2)
    assert not losses["box"].requires_grad


def test_loss_gradient_to_weights_is_ultralytics_own(detector, batch):
    reference = copy.deepcopy(detector)
    detector.loss(**batch)["det"].backward()
    targets = {"batch_idx": batch["image_index"].float(), "cls": batch["classes"].float(), "bboxes": batch["boxes"]}
    order = torch.argsort(batch["image_index"], stable=True)
    loss, _ = reference.net({"img": batch["images"], **{k: v[order] for k, v in targets.items()}})
    (loss.sum() / 2).backward()
    pairs = zip(detector.net.named_parameters(), reference.net.named_parameters(), strict=True)
    for (name, mine), (_, theirs) in pairs:
        assert (mine.grad is None) == (theirs.grad is None), name
        if mine.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_order_of_boxes_does_not_matter(detector, batch):
    detector.eval()
    order = torch.tensor([2, 0, 1])
    shuffled = {k: v if k == "images" else v[order] for k, v in batch.items()}
    torch.testing.assert_close(detector.loss(**batch)["det"], detector.loss(**shuffled)["det"])


@pytest.mark.parametrize("training", [True, False])
def test_gradient_reaches_images(detector, batch, training):
    images = batch["images"].requires_grad_()
    detector.train(training).loss(**batch)["det"].backward()
    assert images.grad.isfinite().all() and images.grad.abs().max() > 0


@pytest.mark.parametrize("training", [True, False])
def test_no_boxes_at_all_is_finite(detector, batch, training):
    batch |= {"boxes": torch.zeros(0, 4), "classes": torch.zeros(0).long(), "image_index": torch.zeros(0).long()}
    losses = detector.train(training).loss(**batch)
    losses["det"].backward()
    assert losses["box"] == 0 and losses["cls"] > 0 and losses["det"].isfinite()


def test_frozen_detector_passes_gradient_and_does_not_change(detector, batch):
    detector.freeze()
    detector.train()
    before, images = buffers(detector), batch["images"].requires_grad_()
    detector.loss(**batch)["det"].backward()
    assert not detector.training and images.grad.abs().max() > 0
    assert all(p.grad is None for p in detector.parameters())
    assert all(torch.equal(value, before[name]) for name, value in detector.named_buffers())


def test_frozen_batchnorm_trains_weights_only(detector, batch):
    detector.freeze_batchnorm()
    detector.train()
    before = buffers(detector)
    detector.loss(**batch)["det"].backward()
    assert detector.training and any(p.grad is not None for p in detector.parameters())
    assert all(torch.equal(value, before[name]) for name, value in detector.named_buffers())


def test_schedule_is_a_pure_function_of_the_epoch(batch):
    detector = build("yolo26n.yaml").eval()
    detector.set_epochs(5)
    walked = []
    for epoch in range(5):
        detector.set_epoch(epoch)
        walked.append(float(detector.loss(**batch)["det"].detach()))
    resumed = copy.deepcopy(detector)
    for epoch in (3, 0, 4):
        resumed.set_epoch(epoch)
        assert float(resumed.loss(**batch)["det"].detach()) == walked[epoch]
    assert len(set(walked)) == 5
    criterion = detector.net.init_criterion()  # Ultralytics' own way through the epochs
    for epoch in range(5):
        detector.set_epoch(epoch)
        assert detector._criterion[1].o2m == pytest.approx(criterion.o2m)
        criterion.update()


def test_loss_under_bf16_autocast_stays_close_to_fp32(detector, batch):
    detector.eval()
    exact = detector.loss(**batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = detector.loss(**batch)
    assert rough["det"].dtype == torch.float32
    for term in ("box", "cls", "dfl"):
        torch.testing.assert_close(rough[term], exact[term], rtol=0.05, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.rand(2, 3, 60, 64)}, "multiples of 32"),
        ({"images": torch.rand(2, 1, 64, 64)}, r"expected \(B, 3, H, W\)"),
        ({"images": torch.zeros(2, 3, 64, 64, dtype=torch.uint8)}, "floating point"),
        ({"boxes": torch.full((3, 4), 20.0)}, "shares of the image"),
        ({"boxes": torch.full((3, 4), float("nan"))}, "shares of the image"),
        ({"boxes": torch.rand(2, 4)}, "expected \\(N, 4\\)"),
        ({"classes": torch.tensor([0, 1, 3])}, "3 classes"),
        ({"classes": torch.tensor([0, 1, -1])}, "3 classes"),
        ({"image_index": torch.tensor([0, 1, 2])}, "2 images"),
    ],
)
def test_bad_targets_are_refused(small, batch, change, message):
    with pytest.raises(ValueError, match=message):
        small.loss(**(batch | change))


# ---------------------------------------------------------------------------------------------------------- predict


def test_predict_is_ultralytics_own_and_keeps_the_mode(detector, batch):
    found = detector.predict(batch["images"], conf=0.1, iou=0.6, max_det=20)
    assert detector.training and all(m.training for m in detector.modules())
    detector.eval()
    expected = non_max_suppression(detector.net(batch["images"])[0], 0.1, 0.6, max_det=20)
    assert not detector.training
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == torch.float32 and 0 < len(mine) <= 20
        assert (mine[:-1, 4] >= mine[1:, 4]).all()
        torch.testing.assert_close(mine, theirs.detach(), rtol=1e-4, atol=1e-3)
    assert all(torch.equal(a, b) for a, b in zip(found, detector.predict(batch["images"], 0.1, 0.6, 20), strict=True))


@torch.no_grad()
def test_batch_equals_singles(detector):
    """Before suppression, which is Ultralytics' own and goes image by image: there boxes of nearly equal score would
    change places on CPUs that sum a batch in another order."""
    images, detector = torch.rand(3, 3, 64, 64), detector.eval()
    together = detector.raw(images, one2one=False)
    for row in range(3):
        single = detector.raw(images[row : row + 1], one2one=False)
        for name in ("boxes", "scores"):
            torch.testing.assert_close(single[name][0], together[name][row], rtol=1e-4, atol=1e-4)
    assert [len(boxes) > 0 for boxes in detector.predict(images, conf=0.1)] == [True] * 3


def test_multi_label_gives_a_box_several_classes(small, batch):
    one, many = (small.predict(batch["images"], conf=0.01, multi_label=flag) for flag in (False, True))
    assert sum(map(len, many)) > sum(map(len, one))


def test_prediction_in_inference_mode_or_bf16_leaves_nothing_behind(small, batch):
    small = copy.deepcopy(small).eval()
    before = small.predict(batch["images"], conf=0.1)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        rough = small.predict(batch["images"], conf=0.1)
    assert rough[0].dtype == torch.float32
    batch["images"].requires_grad_()
    small.loss(**batch)["det"].backward()
    after = small.predict(batch["images"].detach(), conf=0.1)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_anchors_are_made_once_a_size_and_are_those_of_a_fresh_call(small, monkeypatch):
    small, made = copy.deepcopy(small).eval(), []
    detector_yolo.anchor_grid.cache_clear()
    make = detector_yolo.make_anchors
    monkeypatch.setattr(detector_yolo, "make_anchors", lambda *args: made.append(args) or make(*args))
    for size in [(64, 64), (64, 96), (64, 64), (96, 64), (64, 96)]:
        with torch.inference_mode(size == (64, 96)):
            raw = small.raw(torch.rand(2, 3, *size), one2one=False)
            found = small.boxes(raw, size, conf=0.01)
            raw = detector_yolo.float32(raw.get("one2many", raw))
            small.head.shape = None
            expected = detector_yolo.non_max_suppression(
                small.head._inference(raw), 0.01, 0.7, max_det=300, max_time_img=float("inf"), max_wh=7680
            )
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert len(made) == 3 and detector_yolo.anchor_grid.cache_info().currsize == 3
    assert detector_yolo.anchor_grid.cache_info().maxsize == detector_yolo.MOST_GRIDS


def test_slow_suppression_drops_no_image(small, monkeypatch):
    clock = iter(range(0, 10**9, 1000))
    monkeypatch.setattr("ultralytics.utils.nms.time.time", lambda: next(clock))
    images = torch.rand(3, 3, 64, 64)
    assert all(len(found) for found in small.predict(images, conf=0.01))


# ------------------------------------------------------------------------------------------------------- structure


def test_spec_rebuilds_the_detector_without_files(detector, batch):
    spec = json.loads(json.dumps(detector.spec))
    again = YoloDetector(**spec["args"])
    again.load_state_dict(detector.state_dict())
    assert spec["name"] == "yolo" and again.names == tuple(NAMES) and again.spec == detector.spec
    first, second = detector.eval().predict(batch["images"], 0.1), again.predict(batch["images"], 0.1)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_parameter_groups_follow_the_yaml(detector):
    groups = detector.parameter_groups()
    split = len(model_yaml(detector.spec["args"]["model"])["backbone"])
    backbone = {id(p) for layer in detector.net.model[:split] for p in layer.parameters()}
    assert {id(p) for p in groups["backbone"]} == backbone
    everything = {id(p) for p in detector.parameters() if p.requires_grad}
    assert {id(p) for group in groups.values() for p in group} == everything
    assert sum(map(len, groups.values())) == len(everything)


def test_model_names_files_and_sizes(tmp_path):
    assert model_yaml("yolov5nu.yaml")["scale"] == "n" and model_yaml("yolo11s.yaml")["scale"] == "s"
    own = tmp_path / "mine.yaml"
    own.write_text(json.dumps(model_yaml("yolov8n.yaml")))
    assert model_yaml(str(own))["backbone"] == model_yaml("yolov8n.yaml")["backbone"]
    with pytest.raises(ValueError, match="yolo11n"):
        model_yaml("yolo11q.yaml")
    with pytest.raises(ValueError, match="only box detection"):
        YoloDetector("yolo11n-seg.yaml", NAMES)
    with pytest.raises(ValueError, match="backbone and head"):
        YoloDetector({"nc": 3}, NAMES)
    with pytest.raises(ValueError, match="layer 0 is 'NoSuchLayer'"):
        YoloDetector(model_yaml("yolov5n.yaml") | {"backbone": [[-1, 1, "NoSuchLayer", [8]]]}, NAMES)
    with pytest.raises(ValueError, match="cannot be built"):
        YoloDetector(model_yaml("yolov5n.yaml") | {"backbone": [[-1, 1, "Conv", []]]}, NAMES)
    with pytest.raises(ValueError, match="class name"):
        YoloDetector("yolov5n.yaml", [])
