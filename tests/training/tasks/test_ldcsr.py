"""LDCSR's two phases: losses, whose gradients, what is kept and averaged, resumed in every kind of turn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

import stage2_pretrain_sr
from configs.generative_schema import LDCSRConfig
from configs.schema import NetworkConfig, OptimConfig, RunConfig, Stage2Config
from configs.sr_schema import SRDataConfig, SRLossConfig
from data.sr_batch import SRBatch
from tests.extras import needs_generative
from tests.models.ldcsr.small import WHOLE, small
from training.task import MAIN, Progress
from training.tasks.ldcsr import DISCRIMINATOR, AutoencoderTask, DiffusionTask, drawn, phases
from utils.checkpoint import load_network
from utils.errors import UserError

pytestmark = needs_generative
SETTINGS = LDCSRConfig(gan_start=5, discriminator_channels=4, kl=1e-3)
BEFORE, AFTER = Progress(4, 10), Progress(5, 10)
CPU = torch.device("cpu")


def batch(count: int = 2, lr: int = 12, hr: int = 26) -> SRBatch:
    torch.manual_seed(1)
    keys = [(0, 10 + row) for row in range(count)]
    return SRBatch(torch.rand(count, 3, lr, lr), torch.rand(count, 3, hr, hr), [""] * count, keys)


def autoencoder(**more) -> AutoencoderTask:
    return AutoencoderTask(small(), replace(SETTINGS, **more), 0)


def diffusion(**more) -> DiffusionTask:
    return DiffusionTask(small(), replace(SETTINGS, **more), 0, 2.0)


def moved(task) -> set[str]:
    """Parameters with a gradient that is not 0."""
    return {name for name, p in task.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


def parts(names: set[str]) -> set[str]:
    return {name.split(".")[0] if not name.startswith("network.") else name.split(".")[1] for name in names}


# ------------------------------------------------------------------------------------------------------ phase 1


def test_the_reconstruction_is_summed_over_the_image():
    """L1 of images in [-1, 1] and 0.7 LPIPS at every pixel and colour, the KL divergence per image."""

    class Far(nn.Module):
        def forward(self, sr, hr):
            return torch.full((len(sr),), 0.5)

    images = batch()
    task = AutoencoderTask(small(), SETTINGS, 0, Far(), 0.7)
    losses = task.losses(images, BEFORE)
    up = task.interpolate(images.lr, (26, 26))
    posterior = task.autoencoder.encode(images.hr, up)
    sr = task.autoencoder.decode(drawn(posterior, images, 0), images.lr, up)
    kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).sum() / 2
    expected = 2 * (sr - images.hr).abs().sum() / 2 + 0.7 * 0.5 * 3 * 26 * 26 + 1e-3 * kl
    assert losses["total"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses["kl"].item() == pytest.approx(kl.item(), rel=1e-5) and losses["perceptual"] == 0.5
    assert not [name for name in task.state_dict() if "perceptual" in name]


def test_latents_are_drawn_and_not_the_mean():
    network, images = small(), batch(200, 2, 8)
    with torch.no_grad():
        posterior = network.autoencoder.encode(images.hr, network.interpolate(images.lr, (8, 8)))
        noise = (drawn(posterior, images, 0) - posterior.mean) / posterior.std
    assert noise.mean().abs() < 0.1 and 0.9 < noise.std() < 1.1
    assert not torch.equal(noise[0], noise[1])


def test_latents_can_be_left_out_of_some_images():
    images = batch(40, 6, 16)
    task, whole = autoencoder(latent_dropout=0.5), autoencoder()
    kept = task.kept(images).flatten()
    assert torch.equal(kept, task.kept(images).flatten()) and 8 < kept.sum() < 32
    up = task.interpolate(images.lr, (16, 16))
    some, all_of_them = (each.reconstruct(images, up)[0] for each in (task, whole))
    without = task.autoencoder.decode(torch.zeros(40, 4, 2, 2), images.lr, up)
    assert torch.allclose(some[kept == 1], all_of_them[kept == 1], atol=1e-6)
    assert torch.allclose(some[kept == 0], without[kept == 0], atol=1e-6)


def test_the_discriminator_takes_part_from_its_step_on():
    task = autoencoder()
    assert [task.turns(step) for step in (0, 4, 5, 9)] == [(MAIN,)] * 2 + [(MAIN, DISCRIMINATOR)] * 2
    assert "gan" not in task.losses(batch(), BEFORE) and "gan" in task.losses(batch(), AFTER)


def test_without_a_weight_there_is_no_discriminator():
    task = autoencoder(gan=0.0)
    assert task.discriminator is None and list(task.optimizers(OptimConfig())) == [MAIN]
    assert task.turns(10**6) == (MAIN,)


def test_every_optimiser_has_its_own_parameters():
    task = autoencoder()
    specs = task.optimizers(OptimConfig(lr=1e-3))
    own = {name: {id(p) for group in spec.groups for p in group["params"]} for name, spec in specs.items()}
    assert own[MAIN] == {id(p) for p in task.autoencoder.parameters() if p.requires_grad}
    assert own[DISCRIMINATOR] == {id(p) for p in task.discriminator.parameters()}
    assert all(group["betas"] == (0.5, 0.9) for spec in specs.values() for group in spec.groups)


def test_gradients_of_the_autoencoder():
    task = autoencoder()
    task.losses(batch(), BEFORE)["total"].backward()
    reached = moved(task)
    assert parts(reached) == {"autoencoder"}
    silent = {name for name, _ in task.autoencoder.named_parameters()} - {n.partition(".")[2] for n in reached}
    assert silent == {"decoder.unused"}


def test_the_adversarial_loss_is_half_as_strong_at_the_last_layer():
    task, images = autoencoder(kl=0.0), batch()
    last = task.autoencoder.decoder.upsampler.last.weight
    gradients = [torch.autograd.grad(task.losses(images, at)["total"], last)[0] for at in (BEFORE, AFTER)]
    # BatchNorm follows both calls, but judges by the batch.
    assert (gradients[1] - gradients[0]).norm() / gradients[0].norm() == pytest.approx(0.5, rel=0.02)


def test_gradients_of_the_discriminator():
    task = autoencoder()
    task.losses(batch(), replace(AFTER, turn=DISCRIMINATOR))["total"].backward()
    assert parts(moved(task)) == {"discriminator"}


def test_the_latents_are_given_unit_variance():
    task, batches = autoencoder(), [batch(), batch(3, 10, 24)]
    (name, scale), *others = task.numbers(iter(batches)).items()
    latents = []
    for images in batches:
        up = task.interpolate(images.lr, tuple(images.hr.shape[-2:]))
        latents.append(drawn(task.autoencoder.encode(images.hr, up), images, 0).flatten())
    assert name == "latent_scale" and not others and isinstance(scale, float)
    assert (scale * torch.cat(latents)).std().item() == pytest.approx(1.0, rel=1e-5)


# ------------------------------------------------------------------------------------------------------ phase 2


def test_the_loss_is_that_of_the_whole_chain_and_of_the_guess():
    task, images = diffusion(condition=0.5), batch()
    losses, network = task.losses(images, BEFORE), task.network
    assert losses["total"].item() == pytest.approx((losses["diffusion"] + 0.5 * losses["condition"]).item(), rel=1e-6)
    with torch.no_grad():
        up = network.interpolate(images.lr, (26, 26))
        clean = 2.0 * drawn(network.autoencoder.encode(images.hr, up), images, 0)
        guess = network.condition(2 * up - 1)
    assert losses["condition"].item() == pytest.approx((guess - clean).square().mean().item(), rel=1e-5)
    assert network.latent_scale == 2.0


def test_all_four_steps_have_gradients():
    task = diffusion()
    seen = []
    task.network.unet.register_full_backward_hook(lambda module, inputs, outputs: seen.append(outputs[0].norm()))
    task.losses(batch(), BEFORE)["total"].backward()
    assert len(seen) == 4 and all(norm > 0 for norm in seen)


def test_gradients_reach_condition_network_and_unet_and_nothing_frozen():
    task = diffusion()
    task.losses(batch(), BEFORE)["total"].backward()
    assert parts(moved(task)) == {"unet", "condition"}
    learning = {name for name, p in task.named_parameters() if p.requires_grad}
    assert learning - moved(task) == set()
    own = {id(p) for group in task.optimizers(OptimConfig())[MAIN].groups for p in group["params"]}
    assert own == {id(p) for p in task.parameters() if p.requires_grad}


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_the_guess_learns_through_both_terms(weight: float):
    """Without its own term from the chain alone; and the term changes its gradient."""
    task = diffusion(condition=weight)
    task.losses(batch(), BEFORE)["total"].backward()
    gradient = task.network.condition.body.conv_in.weight.grad.clone()
    task.zero_grad()
    up = task.network.interpolate(batch().lr, (26, 26))
    assert gradient.abs().sum() > 0
    if weight:
        other = diffusion(condition=0.0)
        other.losses(batch(), BEFORE)["total"].backward()
        assert not torch.allclose(gradient, other.network.condition.body.conv_in.weight.grad)
    assert up.grad is None


def test_the_decoded_guess_can_be_trained_too():
    task = diffusion(pixel=3.0)
    losses = task.losses(batch(), BEFORE)
    terms = losses["diffusion"] + losses["condition"] + 3.0 * losses["pixel"]
    assert losses["total"].item() == pytest.approx(terms.item(), rel=1e-6)
    losses["total"].backward()
    assert parts(moved(task)) == {"unet", "condition"}


def test_what_checkpoints_keep_and_what_is_averaged():
    task = diffusion()
    kept = {name for name in task.state_dict() if task.keeps(name)}
    averaged = {name for name in kept if task.averages(name)}
    assert {name.split(".")[1] for name in kept} == {"condition", "unet", "latent_scale"}
    assert averaged == {name for name in kept if name.startswith("network.unet.")}


def test_losses_depend_on_the_samples_and_not_on_their_batch():
    task, images = diffusion(), batch(2)
    rows = [replace(images, lr=images.lr[n : n + 1], hr=images.hr[n : n + 1], keys=images.keys[n : n + 1])
            for n in range(2)]  # fmt: skip
    whole = task.losses(images, BEFORE)["total"]
    assert whole.item() == pytest.approx(sum(task.losses(row, BEFORE)["total"] for row in rows).item() / 2, rel=1e-4)


# ------------------------------------------------------------------------------------------------------ phases


def config(**more) -> Stage2Config:
    settings = {"data": SRDataConfig(patch=24, scales=[1, 1.5]), "run": RunConfig(seed=3), "ldcsr": SETTINGS} | more
    return Stage2Config(sr_quality=NetworkConfig("ldcsr", dict(WHOLE)), **settings)


def test_the_phases_have_their_own_settings():
    optim = OptimConfig(epochs=7, lr=8e-5, weight_decay=0.01, ema=0.999, schedule="step", milestones=[3])
    first, second = phases(small(), config(ldcsr=replace(SETTINGS, hr_patch=64)), optim, CPU)
    assert (first.name, second.name, first.turns, second.turns) == ("autoencoder", "diffusion", True, False)
    assert (first.optim.epochs, first.optim.batch, first.optim.lr, first.optim.ema) == (1000, 4, 1.8e-5, 0.0)
    assert (first.optim.schedule, first.optim.milestones, first.optim.weight_decay) == ("step", [], 0.0)
    assert second.optim is optim and (first.data.hr_patch, second.data.hr_patch) == (0, 64)
    assert first.data.samples_per_epoch == 4000
    task = second.make({"latent_scale": 1.5})
    assert task.network.latent_scale == 1.5
    (only,) = [phase.turns for phase in phases(small(), config(ldcsr=replace(SETTINGS, gan=0.0)), optim, CPU)][:1]
    assert only is False


def test_what_cannot_be_trained_is_said_before():
    with pytest.raises(UserError, match="training needs the encoder"):
        phases(small(oracle=False), config(), OptimConfig(), CPU)
    with pytest.raises(UserError, match="HR patches of 12 pixels are too small for the discriminator"):
        phases(small(), config(data=SRDataConfig(patch=12, scales=[1, 2])), OptimConfig(), CPU)
    with pytest.raises(UserError, match="no weights of LPIPS are named"):
        phases(small(), config(loss=SRLossConfig(perceptual=1.0)), OptimConfig(), CPU)


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    (tmp_path / "images").mkdir()
    for number in range(3):
        image = np.random.default_rng(number).integers(0, 255, (48, 48, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), image)
    network = ", ".join(f"{key}: {value}" for key, value in WHOLE.items())
    return [
        f"--data.train=[{tmp_path / 'images'}]", "--data.patch=24", "--data.scales=[1, 1.5]", "--scale=2",
        "--data.samples_per_epoch=4", "--sr_fast.name=bicubic", "--sr_fast.args={}", "--sr_quality.name=ldcsr",
        f"--sr_quality.args={{{network}}}", "--optim_quality.epochs=1", "--optim_quality.batch=2",
        "--optim_quality.ema=0.5", "--optim_quality.warmup=0", "--ldcsr.epochs=1", "--ldcsr.samples_per_epoch=4",
        "--ldcsr.batch=2", "--ldcsr.gan_start=1", "--ldcsr.discriminator_channels=4", "--ldcsr.hr_patch=32",
        "--ldcsr.lr=0.01", "--run.workers=0", "--run.threads=1", "--run.device=cpu", "--run.checkpoint_every=1",
    ]  # fmt: skip


def test_a_run_stopped_in_any_turn_ends_as_one_that_was_not(arguments, tmp_path, monkeypatch):
    """Autoencoder: step 1 of one turn, step 2 of two; then two steps of the diffusion. Stopped in each."""
    assert stage2_pretrain_sr.main([*arguments, f"--run.out={tmp_path / 'whole'}"]) == 0
    whole, turns = load_network(tmp_path / "whole" / "sr_quality_pretrained.pth"), []

    def stopping(losses, last):
        def counted(self, batch, progress):
            turns.append(progress.turn)
            if len(turns) == last:
                raise KeyboardInterrupt
            return losses(self, batch, progress)

        return counted

    stopped = [*arguments, f"--run.out={tmp_path / 'stopped'}", "--run.resume"]
    for expected in ([MAIN, MAIN], [MAIN, DISCRIMINATOR], [MAIN, DISCRIMINATOR, MAIN, MAIN]):
        turns.clear()
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            for task in (AutoencoderTask, DiffusionTask):
                patch.setattr(task, "losses", stopping(task.losses, len(expected)))
            stage2_pretrain_sr.main(stopped)
        assert turns == expected
    assert stage2_pretrain_sr.main(stopped) == 0
    resumed = load_network(tmp_path / "stopped" / "sr_quality_pretrained.pth")
    assert all(torch.equal(resumed["weights"][key], value) for key, value in whole["weights"].items())
    assert whole["weights"]["latent_scale"] != 1
