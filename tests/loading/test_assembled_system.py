"""A deployed detector and SR networks become a system without training; what each name of a network means."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from loading.assembled_system import assemble_system, load_ready_front, shipped_pair
from loading.load_sr import load_sr
from loading.shipped_weights import FOLDER
from models import build_sr
from models.conditional_sr import ConditionalSR
from models.detector_yolo import YoloDetector
from models.execution import Execution
from models.mask_policy import parse_policy
from models.masker import Masker
from models.single_sr import HRImages, SingleSR
from models.system import ConditionalSRDetector
from tests.loading.test_load import SMALL, TINY, save
from utils.errors import UserError

NAMES = ("cat", "dog")


def test_the_shipped_pair_runs_both_networks(tmp_path: Path):
    save(tmp_path / "detector.pth", "detector", YoloDetector(TINY, NAMES))
    made = assemble_system(tmp_path / "detector.pth")
    system, lr = made.system, torch.rand(1, 3, 24, 32)
    assert not made.masker_trained and system.scale == 4 and system.detector.names == NAMES
    fast, quality = (load_sr(path)(lr).clamp(0, 1) for path in shipped_pair(4))
    for policy, expected in (("all_fast", fast), ("all_quality", quality)):
        torch.testing.assert_close(system.super_resolve(lr, parse_policy(policy)).sr, expected)
    assert system.super_resolve(lr, parse_policy("edge=0.25")).mask.sum() == 1


@pytest.mark.parametrize(
    ("sr", "scale", "expected"),
    [
        ("edsr_8x32", 2, "edsr_8x32_x2"),
        ("edsr_8x32_x4", None, "edsr_8x32_x4"),
        ("edsr_8x32_x2.safetensors", None, "edsr_8x32_x2"),
        ("edsr", None, "edsr_16x64_x4"),
        ("espcn", 2, "espcn_64_x2"),
        (str(FOLDER / "fsrcnn_x2.safetensors"), None, "fsrcnn_x2"),
    ],
)
def test_names_of_networks_and_files(sr: str, scale: int | None, expected: str):
    front, trained = load_ready_front(sr, scale)
    stored = load_sr(FOLDER / f"{expected}.safetensors")
    assert isinstance(front, SingleSR) and front.spec == stored.spec and not trained
    for own, other in zip(front.parameters(), stored.parameters(), strict=True):
        assert torch.equal(own, other)


def test_bicubic_needs_no_weights():
    assert load_ready_front("bicubic", 3)[0].scale == 3


def test_two_networks_side_by_side(tmp_path: Path):
    save(tmp_path / "own.pth", "sr", build_sr("edsr", 2, SMALL))
    front, trained = load_ready_front(f"bicubic, {tmp_path / 'own.pth'}", 2)
    assert isinstance(front, ConditionalSR) and not trained
    assert [front.sr_fast.spec["name"], front.sr_quality.spec["name"]] == ["bicubic", "edsr"]


def test_a_network_for_any_scale_is_built_for_the_wanted_one(tmp_path: Path):
    network = build_sr("lm_liif", 4, {"n_blocks": 1, "n_feats": 4})
    save(tmp_path / "any.pth", "sr", network)
    front, _ = load_ready_front(str(tmp_path / "any.pth"), 3)
    lr = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(front(lr).sr, network.eval()(lr, (24, 24)).clamp(0, 1))


def test_the_front_end_of_another_system(tmp_path: Path):
    front = ConditionalSR(Masker(8), build_sr("espcn", 2), build_sr("edsr", 2, SMALL), Execution(halo=2))
    save(tmp_path / "system.pth", "system", ConditionalSRDetector(front, YoloDetector(TINY, NAMES)))
    found, trained = load_ready_front(str(tmp_path / "system.pth"))
    assert trained and found.spec == front.spec
    with pytest.raises(UserError, match="is for x2, not x4"):
        load_ready_front(str(tmp_path / "system.pth"), 4)
    save(tmp_path / "hr.pth", "system", ConditionalSRDetector(HRImages(), YoloDetector(TINY, NAMES)))
    with pytest.raises(UserError, match="was trained on HR images"):
        load_ready_front(str(tmp_path / "hr.pth"))


@pytest.mark.parametrize(
    ("sr", "scale", "message"),
    [
        ("shipped", 3, "no weights are shipped for x3, only for x2, x4; name bicubic"),
        ("bicubic", 2.5, "scale is 2.5; before a detector it must be a whole number"),
        ("rcan", 4, "no weights of rcan are shipped for x4"),
        ("nowhere.pth", 4, "'nowhere.pth' is no file and no name; give a weight file, `shipped`, bicubic"),
        ("edsr_8x32_x4", 2, "wrong scale checkpoint, it is for x4"),
        ("edsr_2x16,nowhere", 4, "'nowhere' is no file"),
    ],
)
def test_what_there_is_not(sr: str, scale: float, message: str):
    with pytest.raises(UserError, match=message):
        load_ready_front(sr, scale)


def test_windows_that_fade_get_the_halo_that_their_network_asks_for():
    plain, fading = (load_ready_front(f"edsr_2x16,{quality}", 4)[0] for quality in ("edsr_8x32", "difiisr_dwt"))
    assert plain.execution.halo == 2 and fading.execution.halo is None
