"""Which phases a stage 3 has, and what each of them is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from configs.schema import DetectionDataConfig, NetworkConfig, OptimConfig, RunConfig
from configs.stage3_schema import LossConfig, Stage3Config, WarmUpConfig
from loading.stage3_checks import check_stage3
from loading.warm_up import OUTPUT, stage3_phases
from training.published_epochs import PUBLISHED, epochs_as_published, proposal
from utils.config import changed_keys

WARM = WarmUpConfig(epochs=6, quality_epochs=12, batch=4, lr=4e-4, lr_masker=3e-3, distill=0.7, distill_outputs=0.4)


@pytest.fixture
def config(tmp_path: Path) -> Stage3Config:
    (tmp_path / "data.yaml").write_text("")
    return Stage3Config(
        run=RunConfig(out="run"),
        data=DetectionDataConfig(yaml=str(tmp_path / "data.yaml"), label_share=0.5, unlabelled=True),
        optim=OptimConfig(epochs=8, batch=8, micro_batch=8, lr=3e-4, lr_low=2e-5),
        losses=LossConfig(distill=1.0, rec=0.1, hr_share=0.2),
        sr_quality=NetworkConfig("edsr", {}, weights="shipped"),
        warm_up=WARM,
    )


def test_without_a_warm_up_nothing_changes(config: Stage3Config):
    plain = replace(config, warm_up=WarmUpConfig())
    (only,) = stage3_phases(plain)
    assert only.config == plain and only.name == "" and only.output == Path("run") / OUTPUT


def test_phases_follow_each_other_as_in_the_published_tables(config: Stage3Config):
    check_stage3(config)
    alone, beside, joint = stage3_phases(config)
    assert [phase.name for phase in (alone, beside, joint)] == ["warm_up_sr_quality", "warm_up", ""]
    assert [phase.config.optim.epochs for phase in (alone, beside, joint)] == [12, 6, 8]
    for phase in (alone, beside):
        made = phase.config
        assert made.mode == "frozen_detector" and made.run.resume and made.warm_up == WarmUpConfig()
        losses = made.losses
        assert (losses.det, losses.rec, losses.hr_share, losses.distill, losses.distill_outputs) == (0, 0, 0, 0.7, 0.4)
        optim = made.optim
        assert (optim.batch, optim.micro_batch, optim.lr, optim.lr_sr, optim.lr_masker) == (4, 4, 4e-4, 4e-4, 3e-3)
        assert (made.data.label_share, made.data.unlabelled) == (1.0, False), "all images, no labels"
        assert phase.output == Path("run") / phase.name / OUTPUT
    assert (alone.config.sr, alone.config.freeze) == ("sr_quality", [])
    assert (beside.config.sr, beside.config.freeze) == ("conditional", ["sr_quality"])
    assert beside.config.sr_quality.weights == str(alone.output) and alone.config.sr_quality.weights == "shipped"
    assert joint.config.start == str(beside.output)
    others = {name for name in changed_keys(config, joint.config) if not name.startswith("warm_up.")}
    assert others == {"start"}, "the last phase is the run as configured"


def test_the_whole_front_end_in_one_phase(config: Stage3Config):
    together, joint = stage3_phases(replace(config, warm_up=replace(WARM, quality_epochs=0)))
    assert (together.name, together.config.freeze, together.config.sr_quality.weights) == ("warm_up", [], "shipped")
    assert joint.config.start == str(together.output)
    single = replace(config, sr="sr_fast", mode="detector_only", warm_up=replace(WARM, quality_epochs=0), upscale=1.5)
    first, last = stage3_phases(replace(single, losses=LossConfig()))
    assert (first.config.upscale, last.config.upscale) == (1.0, 1.5), "at the size for which there are HR images"
    assert first.config.optim.micro_batch == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warm_up": replace(WARM, epochs=0)}, r"warm_up\.quality_epochs is what SR_Quality gets before"),
        ({"sr": "sr_fast"}, r"warm_up\.quality_epochs .* needs sr conditional"),
        ({"freeze": ["sr_quality"]}, "trains SR_Quality, which freeze names"),
        ({"start": "warm.pth"}, "start names a front end that was warmed up already"),
        (
            {"sr": "bicubic", "mode": "detector_only", "warm_up": replace(WARM, quality_epochs=0)},
            "sr bicubic has none: set warm_up.epochs to 0",
        ),
        ({"warm_up": replace(WARM, distill=0.0, distill_outputs=0.0)}, "both 0, so there is nothing to learn from"),
    ],
)
def test_what_makes_no_sense_is_refused(config: Stage3Config, changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        check_stage3(replace(config, losses=LossConfig(), data=replace(config.data, unlabelled=False), **changes))


def test_without_hr_images(config: Stage3Config):
    data = replace(config.data, lr="native", unlabelled=False)
    with pytest.raises(ValueError, match=r"warm_up needs HR images, but data\.lr is native: set warm_up\.epochs"):
        check_stage3(replace(config, data=data, losses=LossConfig()))


def test_as_many_images_as_in_the_published_tables():
    assert list(epochs_as_published(480).values()) == [12, 6, 8] and set(epochs_as_published(1)) == set(PUBLISHED)
    assert list(epochs_as_published(100).values()) == [58, 29, 39] and min(epochs_as_published(10**6).values()) == 3
    assert "480 training images" in proposal(480) and "warm_up.quality_epochs 12" in proposal(480)
