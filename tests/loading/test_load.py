"""Networks from checkpoints: what was saved comes back, everything else is refused with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from configs.schema import DetectorConfig, NetworkConfig
from loading.load_sr import build_or_load_sr, load_sr
from loading.published_weights import check_scale
from loading.systems import build_or_load_detector, check_classes, load_detector_checkpoint, load_system, with_halo
from models import build_sr
from models.conditional_sr import ConditionalSR
from models.detector_yolo import YoloDetector
from models.execution import Execution
from models.masker import Masker
from models.single_sr import HRImages, SingleSR
from models.system import ConditionalSRDetector
from utils.checkpoint import CheckpointError, save_network
from utils.errors import UserError

SMALL = {"n_blocks": 1, "n_feats": 4}
TINY = {
    "nc": 2,
    "backbone": [[-1, 1, "Conv", [width, 3, 2]] for width in (8, 8, 8, 16, 16)],
    "head": [[[2, 3, 4], 1, "Detect", ["nc"]]],
    "yaml_file": "tiny.yaml",
}


def save(path: Path, kind: str, network: torch.nn.Module, **changes) -> Path:
    payload = {"name": network.spec["name"], "args": network.spec["args"], "weights": network.state_dict()} | changes
    save_network(path, kind, meta={}, **payload)
    return path


def assert_same(network: torch.nn.Module, stored: torch.nn.Module) -> None:
    expected, found = network.state_dict(), stored.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert stored.spec == network.spec and not stored.training


def test_a_diverged_system_is_named_so(tmp_path):
    system = ConditionalSRDetector(HRImages(), YoloDetector(TINY, ("a", "b")))
    next(system.parameters()).data.fill_(torch.nan)
    with pytest.raises(
        CheckpointError, match=r"system.pth: 1 of \d+ tensors hold NaN .* before the training diverged$"
    ):
        load_system(save(tmp_path / "system.pth", "system", system))


def test_halo_of_a_loaded_system():
    front = ConditionalSR(Masker(4, 4), build_sr("espcn", 2), build_sr("edsr", 2, SMALL), Execution(halo=2))
    system = ConditionalSRDetector(front, YoloDetector(TINY, ("a", "b"))).eval()
    for given, expected in ((None, 2), (1, 1), ("exact", None), (0, 0)):
        found = with_halo("system.pth", system, given)
        assert found.front.execution.halo == expected and not found.training
        assert found.front.sr_quality is front.sr_quality, "weights are shared"
    assert front.execution.halo == 2
    with pytest.raises(ValueError, match="halo is -1; give LR pixels, 0 or more, or exact"):
        with_halo("system.pth", system, -1)
    system = system.with_execution(train_tiles=True, halo=2)
    with_halo("system.pth", system, 2)
    with pytest.raises(ValueError, match="was trained on tiles with a halo of 2"):
        with_halo("system.pth", system, 1)
    plain = ConditionalSRDetector(SingleSR(build_sr("bicubic", 2)), system.detector)
    with pytest.raises(UserError, match="has no masker; leave out --halo"):
        with_halo("system.pth", plain, 1)


@pytest.mark.parametrize("name, args", [("bicubic", {}), ("espcn", {}), ("edsr", SMALL)])
def test_sr_network_comes_back(tmp_path: Path, name: str, args: dict):
    network = build_sr(name, 3, args)
    assert_same(network, load_sr(save(tmp_path / "sr.pth", "sr", network)))


def test_system_and_detector_come_back(tmp_path: Path):
    detector = YoloDetector(TINY, ("a", "b"))
    front = ConditionalSR(Masker(4, 4), build_sr("espcn", 2), build_sr("edsr", 2, SMALL))
    for one in (front, SingleSR(build_sr("bicubic", 2)), SingleSR(build_sr("edsr", 2, SMALL))):
        system = ConditionalSRDetector(one, detector)
        assert_same(system, load_system(save(tmp_path / "system.pth", "system", system)))
    assert_same(detector, load_detector_checkpoint(save(tmp_path / "detector.pth", "detector", detector)))


def test_configured_network_without_weights_is_fresh():
    network = build_or_load_sr(NetworkConfig("edsr", dict(SMALL)), 2)
    assert network.scale == 2 and network.spec["args"]["n_feats"] == 4


def test_configured_network_takes_weights_of_the_same_network(tmp_path: Path):
    network = build_sr("edsr", 2, SMALL)
    path = str(save(tmp_path / "sr.pth", "sr", network))
    written_out = {**SMALL, "res_scale": 1.0}  # a default may be written out or not
    for args in (SMALL, written_out):
        assert_same(network, build_or_load_sr(NetworkConfig("edsr", args, path), 2))


@pytest.mark.parametrize(
    "config, scale, words",
    [
        (("edsr", {**SMALL, "n_feats": 8}), 2, r"holds edsr\(.*n_feats=4\), but the .* asks for .*n_feats=8"),
        (("espcn", {}), 2, r"holds edsr\(.*asks for espcn\(scale=2\)"),
        (("edsr", SMALL), 4, "wrong scale checkpoint, it is for x2, but the configuration's scale is 4"),
    ],
)
def test_other_network_is_refused(tmp_path: Path, config: tuple, scale: int, words: str):
    path = save(tmp_path / "sr.pth", "sr", build_sr("edsr", 2, SMALL))
    with pytest.raises(ValueError, match=words):
        build_or_load_sr(NetworkConfig(*config, str(path)), scale)


@pytest.mark.parametrize("tail, fresh", [("single", "tail.0.bias, tail.0.weight"), ("staged", None)])
def test_init_takes_over_what_fits_another_scale(tmp_path: Path, capsys, tail: str, fresh: str | None):
    args = {**SMALL, "tail": tail}
    strong = build_sr("edsr", 4, args)
    path = str(save(tmp_path / "x4.pth", "sr", strong))
    network = build_or_load_sr(NetworkConfig("edsr", args, init=path), 2)
    stored, own = strong.state_dict(), network.state_dict()
    same = {key for key in own if key in stored and torch.equal(own[key], stored[key])}
    assert network.scale == 2 and same == {key for key in own if fresh is None or key not in fresh}
    said = capsys.readouterr().out
    assert f"{len(same)} of {len(own)} tensors taken over" in said and (fresh or "over") in said


def test_init_refuses_another_network_and_weights_beside_it(tmp_path: Path):
    path = str(save(tmp_path / "x4.pth", "sr", build_sr("edsr", 4, SMALL)))
    with pytest.raises(ValueError, match=r"init needs edsr\(.*n_feats=8\) at any scale, but this holds edsr\("):
        build_or_load_sr(NetworkConfig("edsr", {**SMALL, "n_feats": 8}, init=path), 2)
    with pytest.raises(ValueError, match="weights and init are both given"):
        build_or_load_sr(NetworkConfig("edsr", SMALL, path, path), 4)


def test_configured_detector(tmp_path: Path, capsys):
    detector = YoloDetector("yolo11n.yaml", ("a", "b"))
    path = save(tmp_path / "detector.pth", "detector", detector)
    found = build_or_load_detector(DetectorConfig("yolo11n.yaml", str(path)), ("a", "b"))
    assert torch.equal(found.net.model[0].conv.weight, detector.net.model[0].conv.weight)
    assert "tensors taken from" in capsys.readouterr().out


@pytest.mark.parametrize(
    "changes",
    [
        {"args": {"scale": 2, "n_blocks": 2, "n_feats": 4}},
        {"args": {"n_blocks": 1}},
        {"name": "later_invention"},
        {"args": {"scale": 2, "colour": 1}},
        {"weights": {}},
    ],
)
def test_checkpoint_that_contradicts_itself_is_named(tmp_path: Path, changes: dict):
    path = save(tmp_path / "sr.pth", "sr", build_sr("edsr", 2, SMALL), **changes)
    with pytest.raises(CheckpointError, match=r"sr.pth: cannot be rebuilt from what it says of itself"):
        load_sr(path)


def test_sr_network_of_a_stage_3(tmp_path: Path):
    network, detector = build_sr("edsr", 2, SMALL), YoloDetector(TINY, ("a", "b"))
    path = save(tmp_path / "system.pth", "system", ConditionalSRDetector(SingleSR(network), detector))
    assert_same(network, load_sr(path, 2))
    assert_same(network, build_or_load_sr(NetworkConfig("edsr", SMALL, weights=str(path)), 2))
    with pytest.raises(ValueError, match=r"system.pth: wrong scale"):
        load_sr(path, 4)
    with pytest.raises(ValueError, match=r"system.pth: holds edsr.*but the configuration asks for espcn"):
        build_or_load_sr(NetworkConfig("espcn", {}, weights=str(path)), 2)


@pytest.mark.parametrize("kind", ["conditional", "hr"])
def test_a_front_end_that_is_no_sr_network_is_refused(tmp_path: Path, kind: str):
    conditional = ConditionalSR(Masker(4, 4), build_sr("espcn", 2), build_sr("edsr", 2, SMALL))
    front = conditional if kind == "conditional" else HRImages()
    path = save(tmp_path / "system.pth", "system", ConditionalSRDetector(front, YoloDetector(TINY, ("a", "b"))))
    with pytest.raises(CheckpointError, match=r"system.pth: its front end is no single SR network.*`start`"):
        load_sr(path, 2)


def test_wrong_kind_is_named(tmp_path: Path):
    path = save(tmp_path / "sr.pth", "sr", build_sr("espcn", 2))
    for loader in (load_system, load_detector_checkpoint):
        with pytest.raises(CheckpointError, match=r"sr.pth: .*'sr'"):
            loader(path)


def test_scale_and_classes_are_compared():
    check_scale("a.pth", 4, 4)
    check_classes("a.pth", ["x", "y"], ("x", "y"))
    with pytest.raises(ValueError, match=r"a.pth: wrong scale checkpoint"):
        check_scale("a.pth", 2, 4)
    with pytest.raises(ValueError, match=r"a.pth: its classes are \['y', 'x'\]"):
        check_classes("a.pth", ("y", "x"), ("x", "y"))
