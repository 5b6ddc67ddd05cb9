"""Stage 2 from end to end on drawn photographs: best and last weights, degradations, scales, resume."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

import training.trainer
from data.images import ImageError
from evaluation.sr_eval import benchmark, mean_psnr
from loading.load_sr import load_sr
from stage2_pretrain_sr import main
from tests.drawn import AnySize, draw_photographs
from training.best_weights import BestWeights
from utils.checkpoint import CheckpointError, load_network, save_network
from utils.config import ConfigError
from utils.metrics import PSNR_CEILING, psnr_y

DEGRADED = [
    "--data.degradation.kind=realesrgan", "--data.degradation.pool=6", "--data.degradation.first.kernel=[3, 5]",
    "--data.degradation.second.kernel=[3, 5]",
]  # fmt: skip


LM_LIIF = ["--sr_quality.name=lm_liif", '--sr_quality.args={"n_blocks": 1, "n_feats": 4}']


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """accelerate remembers the precision of the first run for the whole process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    return draw_photographs(tmp_path / "photos")


def arguments(data: Path, out: Path, *more: str) -> list[str]:
    return [
        f"--run.out={out}", "--run.device=cpu", "--run.threads=1", "--run.workers=0", "--run.checkpoint_every=1",
        "--run.log_every=1", "--scale=2", f"--data.train=[{data}]", f"--data.val=[{data}]", "--data.patch=12",
        "--data.samples_per_epoch=16", "--sr_fast.name=bicubic", "--sr_fast.args={}", "--sr_quality.name=edsr",
        '--sr_quality.args={"n_blocks": 2, "n_feats": 4}', "--val_every=1", "--optim_quality.epochs=3",
        "--optim_quality.batch=4", "--optim_quality.lr=1e-3", "--optim_quality.warmup=1", *more,
    ]  # fmt: skip


def weights(out: Path, name: str = "sr_quality_pretrained.pth") -> dict[str, torch.Tensor]:
    return load_network(out / name, "sr")["weights"]


def logged(out: Path) -> list[dict]:
    lines = (out / "sr_quality" / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "time"} for line in lines]


def run_twice(data: Path, folder: Path, monkeypatch, *more: str) -> None:
    """A run in one go and one that is stopped after its sixth step end the same."""
    assert main(arguments(data, folder / "whole", *more)) == 0
    made, save = [], training.trainer.Trainer.save

    def save_and_stop(trainer) -> None:
        save(trainer)
        made.append(trainer.step)
        if len(made) == 6:
            raise InterruptedError

    monkeypatch.setattr(training.trainer.Trainer, "save", save_and_stop)
    with pytest.raises(InterruptedError):
        main(arguments(data, folder / "stopped", *more))
    monkeypatch.setattr(training.trainer.Trainer, "save", save)
    assert made[-1] % 4, "stopped at the end of an epoch, where resuming is easy"
    assert main(arguments(data, folder / "stopped", *more, "--run.resume")) == 0
    for name in ("sr_quality_pretrained.pth", "sr_quality_best.pth"):
        whole, stopped = weights(folder / "whole", name), weights(folder / "stopped", name)
        assert whole.keys() == stopped.keys() and all(torch.equal(whole[key], stopped[key]) for key in whole), name
    assert logged(folder / "whole") == logged(folder / "stopped")


@pytest.mark.parametrize("more", [[], DEGRADED], ids=["bicubic", "realesrgan"])
def test_resume_is_bit_identical(photographs: Path, tmp_path: Path, monkeypatch, more: list[str]):
    options = ["--optim_quality.ema=0.9", "--optim_quality.schedule=step", "--optim_quality.milestones=[2]"]
    run_twice(photographs, tmp_path, monkeypatch, *more, *options, "--loss.pixel=charbonnier", "--run.precision=bf16")


@pytest.mark.parametrize("queries", [0, 144])
def test_arbitrary_scale_training_resumes_and_validates_at_its_scales(photographs, tmp_path, monkeypatch, queries: int):
    network = [
        "--sr_quality.name=lm_liif",
        '--sr_quality.args={"n_blocks": 1, "n_feats": 4}',
        f"--loss.queries={queries}",
    ]
    run_twice(photographs, tmp_path, monkeypatch, *network, "--data.scales=[1, 3.5]", "--data.val_scales=[2, 2.5]")
    metrics = load_network(tmp_path / "whole" / "sr_quality_best.pth", "sr")["meta"]["metrics"]
    assert set(metrics) == {f"{kind}/photos_x{scale}" for kind in ("psnr", "ssim") for scale in ("2", "2.5")}


