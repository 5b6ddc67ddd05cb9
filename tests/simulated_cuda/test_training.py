"""All stages on the simulated device: no mixed devices, and how often a step and a checkpoint wait for the device."""

from __future__ import annotations

import os

import pytest
import torch
import yaml

import stage1_pretrain_yolo as stage1
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
MOST_PER_SAVE = 3  # of what is finite on each device, and of all copies together
SHORT = ("labels", "unlabelled", "tiles")


def own_waits(counts) -> dict:
    """Waits of the project's own lines, those inside a library that it calls left out."""
    return {key: number for key, number in counts.items() if " > " not in key[1]}


@pytest.fixture
def watched(cuda, monkeypatch):
    """watched(owner, method): the own waits of each of its calls from here on."""

    def watch(owner: type, name: str, since: str | None = None) -> list[dict]:
        waits, began, method = [], {}, getattr(owner, name)

        def counted(self, *args):
            before = began.get("at") if since else cuda.syncs.copy()
            result = method(self, *args)
            waits.append(own_waits(cuda.syncs - before))
            return result

        monkeypatch.setattr(owner, name, counted)
        if since:
            first = getattr(owner, since)
            monkeypatch.setattr(
                owner, since, lambda self, *args: began.update(at=cuda.syncs.copy()) or first(self, *args)
            )
        return waits

    return watch


def few(waits: list[dict], most: int) -> bool:
    return bool(waits) and all(sum(call.values()) <= most for call in waits)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=pytest.mark.slow)])
def test_stage1(tmp_path, cuda, watched, precision):
    from training.yolo_training import HRDetectionTrainer

    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    data = draw_detection_set(tmp_path / "set", images=4)
    steps = watched(HRDetectionTrainer, "optimizer_step", since="preprocess_batch")
    saves = watched(HRDetectionTrainer, "save_model")
    arguments = [
        f"--run.out={tmp_path / 'run'}", "--run.device=cuda", "--run.threads=1", "--run.workers=0",
        f"--run.precision={precision}", f"--data.yaml={data}", "--data.imgsz=64", "--epochs=1", "--batch=2",
        f"--detector.model={tmp_path / 'tiny.yaml'}", "--warmup_epochs=0", "--augment.close_mosaic=0",
    ]  # fmt: skip
    assert stage1.main(arguments) == 0
    assert few(steps, MOST_OWN) and few(saves, MOST_PER_SAVE), (steps, saves)
    assert sum(number for (_, place), number in cuda.syncs.items() if "checkpoint.py" in place) == 1, cuda.report()


@pytest.mark.parametrize(
    "recipe", [name if name in SHORT else pytest.param(name, marks=pytest.mark.slow) for name in RECIPES]
)
def test_stage3(tmp_path, cuda, watched, recipe):
    from training.trainer import Trainer

    steps, saves = watched(Trainer, "optimise"), watched(Trainer, "save")
    assert stage3.main([*stage3_arguments(tmp_path), *RECIPES[recipe]]) == 0
    assert few(steps, MOST_OWN) and few(saves, MOST_PER_SAVE), (steps, saves)


def stage3_arguments(folder) -> list[str]:
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    return [
        f"--run.out={folder / 'run'}", "--run.device=cuda", "--run.workers=0", "--run.log_every=1",
        f"--data.yaml={draw_detection_set(folder / 'set', images=6)}", "--data.imgsz=64", "--data.scale=2",
        "--masker.patch=8", "--optim.epochs=1", "--optim.batch=2", "--optim.warmup=1", "--sr_fast.name=espcn",
        "--sr_fast.args={n_feats: 8}", "--sr_quality.name=edsr", '--sr_quality.args={"n_blocks": 1, "n_feats": 4}',
        f"--detector.model={folder / 'tiny.yaml'}", "--val_images=1",
    ]  # fmt: skip


@pytest.fixture
def undetermined():
    """PyTorch's choice of algorithms as it was, afterwards."""
    yield
    torch.use_deterministic_algorithms(False)
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


@pytest.mark.parametrize("recipe", ["labels", pytest.param("distillation", marks=pytest.mark.slow)])
def test_deterministic(tmp_path, cuda, undetermined, recipe):
    """With `run.deterministic` no operation runs that CUDA has no repeating algorithm for."""
    assert stage3.main([*stage3_arguments(tmp_path), "--run.deterministic=true", *RECIPES[recipe]]) == 0
    assert torch.are_deterministic_algorithms_enabled() and os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not cuda.unrepeatable


SMALL = '{"n_blocks": 1, "n_feats": 8}'


@pytest.mark.parametrize(
    "options",
    [
        ["--data.degradation.kind=realesrgan", "--data.degradation.pool=2", "--data.degradation.sharpen=true"],
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
def test_stage2(tmp_path, cuda, watched, options):
    from training.trainer import Trainer

    steps, saves = watched(Trainer, "optimise"), watched(Trainer, "save")
    photos = draw_photographs(tmp_path / "photos")
    arguments = [
        f"--run.out={tmp_path / 'run'}", "--run.device=cuda", "--run.workers=0", f"--data.train=[{photos}]",
        f"--data.val=[{photos}]", "--scale=2", "--data.patch=12", "--data.samples_per_epoch=4",
        "--sr_fast.name=bicubic", "--sr_fast.args={}", "--sr_quality.name=edsr",
        '--sr_quality.args={"n_blocks": 2, "n_feats": 4}', "--optim_quality.epochs=1", "--optim_quality.batch=2",
        "--optim_quality.warmup=1",
    ]  # fmt: skip
    assert stage2.main([*arguments, *options]) == 0
    assert few(steps, MOST_OWN) and few(saves, MOST_PER_SAVE), (steps, saves)
