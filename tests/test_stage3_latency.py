"""Stage 3 towards milliseconds, trained as it is executed; and inference within milliseconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import inference
import stage3_finetune_joint as stage3
from configs.schema import DetectionDataConfig
from configs.stage3_schema import MaskerConfig, Stage3Config
from data.detection import DetectionDataset, load_data_spec, scan_split
from deployment.latency_profile import Curve, load_profile, save_profile
from loading.systems import build_system, load_system
from models.mask_policy import MaskPolicy
from tests.drawn import draw_detection_set
from tools import latency
from training.joint_training import image_share

NETWORKS = [
    "--sr_fast.name=espcn", "--sr_fast.args={n_feats: 8}",
    "--sr_quality.name=edsr", '--sr_quality.args={"n_blocks": 1, "n_feats": 4}',
    "--masker.patch=8", "--masker.halo=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Path, list[str]]:
    """Profile, checkpoint, and the arguments of the run that wrote it."""
    folder = tmp_path_factory.mktemp("latency")
    data = draw_detection_set(folder / "set")
    config = folder / "stage3.yaml"
    config.write_text(
        f"data: {{yaml: {data}, imgsz: 64, scale: 2}}\nmasker: {{patch: 8, halo: 1, train: tiles}}\n"
        "sr_fast: {name: espcn, args: {n_feats: 8}}\nsr_quality: {name: edsr, args: {n_blocks: 1, n_feats: 4}}\n"
    )
    profile = folder / "latency.json"
    assert latency.main(["--config", str(config), "--imgsz", "64", "--rounds", "1", "--out", str(profile)]) == 0
    known = load_profile(profile)
    known = replace(  # a target needs room, which a busy machine may not measure
        known,
        none=Curve(known.none.work, [1.0] * len(known.none.work)),
        tiles=Curve(known.tiles.work, [float(work) for work in known.tiles.work]),
        full=Curve(known.full.work, [40.0] * len(known.full.work)),
    )
    save_profile(known, profile)
    limit = (known.total_ms(32, 32, 1, 1) + known.total_ms(32, 32, 1, 16)) / 2
    arguments = [
        f"--run.out={folder / 'run'}", "--run.device=cpu", "--run.workers=0", f"--data.yaml={data}",
        "--data.imgsz=64", "--data.scale=2", *NETWORKS, "--masker.train=tiles", "--optim.epochs=1",
        "--optim.batch=3", "--losses.sparsity=latency", f"--losses.profile={profile}", f"--losses.latency_ms={limit}",
        "--val_images=0",
    ]  # fmt: skip
    assert stage3.main(arguments) == 0
    return profile, folder / "run" / stage3.OUTPUT, arguments


def test_the_target_comes_from_milliseconds(trained):
    import torch

    profile, weights, arguments = trained
    limit = float(arguments[-2].partition("=")[2])
    known = load_profile(profile)
    target = torch.load(weights, weights_only=True)["meta"]["target"]
    assert target == known.largest_share(limit, 32, 32) and 0 < target < 1


def test_milliseconds_are_a_larger_share_where_a_part_of_the_canvas_is_padding(tmp_path):
    records, _ = scan_split(load_data_spec(draw_detection_set(tmp_path / "wide", images=2, size=(32, 64))), "train")
    whole = DetectionDataset(records, ("dark", "bright"), (32, 64), 2)
    assert image_share(whole, 8) == 1
    assert image_share(DetectionDataset(records, ("dark", "bright"), (64, 64), 2), 8) == 0.5


def test_inference_within_milliseconds(trained, tmp_path, capsys):
    profile, weights, arguments = trained
    known = load_profile(profile)
    images = next(Path(a.partition("=")[2]).parent for a in arguments if a.startswith("--data.yaml")) / "images"
    limit = known.total_ms(64, 64, 1, 5)
    common = ["--weights", str(weights), "--source", str(images / "val"), "--device", "cpu", "--save_images=false"]
    policy = [f"--policy=latency_ms={limit}", f"--profile={profile}"]
    assert inference.main([*common, *policy, "--out", str(tmp_path / "a")]) == 0
    expected = known.largest_share(limit, 64, 64)
    assert f"kept {expected:.2f}" in capsys.readouterr().out
    assert inference.main([*common, policy[0], "--out", str(tmp_path / "b")]) == 2
    assert "needs a latency profile" in capsys.readouterr().err
    assert inference.main([*common, *policy, "--half", "--out", str(tmp_path / "c")]) == 2
    assert "another dtype" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["--losses.latency_ms", "--losses.profile"])
def test_latency_needs_a_number_and_a_profile(trained, tmp_path, missing):
    arguments = [a for a in trained[2] if not a.startswith((missing, "--run.out"))]
    with pytest.raises(ValueError, match=r"needs losses\.latency_ms and losses\.profile"):
        stage3.main([*arguments, f"--run.out={tmp_path / 'run'}"])


@pytest.mark.parametrize("limit", ["0.001", "1e9"])
def test_milliseconds_out_of_reach_are_named(trained, tmp_path, limit):
    arguments = [a for a in trained[2] if not a.startswith(("--losses.latency_ms", "--run.out"))]
    with pytest.raises(ValueError, match=r"with one patch and .* with all of them; choose a number between"):
        stage3.main([*arguments, f"--losses.latency_ms={limit}", f"--run.out={tmp_path / 'run'}"])


def test_a_profile_of_another_architecture_is_refused(trained, tmp_path):
    arguments = [a for a in trained[2] if not a.startswith(("--masker.halo", "--run.out"))]
    with pytest.raises(ValueError, match="another architecture"):
        stage3.main([*arguments, "--masker.halo=3", f"--run.out={tmp_path / 'run'}"])


def test_automatic_tiling_and_training_on_tiles():
    data = DetectionDataConfig(imgsz=[256, 640], scale=4)
    config = Stage3Config(data=data, masker=MaskerConfig(patch="auto", halo="auto", train="tiles"))
    front = build_system(config, ("a",)).front
    assert (front.patch, front.execution.halo, front.execution.train_tiles) == (16, 2, True)
    front = build_system(replace(config, masker=MaskerConfig(patch=32, halo=None)), ("a",)).front
    assert (front.patch, front.execution.halo, front.execution.train_tiles) == (32, None, False)


def test_a_loaded_system_has_no_profile_of_its_own(trained):
    system = load_system(trained[1])
    assert system.front.execution.latency is None and system.front.execution.train_tiles, (
        "trained on tiles, executed on tiles"
    )
    assert MaskPolicy("latency_ms", 12.5).needs_masker