def test_best_and_last_weights(photographs: Path, tmp_path: Path):
    out = tmp_path / "run"
    # The learning rate is far too high, so that later epochs are worse than the first.
    assert main(arguments(photographs, out, "--optim_quality.lr=0.5", "--optim_quality.clip_norm=0")) == 0
    curve = [row["psnr/photos"] for row in logged(out) if "psnr/photos" in row]
    best = load_network(out / "sr_quality_best.pth", "sr")["meta"]
    assert best["mean_psnr"] == pytest.approx(max(curve)) and best["epochs"] == curve.index(max(curve)) + 1
    last = load_network(out / "sr_quality_pretrained.pth", "sr")["meta"]
    assert last["metrics"]["psnr/photos"] == pytest.approx(curve[-1]) and len(curve) == 3
    assert load_sr(out / "sr_quality_best.pth").spec["name"] == "edsr"
    assert not (out / "sr_fast_best.pth").exists(), "bicubic is not trained"


def test_two_validation_sets_give_one_mean(photographs: Path, tmp_path: Path):
    other, out = draw_photographs(tmp_path / "others", images=2, seed=5), tmp_path / "run"
    assert main(arguments(photographs, out, f"--data.val=[{photographs}, {other}]")) == 0
    meta = load_network(out / "sr_quality_best.pth", "sr")["meta"]
    assert set(meta["metrics"]) == {f"{kind}/{name}" for kind in ("psnr", "ssim") for name in ("photos", "others")}
    assert meta["mean_psnr"] == pytest.approx((meta["metrics"]["psnr/photos"] + meta["metrics"]["psnr/others"]) / 2)


@pytest.mark.parametrize("option", ["--data.cache=disk", "--data.cache=none", "--run.workers=2"])
@pytest.mark.parametrize("more", [[], DEGRADED], ids=["bicubic", "realesrgan"])
def test_cache_and_workers_change_nothing(photographs: Path, tmp_path: Path, option: str, more: list[str]):
    short = [*more, "--optim_quality.epochs=1"]
    assert main(arguments(photographs, tmp_path / "one", *short)) == 0
    assert main(arguments(photographs, tmp_path / "other", *short, option)) == 0
    one, other = weights(tmp_path / "one"), weights(tmp_path / "other")
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_gradient_checkpointing_changes_nothing(photographs: Path, tmp_path: Path, capsys):
    short = ["--optim_quality.epochs=1"]
    assert main(arguments(photographs, tmp_path / "one", *short)) == 0
    assert main(arguments(photographs, tmp_path / "other", *short, "--gradient_checkpointing")) == 0
    assert "sr_quality: 2 blocks are recomputed" in capsys.readouterr().out
    one, other = weights(tmp_path / "one"), weights(tmp_path / "other")
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_degradation_is_what_trains(photographs: Path, tmp_path: Path):
    for name, more in (("bicubic", []), ("realesrgan", DEGRADED)):
        assert main(arguments(photographs, tmp_path / name, *more)) == 0
    losses = [logged(tmp_path / name)[0]["train/l1"] for name in ("bicubic", "realesrgan")]
    assert losses[1] > 1.2 * losses[0]


def test_a_finished_run_goes_on_with_more_epochs_and_not_with_fewer(photographs: Path, tmp_path: Path, capsys):
    out = tmp_path / "run"
    assert main(arguments(photographs, out, "--optim_quality.epochs=1")) == 0
    with pytest.raises(ConfigError, match=r"begun with other settings \(optim_quality\.lr\)"):
        main(arguments(photographs, out, "--optim_quality.epochs=2", "--optim_quality.lr=1", "--resume"))
    capsys.readouterr()
    assert main(arguments(photographs, out, "--optim_quality.epochs=2", "--resume")) == 0
    told = capsys.readouterr().out
    assert "run.resume: optim_quality.epochs is 2, was 1;" in told and "sr_fast: already finished" in told
    assert [row["step"] for row in logged(out) if "train/total" in row] == list(range(1, 9))
    assert load_network(out / "sr_quality_pretrained.pth", "sr")["meta"]["epochs"] == 2
    longer = weights(out)
    assert main(arguments(photographs, out, "--optim_quality.epochs=1", "--resume")) == 0
    assert "sr_quality: already finished" in capsys.readouterr().out
    assert all(torch.equal(value, longer[key]) for key, value in weights(out).items())


def test_ended_earlier_it_keeps_what_it_has(photographs: Path, tmp_path: Path, monkeypatch):
    out, save = tmp_path / "run", training.trainer.Trainer.save

    def save_and_stop(trainer) -> None:
        save(trainer)
        if trainer.step == 6:
            raise InterruptedError

    monkeypatch.setattr(training.trainer.Trainer, "save", save_and_stop)
    with pytest.raises(InterruptedError):
        main(arguments(photographs, out))
    monkeypatch.setattr(training.trainer.Trainer, "save", save)
    assert main(arguments(photographs, out, "--optim_quality.epochs=1", "--resume")) == 0
    assert load_network(out / "sr_quality_pretrained.pth", "sr")["meta"]["epochs"] == 2, "the second was begun"
    state = torch.load(out / "sr_quality" / "checkpoints" / "last.pth", weights_only=True)
    assert state["step"] == 6
    assert all(torch.equal(value, state["model"][f"network.{key}"]) for key, value in weights(out).items())


