"""DifIISR-DWT in stage 2: band statistics, what is drawn, the terms of the loss, whom they train, and a killed run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import stage2_pretrain_sr
from configs.generative_schema import DifIISRConfig
from configs.schema import OptimConfig, Stage2Config
from configs.sr_schema import SRDataConfig
from data.sr_batch import SRBatch
from models import build_sr
from tests.drawn import draw_photographs
from training.task import MAIN, Progress
from training.tasks.difiisr_dwt import (
    BandStatistics,
    DiffusionTask,
    band_weights,
    perceptual_weights,
    phases,
    ramp,
)
from utils.checkpoint import load_network
from utils.config import load_config
from utils.errors import UserError
from utils.flops_counter import count_parameters

CONFIGS = Path(__file__).parents[3] / "configs"
SMALL = {"channels": 8, "mult": "1-2", "n_blocks": 1, "swin_depth": 1, "swin_dim": 32, "window": 2, "steps": 1}
START = Progress(0, 100)


def small(**args):
    torch.manual_seed(0)
    return build_sr("difiisr_dwt", 4, SMALL | args)


def batch(images: int = 4, epoch: int = 0, first: int = 0) -> SRBatch:
    generator = torch.Generator().manual_seed(first)
    coarse = torch.rand(images, 3, 12, 12, generator=generator)
    hr = nn.functional.interpolate(coarse, (32, 32), mode="bicubic").clamp(0, 1)
    hr = (hr + 0.05 * torch.rand(images, 3, 32, 32, generator=generator)).clamp(0, 1)
    keys = [(epoch, first + number) for number in range(images)]
    return SRBatch(nn.functional.avg_pool2d(hr, 4), hr, [f"{number}.png" for number in range(images)], keys)


class Distance(nn.Module):
    """Stands for LPIPS."""

    def forward(self, image, reference):
        assert image.min() >= 0 and image.max() <= 1
        return (image - reference).abs().mean((1, 2, 3))


def task_of(network, judge=None, **settings) -> DiffusionTask:
    return DiffusionTask(network, DifIISRConfig(**settings), seed=3, perceptual=judge)


def measured(network):
    numbers = BandStatistics(network).numbers([batch(first=0), batch(first=50)])
    network.set_statistics(**numbers)
    return network


def test_bands_are_standardised_by_what_was_measured():
    network, batches = small(), [batch(first=0), batch(first=50)]
    numbers = BandStatistics(network).numbers(batches)
    assert numbers["mean"].shape == numbers["std"].shape == numbers["residual_std"].shape == (48,)
    network.set_statistics(**numbers)
    assert network.has_statistics
    hr = torch.cat([network.codec.encode(2 * one.hr - 1)[0] for one in batches])
    y = torch.cat([network.encode_lr(one.lr).y for one in batches])
    assert hr.mean((0, 2, 3)).abs().max() < 1e-4 and (hr.std((0, 2, 3), unbiased=False) - 1).abs().max() < 1e-3
    assert torch.allclose((hr - y).square().mean((0, 2, 3)).sqrt(), network.residual_std.flatten(), rtol=1e-3)


def test_measuring_changes_nothing_and_makes_no_steps():
    task = BandStatistics(small())
    assert task.turns(0) == () and set(task.optimizers(OptimConfig())) == {MAIN}


def test_images_of_one_colour_are_refused():
    flat = replace(batch(), hr=torch.full((4, 3, 32, 32), 0.5))
    with pytest.raises(UserError, match="a wavelet band of the training images is empty"):
        BandStatistics(small()).numbers([flat])


def test_steps_and_noise_are_pure_functions_of_seed_epoch_and_index():
    task = task_of(small())
    whole, part = batch(4), batch(2, first=2)
    assert torch.equal(task.timesteps(whole)[2:], task.timesteps(part))
    like = torch.zeros(4, 48, 8, 8)
    noise = task.noise(like, whole)
    assert torch.equal(noise[2:], task.noise(like[:2], part))
    assert abs(noise.mean()) < 0.05 and abs(noise.std() - 1) < 0.05 and not torch.equal(noise[0], noise[1])
    assert not torch.equal(noise, task.noise(like, batch(4, epoch=1)))
    other = DiffusionTask(small(), DifIISRConfig(), seed=4)
    assert not torch.equal(noise, other.noise(like, whole))


def test_every_step_is_drawn_alike():
    drawn = task_of(small()).timesteps(replace(batch(1), keys=[(0, index) for index in range(6000)]))
    counts = torch.bincount(drawn, minlength=15)
    assert len(counts) == 15 and (counts - 400).abs().max() < 100


def test_the_error_is_that_of_the_diffused_space_between_codes():
    """An untrained residual network answers y: the error is the distance between the standardised codes."""
    network, one = measured(small(predict="residual")), batch()
    losses = task_of(network).losses(one, START)
    expected = (network.codec.encode(2 * one.hr - 1)[0] - network.encode_lr(one.lr).y).square().mean()
    assert losses["total"].item() == pytest.approx(expected.item(), rel=1e-5) and set(losses) == {"total", "mse"}


def test_at_power_one_the_error_is_that_of_the_pixels():
    network, one = measured(small(predict="residual")), batch()
    pixels = (network(one.lr) - one.hr).mul(2).square().mean()  # in [-1, 1]
    loss = task_of(network, band_power=1.0).losses(one, START)["total"]
    assert (loss * network.codec.std.square().mean()).item() == pytest.approx(pixels.item(), rel=1e-4)
    assert torch.equal(band_weights(network.codec.std, 0.0), torch.ones(48))


def gradient(task: DiffusionTask, name: str) -> float | None:
    found = dict(task.network.named_parameters())[name].grad
    return None if found is None else found.abs().sum().item()


def test_each_term_trains_what_it_should():
    """MSE: the denoiser alone. LPIPS: the denoiser and `up`. Reconstruction alone reaches `down`."""
    layers = ("unet.leave.weight", "codec.resize.up.0.weight", "codec.resize.down.0.weight")
    for perceptual, reconstruction, reached in (
        (None, 0.0, [True, False, False]),
        (Distance(), 0.0, [True, True, False]),
        (None, 1.0, [True, True, True]),
    ):
        task = task_of(
            measured(small(codec="v4")), perceptual, reconstruction=reconstruction, perceptual_steps=[1, 1, 1]
        )
        task.losses(batch(), START)["total"].backward()
        assert [bool(gradient(task, name)) for name in layers] == reached


def test_terms_and_their_weights():
    network, one = measured(small(codec="v4")), batch()
    start, end = (
        task_of(network, Distance(), perceptual=[0.5, 2.0], perceptual_steps=[1.0, 1.0, 1.0]).losses(one, progress)
        for progress in (START, Progress(100, 100))
    )
    assert set(start) == {"total", "mse", "perceptual", "reconstruction"} and start["perceptual"] > 0
    assert (end["total"] - start["total"]).item() == pytest.approx(1.5 * start["perceptual"].item(), rel=1e-3)
    expected = start["mse"] + 0.5 * start["perceptual"] + start["reconstruction"]
    assert start["total"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_perfect_estimate_has_no_perceptual_distance_whatever_the_codec_loses():
    network, one = measured(small(codec="v3")), batch()
    code, x0 = network.encode_lr(one.lr), network.codec.encode(2 * one.hr - 1)[0]
    assert task_of(network, Distance()).distances(x0, x0, code).max() == 0


def test_perceptual_weights_by_thirds_and_their_ramp():
    weights = perceptual_weights(torch.arange(15), 15, DifIISRConfig().perceptual_steps)
    assert weights.tolist() == pytest.approx([1.0] * 5 + [0.1] * 5 + [0.001] * 5)
    assert weights.mean().item() == pytest.approx(0.367, abs=5e-4)
    at = [ramp(DifIISRConfig().perceptual, Progress(step, 100_000)) for step in (0, 50_000, 100_000)]
    assert at == pytest.approx([0.01, 0.08, 0.15])


def test_phases_measure_only_where_nothing_is_known():
    config = Stage2Config(data=SRDataConfig(patch=8), difiisr_dwt=DifIISRConfig(measured_patches=16))
    network = small()
    bands, diffusion = phases(network, config, OptimConfig(ema=0.9), torch.device("cpu"))
    assert (bands.name, bands.data.samples_per_epoch, bands.optim.epochs, bands.optim.ema) == ("bands", 16, 1, 0.0)
    assert diffusion.name == "diffusion" and diffusion.optim.ema == 0.9 and diffusion.data is None
    assert [phase.name for phase in phases(measured(network), config, OptimConfig(), torch.device("cpu"))] == [
        "diffusion"
    ]
    with pytest.raises(UserError, match=r"data\.patch is 6, but .* a multiple of 4; set it to 8"):
        phases(network, replace(config, data=SRDataConfig(patch=6)), OptimConfig(), torch.device("cpu"))
    with pytest.raises(UserError, match="perceptual takes two numbers"):
        phases(
            network, replace(config, difiisr_dwt=DifIISRConfig(perceptual=[1.0])), OptimConfig(), torch.device("cpu")
        )


@pytest.mark.parametrize(
    ("folder", "millions", "steps"), [("difiisr_dwt", 118.788, 150_000), ("difiisr_dwt_small", 0.404, 5_000)]
)
def test_configurations_fit_their_networks(folder, millions, steps):
    config = load_config(Stage2Config, CONFIGS / folder / "stage2_sr_pretrain.yaml")
    with torch.device("meta"):
        network = build_sr(config.sr_quality.name, config.scale, config.sr_quality.args)
    assert round(count_parameters(network) / 1e6, 3) == millions
    assert config.data.patch % network.capabilities.size_multiple == 0
    assert config.data.samples_per_epoch // config.optim_quality.batch * config.optim_quality.epochs == steps


@pytest.fixture
def arguments(tmp_path):
    folder = draw_photographs(tmp_path / "images", size=(64, 64))
    args = "{codec: v4, channels: 8, mult: 1-2, n_blocks: 1, swin_depth: 1, swin_dim: 32, window: 2, steps: 2}"
    return [
        f"--data.train=[{folder}]", f"--data.val=[{folder}]", "--data.patch=8", "--data.samples_per_epoch=8",
        "--scale=4", "--sr_fast.name=bicubic", "--sr_fast.args={}", "--sr_quality.name=difiisr_dwt",
        f"--sr_quality.args={args}", "--optim_quality.batch=4", "--optim_quality.epochs=2",
        "--optim_quality.ema=0.9", "--difiisr_dwt.measured_patches=8", "--run.workers=0", "--run.threads=1",
        "--run.device=cpu", "--run.checkpoint_every=1", "--val_every=2",
    ]  # fmt: skip


def test_a_killed_run_ends_bit_for_bit_as_one_that_was_not(arguments, tmp_path, monkeypatch):
    assert stage2_pretrain_sr.main([*arguments, f"--run.out={tmp_path / 'whole'}"]) == 0
    whole = load_network(tmp_path / "whole" / "sr_quality_pretrained.pth")
    losses, steps = DiffusionTask.losses, []

    def stop(self, batch, progress):
        steps.append(progress.step)
        if len(steps) in (2, 4):  # in the first epoch, and again right after it was taken up
            raise KeyboardInterrupt
        return losses(self, batch, progress)

    monkeypatch.setattr(DiffusionTask, "losses", stop)
    stopped = [*arguments, f"--run.out={tmp_path / 'stopped'}"]
    for extra in ([], ["--run.resume"]):
        with pytest.raises(KeyboardInterrupt):
            stage2_pretrain_sr.main([*stopped, *extra])
    assert stage2_pretrain_sr.main([*stopped, "--run.resume"]) == 0
    assert steps == [0, 1, 1, 2, 2, 3]
    resumed = load_network(tmp_path / "stopped" / "sr_quality_pretrained.pth")
    assert resumed["meta"]["metrics"] == whole["meta"]["metrics"]
    assert all(torch.equal(resumed["weights"][key], value) for key, value in whole["weights"].items())
    assert (whole["weights"]["codec.std"] != 1).all()
    learned = small(codec="v4").codec.resize.down[0].weight
    assert not torch.equal(whole["weights"]["codec.resize.down.0.weight"], learned)  # averaged, and not as at the start
