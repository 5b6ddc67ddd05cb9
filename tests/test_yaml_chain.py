"""Every shipped YAML builds its networks and makes at least one step, each folder's stages in their order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

import evaluate
import inference
import stage1_pretrain_yolo
import stage2_pretrain_sr
import stage3_finetune_joint
from tests.drawn import draw_detection_set, draw_photographs
from tests.extras import needs_generative
from tests.test_configs import FOLDER

CHAINS = sorted({file.parent for file in FOLDER.rglob("stage1_yolo_pretrain.yaml")})
# What lies in files that only a user has is replaced by small random parts, and what takes long by less.
WITHOUT_FILES = {
    "one_step_diffusion": {
        "sr_quality.args": "{}", "one_step.backbone": "convnext_atto", "one_step.backbone_weights": "null",
        "one_step.lpips": 0, "data.patch": 16, "optim_quality.epochs": 1, "run.precision": "fp32",
    },
    "one_step_diffusion_small": {"one_step.autoencoder_epochs": 1},
    "ldcsr": {
        "sr_quality.args": "{channels: 8, n_modules: 1, encoder_channels: 8, levels: 3, width: 16, unet_channels: 8}",
        "loss.perceptual": 0, "loss.perceptual_weights": "[]", "ldcsr.epochs": 1, "ldcsr.samples_per_epoch": 2,
        "ldcsr.batch": 2, "ldcsr.gan": 0, "ldcsr.hr_patch": 64, "data.patch": 16,
    },
    "difiisr_dwt": {
        "sr_quality.args": "{channels: 8, mult: 1-1, n_blocks: 1, swin_depth: 1, swin_dim: 32, timesteps: 2, steps: 2}",
        "data.patch": 16, "run.precision": "fp32",
    },
}  # fmt: skip
LESS = {"real_world": {"data.patch": 16, "data.degradation.pool": 2, "run.precision": "fp32"}}
WARM_UP = {"configs": {"warm_up.quality_epochs": 1, "warm_up.epochs": 1, "warm_up.batch": 2}}
STAGE2_ONLY = sorted({file.parent for file in FOLDER.rglob("stage2_sr_pretrain.yaml")} - set(CHAINS))


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    return {
        "data": draw_detection_set(tmp_path / "data", images=2, size=(128, 128)),
        "photographs": draw_photographs(tmp_path / "photographs", images=2, size=(280, 280)),
        "validation": draw_photographs(tmp_path / "validation", images=1, size=(64, 64)),
    }


def start(main, file: Path, folder: Path, **options) -> Path:
    """Run a script with a YAML, on little; returns the run folder."""
    common = (
        {} if main is inference.main else {"run.out": folder, "run.device": "cpu", "run.threads": 1, "run.workers": 0}
    )
    arguments = [f"--{key}={value}" for key, value in (common | options).items()]
    AcceleratorState._reset_state(reset_partial_state=True)  # it keeps the precision of the script before
    assert main(["--config", str(file), *arguments]) == 0
    return folder


def pretrain_sr(folder: Path, inputs: dict[str, Path], out: Path) -> Path:
    """Stage 2 for one step of each network."""
    options = {"data.train": f"[{inputs['photographs']}]", "data.val": f"[{inputs['validation']}]"}
    options |= {"data.samples_per_epoch": 2, "val_every": 1}
    for optim in ("optim_fast", "optim_quality"):
        options |= {f"{optim}.{key}": value for key, value in {"epochs": 1, "batch": 2, "micro_batch": 2}.items()}
        options[f"{optim}.milestones"] = "[]"
    options |= WITHOUT_FILES.get(folder.name, {}) | LESS.get(folder.name, {})
    return start(stage2_pretrain_sr.main, folder / "stage2_sr_pretrain.yaml", out, **options)


@pytest.mark.parametrize(
    "folder",
    [pytest.param(f, marks=needs_generative if f.name in WITHOUT_FILES else ()) for f in STAGE2_ONLY],
    ids=lambda folder: str(folder.relative_to(FOLDER)),
)
def test_stage2_makes_a_step(tmp_path: Path, inputs: dict[str, Path], folder: Path):
    out = pretrain_sr(folder, inputs, tmp_path / "stage2")
    lines = [line for file in (out / "sr_quality").rglob("metrics.jsonl") for line in file.read_text().splitlines()]
    assert any("psnr/validation" in name for line in lines for name in json.loads(line))


@pytest.mark.parametrize(
    "folder",
    [pytest.param(f, marks=() if f.name in ("configs", "demo") else pytest.mark.slow) for f in CHAINS],
    ids=lambda folder: str(folder.relative_to(FOLDER.parent)),
)
def test_the_stages_follow_each_other(tmp_path: Path, inputs: dict[str, Path], folder: Path):
    data = {"data.yaml": inputs["data"], "data.imgsz": 128}
    stage1 = start(
        stage1_pretrain_yolo.main,
        folder / "stage1_yolo_pretrain.yaml",
        tmp_path / "stage1",
        **data,
        **{"detector.weights": "null", "epochs": 1, "batch": 2, "warmup_epochs": 0, "augment.close_mosaic": 0},
    )
    stage2 = pretrain_sr(folder, inputs, tmp_path / "stage2")
    detector = {"detector.weights": stage1 / "yolo_pretrained_hr.pth"}
    fast, quality = (stage2 / f"{role}_pretrained.pth" for role in ("sr_fast", "sr_quality"))
    stage3 = start(
        stage3_finetune_joint.main,
        folder / "stage3_joint_finetune.yaml",
        tmp_path / "stage3",
        **data,
        **detector,
        **{"sr_fast.weights": fast, "sr_quality.weights": quality, "optim.epochs": 1, "optim.batch": 2},
        **{"optim.micro_batch": 0} | WARM_UP.get(folder.name, {}),
    )
    assert (stage3 / "warm_up_sr_quality").exists() == (stage3 / "warm_up").exists() == (folder.name in WARM_UP)
    assert "train/det" in (stage3 / "metrics.jsonl").read_text()
    system = stage3 / "conditional_sr_yolo_jointly_tuned.pth"
    checkpoints = {"system": system, "detector": detector["detector.weights"], "sr_fast": "shipped"}
    checkpoints |= {"sr_quality": quality}
    evaluation = start(
        evaluate.main,
        folder / "evaluate.yaml",
        tmp_path / "evaluate",
        **data,
        **checkpoints,
        **{"retrained": "{}", "split": "val", "timing_runs": 0, "overlays": 0, "batch": 2},
    )
    assert len(json.loads((evaluation / "results.json").read_text())["rows"]) > 10
    found = start(
        inference.main,
        folder / "inference.yaml",
        tmp_path / "inference",
        source=inputs["validation"],
        weights=system,
        out=tmp_path / "inference",
        device="cpu",
    )
    assert any(found.rglob("*.png"))