def test_perceptual_loss_without_weights_is_refused(photographs: Path, tmp_path: Path):
    with pytest.raises(CheckpointError, match="no weights of LPIPS are named; LPIPS needs torchvision's backbone"):
        main(arguments(photographs, tmp_path / "run", "--loss.perceptual=0.1"))


def test_settings_that_do_not_fit_are_refused(photographs: Path, tmp_path: Path, capsys, monkeypatch):
    for options, message in (
        ([f"--data.lr_train=[{photographs}]", *DEGRADED], "data.lr_train holds the LR images of one scale"),
        ([*DEGRADED, "--data.degradation.second.noise=[9, 2]"], r"second\.noise must be \[lowest, highest\]"),
        ([f"--data.val=[{photographs}, {photographs}]"], "one folder is given twice"),
    ):
        with pytest.raises(ValueError, match=message):
            main(arguments(photographs, tmp_path / "run", *options, "--sr_fast.name=espcn"))
        for file in (tmp_path / "run").iterdir():
            file.unlink()
    assert main(arguments(photographs, tmp_path / "run", "--data.scales=[1, 4]", "--optim_quality.epochs=1")) == 0
    assert "edsr has one scale, so data.scales is left aside" in capsys.readouterr().out


def test_single_pixels_have_no_other_loss(photographs: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"loss\.queries trains at single pixels, by l1 alone; set it to 0"):
        main(arguments(photographs, tmp_path / "run", *LM_LIIF, "--loss.pixel=charbonnier"))


def test_best_weights_keep_the_first_of_equals(tmp_path: Path):
    network = AnySize()
    best = BestWeights(tmp_path / "best.pth", network, {"seed": 0})
    assert [best.offer({"psnr/a": value, "ssim/a": 1.0}, k, k) for k, value in enumerate((20.0, 19.0, 20.0, 21.0))] == [
        True, False, False, True
    ]  # fmt: skip
    assert BestWeights(tmp_path / "best.pth", network, {}).stored_psnr() == 21.0
    assert not best.offer({}, 4, 4) and mean_psnr({"ssim/a": 1.0}) is None


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_photograph_is_named_and_left_out(tmp_path: Path, photographs: Path, capfd, workers: int):
    good = draw_photographs(tmp_path / "good")
    for name, content in (("header.png", b"no image"), ("zz_pixels.png", None)):
        source = next(iter(sorted(good.glob("*.png")))).read_bytes()
        start = source.index(b"IDAT") + 4
        (photographs / name).write_bytes(content or source[:start] + bytes(200) + source[start + 200 :])
    more = [f"--data.val=[{good}]", "--data.cache=none", f"--run.workers={workers}", "--optim_quality.epochs=1"]
    with pytest.raises(ImageError, match=r"header\.png: not an image"):
        main(arguments(photographs, tmp_path / "strict", *more, "--data.on_bad_image=error"))
    for number in range(20):  # few of many
        (photographs / f"copy{number}.png").write_bytes(source)
    assert main(arguments(photographs, tmp_path / "run", *more, "--data.samples_per_epoch=200")) == 0
    out, err = capfd.readouterr()
    assert f"1 bad image skipped: {photographs / 'header.png'}: not an image" in out
    assert err.count(f"warning: skipped {photographs / 'zz_pixels.png'}: damaged or truncated") >= 1
    assert (tmp_path / "run" / "sr_quality_pretrained.pth").is_file()


def test_a_validation_image_that_comes_out_exactly_right_does_not_stop_the_choice(tmp_path: Path):
    """Its PSNR was infinite once, so the first epoch was the best for ever; such a file may lie in a resumed run."""
    network, hr = AnySize(), np.full((32, 32, 3), 128, np.uint8)
    with torch.no_grad():
        network.conv.weight.zero_(), network.conv.bias.fill_(128 / 255)
    images = [("plain", hr[::2, ::2], hr), ("other", hr[::2, ::2], hr + 9)]
    exact = benchmark(network, {"a": (2.0, images)}, torch.device("cpu"))
    other = psnr_y(hr, hr + 9, 2)
    assert exact["psnr/a"] == mean_psnr(exact) == pytest.approx((PSNR_CEILING + other) / 2)
    best = BestWeights(tmp_path / "best.pth", network, {})
    assert best.offer(exact, 0, 1)
    assert best.offer({"psnr/a": exact["psnr/a"] + 0.1}, 1, 2)
    old = {"mean_psnr": float("inf"), "metrics": {}}
    save_network(tmp_path / "old.pth", "sr", "any_size", {}, network.state_dict(), old)
    assert BestWeights(tmp_path / "old.pth", network, {}).offer({"psnr/a": 20.0}, 0, 1)
