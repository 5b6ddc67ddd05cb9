"""Two CPU processes (gloo) follow the same losses as one: stage 2 with degradation and phases, stage 3."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.drawn import draw_detection_set, draw_photographs
from tests.extras import needs_generative

ROOT = Path(__file__).resolve().parents[1]


def losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["train/total"] for row in rows if "train/total" in row]


def launched(processes: int, arguments: list[str], folder: Path) -> Path:
    """The run folder of a script in so many processes."""
    out = folder / f"p{processes}"
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    shared = ["--run.device=cpu", "--run.threads=1", "--run.workers=0", "--run.log_every=1"]
    result = subprocess.run(
        [sys.executable, *launch, *arguments, f"--run.out={out}", *shared],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return out


def stage2_arguments(folder: Path) -> list[str]:
    return [
        "stage2_pretrain_sr.py", f"--data.train=[{folder}]", "--scale=2", "--data.patch=12",
        "--data.samples_per_epoch=16", "--data.degradation.kind=realesrgan", "--data.degradation.pool=0",
        "--sr_fast.name=bicubic", "--sr_fast.args={}", "--sr_quality.name=edsr",
        '--sr_quality.args={"n_blocks": 1, "n_feats": 4}', "--optim_quality.epochs=2", "--optim_quality.batch=4",
        "--optim_quality.micro_batch=2", "--optim_quality.lr=1e-2", "--optim_quality.warmup=1",
    ]  # fmt: skip


def stage3_arguments(data: Path) -> list[str]:
    return [
        "stage3_finetune_joint.py", f"--data.yaml={data}", "--data.imgsz=64", "--data.scale=2",
        "--sr_fast.name=espcn", "--sr_fast.args={n_feats: 8}",
        "--sr_quality.name=edsr", '--sr_quality.args={"n_blocks": 1, "n_feats": 4}', "--masker.patch=8",
        "--optim.epochs=3", "--optim.batch=4", "--optim.micro_batch=2", "--optim.lr=1e-3", "--optim.warmup=1",
        "--val_images=0", "--freeze_bn=true",
    ]  # fmt: skip


RECIPE = [
    "--data.label_share=0.4", "--data.unlabelled=true", "--losses.distill=1", "--losses.hr_share=0.34",
    "--masker.budget_dropout=[0.1, 0.8]",
]  # fmt: skip

TURNS = ["--losses.alternate=true", "--losses.hr_share=0.34", "--masker.shared_stem=true"]


PHASES = [
    "--sr_quality.name=difiisr_dwt", "--difiisr_dwt.measured_patches=8", "--optim_quality.ema=0.9",
    "--sr_quality.args={codec: v4, channels: 8, mult: '1', n_blocks: 1, swin_depth: 1, swin_dim: 32, window: 2}",
]  # fmt: skip


LDCSR = [
    "--scale=2", "--data.patch=24", "--data.scales=[1, 1.5]", "--sr_quality.name=ldcsr",
    "--sr_quality.args={channels: 8, n_modules: 1, encoder_channels: 4, levels: 2, width: 8, unet_channels: 8}",
    "--ldcsr.epochs=2", "--ldcsr.samples_per_epoch=8", "--ldcsr.batch=4", "--ldcsr.micro_batch=2", "--ldcsr.lr=0.001",
    "--ldcsr.gan_start=2", "--ldcsr.discriminator_channels=4", "--ldcsr.hr_patch=32",
]  # fmt: skip

ONE_STEP = [
    "--scale=4", "--data.patch=16", "--sr_quality.name=one_step_diffusion",
    "--sr_quality.args={channels: 32, cross: 32, vae_channels: 16, latent: 16}", "--one_step.autoencoder_epochs=1",
    "--one_step.pre_removal_epochs=1", "--one_step.lpips=0", "--one_step.adversarial=0.005",
    "--one_step.backbone=convnext_atto",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "steps", "options"),
    [(2, 8, []), (2, 8, PHASES), (3, 6, []), (3, 6, RECIPE), (3, 6, TURNS)],
    ids=["2", "2-phases", "3", "3-recipe", "3-turns"],
)
def test_two_processes_follow_one(tmp_path: Path, stage: int, steps: int, options: list[str]):
    if stage == 2:
        arguments = stage2_arguments(draw_photographs(tmp_path / "photos"))
    else:
        arguments = stage3_arguments(draw_detection_set(tmp_path / "set", images=8))
    curves = {}
    for processes in (1, 2):
        out = launched(processes, arguments + options, tmp_path)
        folder = out / "sr_quality" if stage == 2 else out
        curves[processes] = losses(folder / "diffusion" if options is PHASES else folder)
    assert len(curves[1]) == steps
    assert curves[1] == pytest.approx(curves[2], abs=1e-4, rel=1e-5)
    assert max(curves[1]) - min(curves[1]) > 1e-3, "a flat curve would compare nothing"


def curves_of(out: Path) -> dict[tuple[str, int, str], float]:
    """(phase, line, name) -> every number that a run has logged of its losses."""
    return {
        (file.parent.name, number, name): value
        for file in sorted(out.rglob("metrics.jsonl"))
        for number, line in enumerate(file.read_text().splitlines())
        for name, value in json.loads(line).items()
        if name.startswith("train/") and name.endswith(("total", "l1", "kl", "gan", "mse", "made", "real", "condition"))
    }


@pytest.mark.slow
@needs_generative
@pytest.mark.parametrize(
    ("options", "tolerance"),
    # Spectral norms of the one-step discriminator iterate once a forward pass, of which one process makes more.
    [pytest.param(LDCSR, 1e-5, id="ldcsr"), pytest.param(ONE_STEP, 5e-3, id="one-step")],
)
def test_phases_and_turns_of_generative_systems(tmp_path: Path, options: list[str], tolerance: float):
    photographs = draw_photographs(tmp_path / "photos", size=(96, 96))
    shared = [
        "stage2_pretrain_sr.py", f"--data.train=[{photographs}]", "--data.samples_per_epoch=8",
        "--sr_fast.name=bicubic", "--sr_fast.args={}",
        "--optim_quality.epochs=2", "--optim_quality.batch=4", "--optim_quality.micro_batch=2",
        "--optim_quality.lr=1e-3", "--optim_quality.warmup=0", "--optim_quality.ema=0.9",
    ]  # fmt: skip
    alone, together = (curves_of(launched(processes, shared + options, tmp_path)) for processes in (1, 2))
    assert len({phase for phase, *_ in alone}) >= 2 and len(alone) > 15 and max(alone.values()) > 1
    assert together == pytest.approx(alone, rel=tolerance, abs=1e-5)
