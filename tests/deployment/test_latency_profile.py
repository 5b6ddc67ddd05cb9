"""Latency profiles: prediction from curves, the largest share that fits, files, and a real measurement."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deployment.latency_measurement import measure_profile, scattered_mask, tile_counts
from deployment.latency_profile import (
    Curve,
    LatencyProfile,
    architecture_fingerprint,
    load_profile,
    save_profile,
    shared_area,
    with_profile,
)
from loading.systems import load_system, with_halo
from models import build_sr
from models.conditional_sr import ConditionalSR
from models.detector_yolo import YoloDetector
from models.execution import Execution
from models.mask_policy import MaskPolicy
from models.masker import Masker
from models.system import ConditionalSRDetector
from models.tiling.tile_plan import Geometry
from tools.latency import main
from utils.checkpoint import save_network
from utils.logger import cpu_name

CPU = torch.device("cpu")


def profile(**changes):
    """1 us per LR pixel without patches, 10 us with all of them, 2 ms a patch, 1 us per SR pixel in the detector."""
    line = lambda slope: Curve([1000.0, 100_000.0], [1000 * slope, 100_000 * slope])  # noqa: E731
    environment = {"device": cpu_name(), "dtype": "float32", "threads": torch.get_num_threads()}
    tiles = Curve([0.0, 100.0], [0.0, 200.0])
    values = {"environment": environment, "system": "x", "scale": 2, "patch": 16, "halo": 2}
    values |= {"in_place": False} | {"none": line(1e-3), "full": line(1e-2), "tiles": tiles, "detector": line(1e-3)}
    return LatencyProfile(**values | changes)


def random_system():
    torch.manual_seed(0)
    front = ConditionalSR(
        Masker(8), build_sr("espcn", 2), build_sr("edsr", 2, {"n_blocks": 1, "n_feats": 4}), Execution(halo=1)
    )
    return ConditionalSRDetector(front, YoloDetector("yolo11n.yaml", ["a"])).eval()


def test_curves_are_linear_inside_and_outside_and_never_fall():
    curve = Curve([1.0, 2.0, 4.0, 8.0], [1.0, 2.0, 1.9, 6.0])
    assert [curve(x) for x in (0.5, 1, 1.5, 3, 4, 8)] == [1, 1, 1.5, 2, 2, 6]
    assert curve(16) == pytest.approx(6 + 8 * (6 - 2) / 4)
    assert Curve([10.0], [5.0])(20) == 10


def test_milliseconds_add_up():
    known = profile()
    assert known.sr_ms(64, 64, 1, 0) == pytest.approx(4.096)
    assert known.sr_ms(64, 64, 1, 3) == pytest.approx(4.096 + 6)
    assert known.sr_ms(64, 64, 2, 3) == pytest.approx(8.192 + 12)
    assert known.sr_ms(64, 64, 1, 16) == pytest.approx(40.96)
    assert known.sr_ms(64, 64, 1, 15) == pytest.approx(4.096 + 40.96), "dense, and SR_Fast besides"
    assert known.total_ms(64, 64, 1, 0) == pytest.approx(4.096 + 4 * 4.096)
    with pytest.raises(ValueError, match="16 patches"):
        known.sr_ms(64, 64, 1, 17)


def test_patches_in_place_share_halos():
    assert shared_area(1, 16, 2) == 256 and shared_area(0, 16, 2) == 0
    assert shared_area(1e-6, 16, 2) / 1e-6 == pytest.approx(20**2, rel=1e-4), "alone a patch has its whole halo"
    kept = (torch.rand(400, 400, generator=torch.Generator().manual_seed(0)) < 0.3).float()[None, None]
    pixels = torch.nn.functional.interpolate(kept, scale_factor=8)
    near = torch.nn.functional.max_pool2d(pixels, 5, 1, 2)
    assert shared_area(0.3, 8, 2) == pytest.approx(64 * near.mean().item(), rel=0.01)
    known = profile(in_place=True)
    assert known.sr_ms(64, 64, 1, 1) == pytest.approx(4.096 + 2, rel=0.1)
    assert known.sr_ms(64, 64, 1, 15) < profile().sr_ms(64, 64, 1, 15)


@given(st.floats(21, 80), st.integers(1, 4))
def test_the_largest_share_fits_and_one_patch_more_does_not(milliseconds, batch):
    known = profile()
    kept = round(16 * known.largest_share(milliseconds, 64, 64, batch))
    assert known.total_ms(64, 64, batch, kept) <= milliseconds * batch
    if kept < 15:
        assert known.total_ms(64, 64, batch, kept + 1) > milliseconds * batch


def test_too_few_milliseconds_keep_nothing_and_warn():
    with pytest.warns(UserWarning, match="takes 20.5 ms without any patch"):
        assert profile().largest_share(5, 64, 64) == 0
    assert profile().largest_share(1000, 64, 64) == 1


def test_files_survive_and_others_are_refused(tmp_path):
    file = tmp_path / "latency.json"
    save_profile(profile(), file)
    assert load_profile(file) == profile()
    for content in ("{", "[]", json.dumps({"none": 1}), json.dumps({"none": {"work": [], "ms": []}})):
        file.write_text(content)
        with pytest.raises(ValueError, match=r"no latency profile.*tools\.latency"):
            load_profile(file)
    for change in (
        {"none": {"work": [1.0, 2.0], "ms": [1.0, float("nan")]}}, {"tiles": {"work": [2.0, 1.0], "ms": [1.0, 2.0]}},
        {"full": {"work": [1.0], "ms": [-1.0]}}, {"full": {"work": [1.0], "ms": [0.0]}}, {"patch": 0}, {"patch": "8"},
        {"halo": None}, {"environment": None}, {"environment": []}, {"environment": {"device": "x"}},
        {"detector": {"work": ["a"], "ms": [1.0]}}, {"surplus": 1},
    ):  # fmt: skip
        file.write_text(json.dumps(asdict(profile()) | change))
        with pytest.raises(ValueError, match="no latency profile"):
            load_profile(file)
    with pytest.raises(ValueError, match=r"nowhere\.json: no latency profile"):
        load_profile(tmp_path / "nowhere.json")


@pytest.mark.parametrize("what", ["architecture", "device", "dtype", "threads"])
def test_profiles_of_something_else_are_refused(tmp_path, what):
    system, file = random_system(), tmp_path / "latency.json"
    known = profile(system=architecture_fingerprint(system), patch=8)
    save_profile(known, file)
    assert with_profile(system, file, CPU, torch.float32).front.execution.latency == known
    assert system.front.execution.latency is None
    other = profile(system="other", patch=8) if what == "architecture" else None
    if other is None:
        value = 99 if what == "threads" else "other"
        other = profile(system=architecture_fingerprint(system), patch=8, environment=known.environment | {what: value})
    save_profile(other, file)
    with pytest.raises(ValueError, match=f"another {what}: .*measure again"):
        with_profile(system, file, CPU, torch.float32)


def test_fingerprints_tell_architectures_apart_but_not_weights_or_class_names():
    system, twin = random_system(), random_system()
    assert architecture_fingerprint(system) == architecture_fingerprint(twin)
    assert architecture_fingerprint(system) != architecture_fingerprint(twin.with_execution(halo=2))


def test_a_system_with_a_profile_obeys_milliseconds():
    system, lr = random_system(), torch.rand(1, 3, 64, 64)
    with pytest.raises(ValueError, match="no latency profile"):
        system.front.infer(lr, MaskPolicy("latency_ms", 30))
    system = system.with_execution(latency=profile(patch=8, halo=1))
    share = system.front.execution.latency.largest_share(30, 64, 64)
    assert 0 < share < 1
    assert system.front.infer(lr, MaskPolicy("latency_ms", 30)).mask.mean() == pytest.approx(share)


def test_scattered_masks_have_no_neighbours():
    geometry = Geometry(50, 90, 8, 1)
    for batch in (1, 3):
        for kept in tile_counts(geometry, batch):
            mask = scattered_mask(geometry, batch, kept)
            assert int(mask.sum()) == kept
            assert not (mask[:, 1:] & mask[:, :-1]).any() and not (mask[:, :, 1:] & mask[:, :, :-1]).any()


def test_measure_a_small_system(tmp_path):
    system = random_system()
    known = measure_profile(system, CPU, torch.float32, (48, 64), batch=2, rounds=1)
    assert known.system == architecture_fingerprint(system) and (known.patch, known.halo, known.scale) == (8, 1, 2)
    for curve in (known.none, known.full, known.tiles, known.detector):
        assert curve.work == sorted(curve.work) and all(ms >= 0 for ms in curve.ms)
    assert known.none.work == [16 * 32, 48 * 64, 2 * 48 * 64] and max(known.tiles.work) == 2 * 12
    assert known.total_ms(48, 64, 1, 5) > 0
    save_profile(known, tmp_path / "latency.json")
    with_profile(system, tmp_path / "latency.json", CPU, torch.float32)


def test_scale_three_and_sizes_that_the_detector_cannot_take():
    torch.manual_seed(0)
    quality = build_sr("edsr", 3, {"n_blocks": 1, "n_feats": 4})
    front = ConditionalSR(Masker(8), build_sr("espcn", 3), quality, Execution(halo=1))
    system = ConditionalSRDetector(front, YoloDetector("yolo11n.yaml", ["a"])).eval()
    assert measure_profile(system, CPU, torch.float32, (32, 64), 1, 1).scale == 3
    with pytest.raises(ValueError, match="multiples of 32, SR sides of 96"):
        measure_profile(system, CPU, torch.float32, (40, 64), 1, 1)


def test_a_profile_of_another_halo_serves_a_system_that_runs_with_it(tmp_path):
    system, file, out = random_system(), tmp_path / "system.pth", tmp_path / "latency.json"
    save_network(file, "system", system.spec["name"], system.spec["args"], system.state_dict(), {})
    measure = ["--weights", str(file), "--imgsz", "64", "--rounds", "1", "--batch", "1", "--device", "cpu"]
    assert main([*measure, "--halo", "3", "--out", str(out)]) == 0
    assert load_profile(out).halo == 3
    with pytest.raises(ValueError, match="another architecture"):
        with_profile(load_system(file), out, CPU, torch.float32)
    changed = with_profile(with_halo(file, load_system(file), 3), out, CPU, torch.float32)
    assert changed.front.execution.latency.halo == 3


def test_the_command_refuses_to_overwrite_and_bad_numbers(tmp_path, capsys):
    (tmp_path / "there.json").write_text("mine")
    for argv, message in (
        (["--weights", "x", "--out", str(tmp_path / "there.json")], "exists"),
        (["--weights", "x", "--out", str(tmp_path / "new.json"), "--imgsz", "1", "2", "3"], "one or two sides"),
        (["--out", str(tmp_path / "new.json")], "required"),
        (["--weights", "x", "--halo", "-1", "--out", str(tmp_path / "new.json")], "invalid halo value: '-1'"),
    ):
        with pytest.raises(SystemExit):
            main(argv)
        assert message in capsys.readouterr().err
    assert (tmp_path / "there.json").read_text() == "mine"
