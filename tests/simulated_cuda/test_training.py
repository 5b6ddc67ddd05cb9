"""Stages 2 and 3 on the simulated device: no mixed devices, and how often a step waits for the device."""

from __future__ import annotations

import pytest
import yaml

import stage2_pretrain_sr as stage2
import stage3_finetune_joint as stage3
from tests.drawn import draw_detection_set, draw_photographs
from tests.simulated_cuda.systems import TINY

RECIPES = {
    "labels": ["--masker.budget_dropout=[0.1, 0.6]", "--losses.objects=1", "--optim.ema=0.9"],
    "distillation": ["--losses.distill=1", "--losses.distill_outputs=0.5", "--losses.rec=1", "--losses.hr_share=0.34"],
    "frozen": ["--mode=frozen_detector", "--losses.det=0", "--losses.distill=1", "--losses.objects=1"],
    "unlabelled": ["--data.label_share=0.4", "--data.unlabelled=true", "--losses.distill=1", "--losses.objects=1"],
    "turns": ["--losses.alternate=true", "--losses.hr_share=0.34", "--masker.shared_stem=true"],
    "tiles": ["--masker.train=tiles", "--masker.halo=2"],
    "bicubic": ["--mode=detector_only", "--sr=bicubic", "--upscale=2"],
    "fp16": ["--run.precision=fp16", "--losses.distill=1", "--losses.objects=1"],
}
MOST_OWN = 3  # waits of our own lines in one step, the check of its terms among them; besides, libraries wait
SHORT = ("labels", "unlabelled", "tiles")


def own_waits(counts) -> dict:
    """Waits of the project's own lines, those inside a library that it calls left out."""
    return {key: number for key, number in counts.items() if " > " not in key[1]}


@pytest.mark.parametrize(
    "recipe", [name if name in SHORT else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES]
)
def test_stage3(tmp_path, cuda, monkeypatch, recipe):
    from training.trainer import Trainer

    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    data, waited, optimise = draw_detection_set(tmp_path / "set", images=6), [], Trainer.optimise

    def counted(self, batches, epoch):
        before = cuda.syncs.copy()
        result = optimise(self, batches, epoch)
        waited.append(own_waits(cuda.syncs - before))
        return result

    monkeypatch.setattr(Trainer, "optimise", counted)
    arguments = [
        f"--run.out={tmp_path / 'run'}", "--run.device=cuda", "--run.workers=0", "--run.log_every=1",
        f"--data.yaml={data}", "--data.imgsz=64", "--data.scale=2", "--masker.patch=8", "--optim.epochs=1",
        "--optim.batch=2", "--optim.warmup=1", "--sr_fast.name=espcn", "--sr_fast.args={n_feats: 8}",
        "--sr_quality.name=edsr", '--sr_quality.args={"n_blocks": 1, "n_feats": 4}',
        f"--detector.model={tmp_path / 'tiny.yaml'}", "--val_images=1",
    ]  # fmt: skip
    assert stage3.main([*arguments, *RECIPES[recipe]]) == 0
    assert waited and all(sum(step.values()) <= MOST_OWN for step in waited), waited


SMALL = '{"n_blocks": 1, "n_feats": 8}'


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--data.degradation.kind=realesrgan", "--data.degradation.pool=8"], marks=pytest.mark.slow),
        pytest.param(
            ["--gradient_checkpointing=true", "--loss.pixel=charbonnier", "--run.precision=bf16"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["--sr_quality.name=lm_lte", f"--sr_quality.args={SMALL}", "--loss.queries=16"], marks=pytest.mark.slow
        ),
        ["--sr_quality.name=lm_ciaosr", f"--sr_quality.args={SMALL}", "--loss.queries=16"],
    ],
    ids=["realesrgan", "checkpointing", "lm_lte", "lm_ciaosr"],
)
def test_stage2(tmp_path, cuda, options):
    photos = draw_photographs(tmp_path / "photos")
    arguments = [
        f"--run.out={tmp_path / 'run'}", "--run.device=cuda", "--run.workers=0", f"--data.train=[{photos}]",
        f"--data.val=[{photos}]", "--scale=2", "--data.patch=12", "--data.samples_per_epoch=4",
        "--sr_fast.name=bicubic", "--sr_fast.args={}", "--sr_quality.name=edsr",
        '--sr_quality.args={"n_blocks": 2, "n_feats": 4}', "--optim_quality.epochs=1", "--optim_quality.batch=2",
        "--optim_quality.warmup=1",
    ]  # fmt: skip
    assert stage2.main([*arguments, *options]) == 0
