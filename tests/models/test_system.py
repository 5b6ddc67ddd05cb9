"""The joined system and its objective: gradients, modes, batches, rebuilding."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from configs.schema import OptimConfig
from configs.stage3_schema import LossConfig
from deployment.prepare import prepare_system
from loading.systems import load_system, system_from_spec
from models import build_sr
from models.build_front import build_front, shared_stem
from models.conditional_sr import ConditionalSR
from models.detector_input import filled, resized
from models.detector_yolo import YoloDetector
from models.execution import Execution
from models.mask_policy import parse_policy
from models.masker import Masker
from models.single_sr import HRImages, SingleSR
from models.system import ConditionalSRDetector
from training.task import Progress
from training.tasks.joint import JointTask
from training.tasks.pixel import PixelTask
from utils.checkpoint import save_network
from utils.gumbel import gumbel_noise
from utils.optimizer_utils import freeze_parts, stage3_groups
from utils.resize import resize

NAMES = ("dark", "bright")
PROGRESS = Progress(step=0, total_steps=10)


def make_system(halo: int | None = None, front: str = "conditional", share: bool = False) -> ConditionalSRDetector:
    torch.manual_seed(0)
    quality = build_sr("edsr", 2, {"n_blocks": 1, "n_feats": 8})
    if front == "conditional":
        fast = build_sr("espcn", 2)
        masker = Masker(8, channels=4, bias=0.0, stem=shared_stem(fast) if share else None)
        front_end = ConditionalSR(masker, fast, quality, Execution(halo))
    else:
        front_end = SingleSR(build_sr(front, 2))
    # Fresh SR networks start as equal interpolators; the mask can only matter where they differ.
    with torch.no_grad():
        for parameter in quality.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return ConditionalSRDetector(front_end, YoloDetector("yolo11n.yaml", NAMES))


def make_batch(images: int = 2) -> SimpleNamespace:
    generator = torch.Generator().manual_seed(1)
    lr = torch.rand(images, 3, 32, 32, generator=generator)
    return SimpleNamespace(
        lr=lr,
        hr=torch.rand(images, 3, 64, 64, generator=generator),
        boxes=torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.3, 0.6, 0.3, 0.2]])[:images],
        classes=torch.tensor([0, 1])[:images],
        image_index=torch.arange(2)[:images],
        labelled=torch.ones(images, dtype=torch.bool),
        indices=torch.arange(images),
        epoch=0,
        canvas=(64, 64),
        content=None,
    )


def test_gradient_reaches_the_masker_from_the_detection_loss_alone():
    system = make_system().train()
    weights = LossConfig(det=1.0, sparse=0.0, smooth=0.0, rec=0.0, objects=0.0)
    JointTask(system, weights)(make_batch(), PROGRESS)["total"].backward()
    for name, parameter in system.front.masker.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_every_term_pulls_where_it_should():
    for name in ("sparse", "smooth", "rec"):
        system = make_system().train()
        weights = LossConfig(**({"det": 0.0, "objects": 0.0, "sparse": 0.0, "smooth": 0.0, "rec": 0.0} | {name: 1.0}))
        losses = JointTask(system, weights)(make_batch(), Progress(step=9, total_steps=10))
        losses["total"].backward()
        masker = sum(p.grad.abs().sum() for p in system.front.masker.parameters() if p.grad is not None)
        detector = sum(p.grad.abs().sum() for p in system.detector.parameters() if p.grad is not None)
        assert masker > 0 and detector == 0, name
        assert name in losses


def test_sparsity_lowers_the_kept_share():
    system = make_system().train()
    objective = JointTask(system, LossConfig(det=0.0, sparse=10.0, smooth=0.0, target=0.25, objects=0.0))
    optimizer = torch.optim.Adam(system.front.masker.parameters(), lr=3e-3)
    batch, shares = make_batch(), []
    for step in range(60):
        losses = objective(batch, Progress(step, 60))
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
        shares.append(losses["kept_share"].item())
    assert shares[0] > 0.4
    assert abs(sum(shares[-10:]) / 10 - 0.25) < 0.1


def test_frozen_detector_passes_gradient_and_keeps_every_number():
    system = make_system()
    freeze_parts(system, "frozen_detector")
    groups = stage3_groups(system, OptimConfig(lr=1e-2, lr_low=1e-2))
    before = {name: value.clone() for name, value in system.detector.state_dict().items()}
    optimizer = torch.optim.AdamW(groups)
    system.train()
    front_before = {name: value.clone() for name, value in system.front.state_dict().items()}
    for _ in range(2):
        JointTask(system, LossConfig(rec=0.0, objects=0.0))(make_batch(), PROGRESS)["total"].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert all(torch.equal(value, before[name]) for name, value in system.detector.state_dict().items())
    changed = [name for name, value in system.front.state_dict().items() if not torch.equal(value, front_before[name])]
    assert {name.split(".")[0] for name in changed} == {"masker", "sr_fast", "sr_quality"}


@pytest.mark.parametrize(
    ("freeze", "share"),
    [
        *([[part], False] for part in ("masker", "sr_fast", "sr_quality")),
        *([["masker", "sr_fast", "sr_quality"], share] for share in (False, True)),
        (["sr_fast"], True),
        (["sr_quality"], True),
    ],
)
def test_frozen_parts_keep_every_number(freeze: list[str], share: bool):
    system = make_system(share=share)
    freeze_parts(system, "joint", freeze)
    optimizer = torch.optim.AdamW(stage3_groups(system, OptimConfig(lr=1e-2, lr_low=1e-2)))
    before = {name: value.clone() for name, value in system.state_dict().items()}
    system.train()
    objective = JointTask(system, LossConfig(objects=1.0), budgets=(0.25, 0.25))
    for _ in range(2):
        losses = objective(make_batch(), PROGRESS)
        assert losses["kept_share"] == 0.25, "budgets are drawn whatever rests"
        losses["total"].backward()
        optimizer.step()
        optimizer.zero_grad()
    changed = {name for name, value in system.state_dict().items() if not torch.equal(value, before[name])}
    stem = {name for name in changed if name.startswith("front.masker.stem.")}
    assert bool(stem) == (share and "sr_fast" not in freeze), "the stem learns with the network that it belongs to"
    moved = {name.split(".")[1] for name in changed - stem if name.startswith("front.")}
    assert moved == {"masker", "sr_fast", "sr_quality"} - set(freeze)
    assert any(name.startswith("detector.") for name in changed)


def test_a_shared_stem_learns_once_and_comes_back(tmp_path):
    system = make_system(halo=1, share=True)
    groups = stage3_groups(system, OptimConfig(lr=1e-2, lr_low=1e-2))
    ours = [id(p) for group in groups for p in group["params"]]
    assert len(ours) == len(set(ours))
    optimizer = torch.optim.AdamW(groups)
    JointTask(system.train(), LossConfig(objects=0.0))(make_batch(), PROGRESS)["total"].backward()
    optimizer.step()
    spec = system.spec
    save_network(tmp_path / "system.pth", "system", spec["name"], spec["args"], system.state_dict(), {})
    again = load_system(tmp_path / "system.pth")
    assert again.front.masker.stem is again.front.sr_fast.features and again.spec == spec
    lr = make_batch().lr
    for policy in ("learned", "budget=0.25"):
        expected = system.eval().super_resolve(lr, parse_policy(policy))
        for other in (again, prepare_system(system, torch.device("cpu"), torch.float32)):
            assert other.spec == spec
            found = other.super_resolve(lr, parse_policy(policy))
            assert torch.equal(found.mask, expected.mask)
            torch.testing.assert_close(found.sr, expected.sr, atol=1e-4, rtol=0)


def test_detector_only_leaves_the_front_end_alone():
    system = make_system(front="espcn")
    freeze_parts(system, "detector_only")
    groups = stage3_groups(system, OptimConfig())
    assert {group["name"].split("/")[0] for group in groups} == {"head", "backbone"}
    system.train()
    assert not system.front.network.training and system.detector.training


def test_learning_rates_follow_the_plan():
    system = make_system()
    groups = stage3_groups(system, OptimConfig(lr=1e-4, lr_low=1e-6, lr_masker=3e-4, weight_decay=0.01))
    rates = {group["name"].removesuffix("/vectors"): group["lr"] for group in groups}
    low = {"sr_fast/body", "sr_quality/body", "backbone"}
    high = {"sr_fast/tail", "sr_quality/tail", "head"}
    assert rates == {"masker": 3e-4} | dict.fromkeys(low, 1e-6) | dict.fromkeys(high, 1e-4)
    assert all(group["weight_decay"] == (0.0 if "vectors" in group["name"] else 0.01) for group in groups)
    ours = [id(p) for group in groups for p in group["params"]]
    trainable = [id(p) for p in system.parameters() if p.requires_grad]
    assert len(ours) == len(set(ours))
    dfl = {id(p) for m in system.modules() if type(m).__name__ == "DFL" for p in m.parameters()}
    assert set(trainable) - dfl == set(ours) - dfl


@pytest.mark.parametrize("policy", ["learned", "budget=0.25", "random=0.5", "edge=0.5", "all_fast", "all_quality"])
def test_batch_equals_singles_and_repeats(policy: str):
    system, lr, chosen = make_system(halo=2).eval(), make_batch().lr, parse_policy(policy)
    boxes, output = system.predict(lr, chosen, conf=0.001)
    again, same = system.predict(lr, chosen, conf=0.001)
    assert torch.equal(output.sr, same.sr) and all(torch.equal(a, b) for a, b in zip(boxes, again, strict=True))
    for row in range(len(lr)):
        single, one = system.predict(lr[row : row + 1], chosen, conf=0.001)
        torch.testing.assert_close(one.sr[0], output.sr[row], atol=1e-5, rtol=0)
        assert torch.equal(one.mask[0], output.mask[row])
        torch.testing.assert_close(single[0], boxes[row], atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize("front", ["conditional", "bicubic", "espcn"])
def test_rebuilds_itself_from_its_spec(front: str):
    system = make_system(halo=3, front=front).eval()
    again = system_from_spec(system.spec["args"])
    again.load_state_dict(system.state_dict())
    lr, policy = make_batch().lr, parse_policy("learned")
    assert torch.equal(system.super_resolve(lr, policy).sr, again.eval().super_resolve(lr, policy).sr)
    assert again.spec == system.spec


def test_noise_belongs_to_the_sample_not_to_the_batch():
    whole = gumbel_noise(torch.tensor([3, 7]), 2, 0, (4, 5))
    assert torch.equal(whole[1:], gumbel_noise(torch.tensor([7]), 2, 0, (4, 5)))
    assert not torch.equal(whole[1:], gumbel_noise(torch.tensor([7]), 3, 0, (4, 5)))


def test_pixel_objective_is_l1():
    network, batch = build_sr("bicubic", 2), make_batch()
    losses = PixelTask(network)(batch, PROGRESS)
    assert losses["total"].item() == pytest.approx((network(batch.lr) - batch.hr).abs().mean().item(), rel=1e-6)


# ------------------------------------------------------------------------------------------- larger input, HR images


class OneBox(torch.nn.Module):
    """A detector that finds the middle ninth of any image."""

    stride, dtype = 1, None
    spec = {"args": {}}  # noqa: RUF012

    def predict(self, images, conf, iou, max_det):
        height, width = images.shape[-2:]
        box = torch.tensor([[width / 3, height / 3, width / 1.5, height / 1.5, 0.5, 1.0]])
        return [box for _ in images]


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("upscale", [1, 2, 3])
@pytest.mark.parametrize("size", [(16, 16), (16, 24), (9, 40)])
def test_boxes_of_enlarged_images_are_in_hr_pixels(scale: int, upscale: int, size: tuple[int, int]):
    system = ConditionalSRDetector(
        build_front({"name": "bicubic", "args": {"scale": scale, "upscale": upscale}}), OneBox()
    )
    assert (system.scale, system.zoom, system.front.scale) == (scale, upscale, scale * upscale)
    boxes, output = system.predict(torch.rand(2, 3, *size), parse_policy("learned"))
    height, width = (side * scale for side in size)
    assert output.sr.shape == (2, 3, height * upscale, width * upscale)
    expected = torch.tensor([[width / 3, height / 3, width / 1.5, height / 1.5, 0.5, 1.0]])
    for found in boxes:
        torch.testing.assert_close(found, expected)


def test_enlarging_is_one_interpolation():
    lr = torch.rand(1, 3, 8, 12)
    double = build_sr("bicubic", 4, {"upscale": 2})
    expected = resize(lr[0].permute(1, 2, 0).numpy(), 64, 96)
    torch.testing.assert_close(double(lr)[0].permute(1, 2, 0).numpy(), expected, atol=1e-5, rtol=0)
    assert double.spec == {"name": "bicubic", "args": {"scale": 4, "upscale": 2}}


ENLARGED = SingleSR(build_sr("bicubic", 2, {"upscale": 2}), zoom=2)


@pytest.mark.parametrize("front", [HRImages(), ENLARGED], ids=["hr", "enlarged"])
def test_baselines_train_and_rebuild(front: torch.nn.Module):
    system, batch = ConditionalSRDetector(front, YoloDetector("yolo11n.yaml", NAMES)), make_batch()
    freeze_parts(system, "detector_only")
    system.train()
    losses = JointTask(system, LossConfig(rec=0.0, objects=0.0))(batch, PROGRESS)
    losses["total"].backward()
    shown = batch.hr if system.sees_hr else front(batch.lr).sr
    assert system.images(batch) is (batch.hr if system.sees_hr else batch.lr)
    expected = system.detector.loss(shown.clamp(0, 1), batch.boxes, batch.classes, batch.image_index)["det"]
    torch.testing.assert_close(losses["total"], expected)

    again = system_from_spec(system.spec["args"])
    again.load_state_dict(system.state_dict())
    assert again.spec == system.spec and (again.scale, again.zoom) == (system.scale, system.zoom)
    images = system.images(batch)
    before = images.clone()
    one, other = (s.eval().predict(images, parse_policy("learned"), conf=0.001) for s in (system, again))
    prepared = prepare_system(system, torch.device("cpu"), torch.float32)
    third = prepared.predict(images, parse_policy("learned"), conf=0.001)
    assert (prepared.scale, prepared.zoom, prepared.sees_hr) == (system.scale, system.zoom, system.sees_hr)
    assert torch.equal(images, before), "images stay as they are"
    torch.testing.assert_close(one[1].sr, third[1].sr)
    for a, b, c in zip(one[0], other[0], third[0], strict=True):
        assert torch.equal(a, b)
        # An untrained detector's scores lie so close together that rounding decides which boxes pass.
        torch.testing.assert_close(a[0, 4], c[0, 4], atol=1e-3, rtol=0)


# ------------------------------------------------------------------------------------------------ the detector's input


@pytest.mark.parametrize("front", ["conditional", "bicubic"])
def test_a_larger_input_is_learned_run_and_kept(front: str):
    """1.25 times 64x64 is 80x80, filled up to 96x96; boxes lie in pixels of the HR canvas all the same."""
    plain, batch = make_system(front=front), make_batch()
    system = ConditionalSRDetector(plain.front, plain.detector, upscale=1.25).train()
    sizes = []
    handle = system.detector.net.model[0].register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape))
    losses = JointTask(system, LossConfig(rec=1.0, objects=0.0))(batch, PROGRESS)
    losses["total"].backward()
    assert sizes == [(2, 3, 96, 96)] and system.input_size(32, 32) == (96, 96) and losses["rec"] > 0
    handle.remove()

    again = system_from_spec(system.spec["args"])
    again.load_state_dict(system.state_dict())
    assert again.spec["args"]["upscale"] == again.upscale == 1.25
    policy = parse_policy("budget=0.5")
    prepared = prepare_system(system.eval(), torch.device("cpu"), torch.float32)
    executed = system if front == "bicubic" else system.with_execution(halo=1)
    for other in (again.eval(), prepared, executed, system.with_seed(0)):
        assert (other.upscale, other.scale, other.zoom) == (1.25, 2, 1)
        found, output = other.predict(batch.lr, policy, conf=0.001)
        assert output.sr.shape == (2, 3, 64, 64), "the SR image itself keeps its size"
        shown = filled(resized(output.sr, 80, 80).clamp(0, 1), 32)
        for own, boxes in zip(found, other.detector.predict(shown, conf=0.001), strict=True):
            torch.testing.assert_close(own[:, :4], boxes[:, :4] / 1.25)
        assert all(torch.equal(a, b) for a, b in zip(found, other.detect(output.sr, conf=0.001), strict=True))
    assert system.front_macs(32, 32, 1) > plain.front_macs(32, 32, 1)


def test_targets_follow_the_image_into_the_corner():
    system, boxes = make_system(front="bicubic"), torch.tensor([[0.5, 0.5, 1.0, 1.0], [0.2, 0.4, 0.1, 0.3]])
    task = JointTask(ConditionalSRDetector(system.front, system.detector, upscale=1.5), LossConfig())
    batch = SimpleNamespace(boxes=boxes, canvas=(64, 96))
    found = task.targets(torch.empty(1, 3, 96, 160), batch)  # 1.5 * 96 = 144, filled up to 160
    torch.testing.assert_close(found, boxes * torch.tensor([0.9, 1.0, 0.9, 1.0]))
    assert JointTask(system, LossConfig()).targets(torch.empty(1, 3, 64, 96), batch) is boxes


def test_an_input_cannot_be_smaller():
    system = make_system(front="bicubic")
    with pytest.raises(ValueError, match=r"upscale is 0\.5; give 1 or more"):
        ConditionalSRDetector(system.front, system.detector, upscale=0.5)
