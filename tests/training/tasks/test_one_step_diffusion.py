"""How one-step diffusion is trained: turns, what learns and what is kept, averages, resuming, phases, one image."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset

from configs.generative_schema import OneStepConfig
from configs.schema import NetworkConfig, OptimConfig, RunConfig, Stage2Config
from data.sr_batch import SRBatch
from loading.published_weights import drawn_image
from models.one_step_diffusion.discriminator import MultiLevelDiscriminator, level_loss
from models.one_step_diffusion.parts import is_lora
from tests.extras import needs_generative
from tests.models.one_step_diffusion.small import small_network
from tests.training.tiny_gan import Memory
from training.gradient_checkpointing import checkpoint_blocks
from training.processes import make_accelerator
from training.task import Progress
from training.tasks.one_step_diffusion import (
    AdversarialTask,
    AutoencoderTask,
    PreRemovalTask,
    phases,
    posterior_noise,
)
from training.trainer import Trainer
from training.training_data import TrainingData
from utils.errors import UserError

pytestmark = needs_generative

OPTIM = OptimConfig(epochs=1, batch=2, lr=1e-3, warmup=0, weight_decay=0.01, clip_norm=1.0, ema=0.9)
RUN = RunConfig(device="cpu", workers=0, threads=1, checkpoint_every=1, log_every=1)
TINY = {"channels": 16, "cross": 16, "vae_channels": 8}
WEIGHTS = OneStepConfig(lpips=0.0, adversarial=0.5)
G, D = "generator", "discriminator"


class TinyBackbone(nn.Module):
    """Three maps and a vector, of random convolutions."""

    map_channels, vector_width = (4, 6, 8), 8

    def __init__(self):
        super().__init__()
        widths = (3, *self.map_channels)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(widths))
        self.requires_grad_(False)

    def forward(self, images):
        levels = []
        for layer in self.layers:
            images = layer(images).relu()
            levels.append(images)
        return [*levels, images.mean((2, 3))]


class Waves(Dataset):
    """HR image `index` is a wave of its own; 32 pixels."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, tuple[int, int]]:
        x = torch.linspace(0, 6, 32)
        wave = 0.5 + 0.4 * torch.sin(x + key[1]) * torch.cos(2 * x[:, None] - key[1])
        return torch.stack((wave, wave.flip(0), wave.flip(1))), key


def collate(samples: list) -> SRBatch:
    hr = torch.stack([image for image, _ in samples])
    keys = [key for _, key in samples]
    return SRBatch(F.avg_pool2d(hr, 4), hr, [f"{index}.png" for _, index in keys], keys)


def adversarial_task(weights: OneStepConfig = WEIGHTS) -> AdversarialTask:
    network = small_network(**TINY)
    torch.manual_seed(3)
    return AdversarialTask(network, weights, MultiLevelDiscriminator(TinyBackbone()), None, seed=0)


def make_trainer(task, folder: Path, optim: OptimConfig = OPTIM) -> Trainer:
    accelerator = make_accelerator(RUN, some_get_no_gradient=True)
    return Trainer("one step", task, TrainingData(Waves(), collate), optim, RUN, folder, Memory(), accelerator)


def batch_of(*indices: int) -> SRBatch:
    return collate([Waves()[0, index] for index in indices])


def state_of(task) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in task.state_dict().items()}


def changed(before: dict, after: dict) -> set[str]:
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


# Turns


def test_generator_and_discriminator_learn_in_turn_on_batches_of_their_own(tmp_path: Path):
    task, seen = adversarial_task(), []
    losses = task.losses

    def noted(batch, progress):
        seen.append((progress.step, progress.turn, tuple(batch.files)))
        return losses(batch, progress)

    task.losses = noted
    make_trainer(task, tmp_path).fit()
    assert [(step, turn) for step, turn, _ in seen] == [(step, (G, D)[step % 2]) for step in range(4)]
    assert len({files for _, _, files in seen}) == 4


def test_a_step_of_the_generator_moves_the_additions_alone_and_one_of_the_discriminator_its_heads(tmp_path: Path):
    task = adversarial_task()
    trainer = make_trainer(task, tmp_path)
    states = [state_of(task)]
    for step in range(2):
        trainer.task.train()
        batches = iter([batch_of(2 * step, 2 * step + 1)])
        trainer.optimise(batches, 0)
        trainer.step += 1
        states.append(state_of(task))
    first, second = changed(states[0], states[1]), changed(states[1], states[2])
    assert first and all(is_lora(name) for name in first), "nothing of the heads, no statistics of theirs either"
    assert second and all(name.startswith("discriminator.heads.") for name in second)
    assert any(name.endswith("._u") for name in second), "power iterations are made in the discriminator's steps"
    assert {name for name in states[0] if name.startswith("discriminator.") and "bias" in name} <= second


def test_the_discriminator_is_frozen_but_passes_gradients_in_the_generators_step():
    task = adversarial_task().train()
    for name, parameter in task.named_parameters():
        if name.startswith("discriminator."):
            parameter.requires_grad_(False)
    loss = task.losses(batch_of(0, 1), Progress(0, 8, G))
    assert not task.discriminator.training
    loss["total"].backward()
    reached = {name for name, p in task.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert reached and all(".lora_B." in name for name in reached)
    task.losses(batch_of(0, 1), Progress(1, 8, D))
    assert task.discriminator.training


def test_the_generators_loss_has_its_weights():
    class Distance(nn.Module):
        def forward(self, image, reference):
            assert image.shape == reference.shape
            return (image - reference).abs().mean((1, 2, 3))

    weights = OneStepConfig(mse=2.0, lpips=5.0, adversarial=0.25, g_target=1.0)
    task, batch = adversarial_task(weights), batch_of(0, 1)
    task.perceptual = (Distance(),)
    task.discriminator.eval()
    with torch.no_grad():
        image = task.restored(batch)
        terms = task.generator_losses(image, batch)
        hr = 2 * batch.hr - 1
        adversarial = level_loss(task.discriminator(image), 1.0)
        expected = 2 * F.mse_loss(image, hr) + 5 * ((image - hr) / 2).abs().mean() + 0.25 * adversarial
    torch.testing.assert_close(terms["total"], expected)
    assert terms.keys() == {"total", "mse", "lpips", "adversarial", "made"}


def test_the_discriminator_sees_real_and_made_images_in_one_range():
    task, batch, seen = adversarial_task(), batch_of(0, 1), []
    task.discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    task.losses(batch, Progress(1, 8, D))
    torch.testing.assert_close(seen[0], 2 * batch.hr - 1)
    torch.testing.assert_close(seen[1], task.restored(batch))
    assert len(seen) == 2 and not seen[1].requires_grad


def test_without_a_discriminator_the_generator_learns_in_every_step():
    task = AdversarialTask(small_network(**TINY), replace(WEIGHTS, adversarial=0.0), None, None, 0)
    assert [task.turns(step) for step in range(3)] == [(G,)] * 3 and task.optimizers(OPTIM).keys() == {G}
    assert task.losses(batch_of(0, 1), Progress(0, 3, G)).keys() == {"total", "mse"}


def test_both_optimisers_have_the_published_settings():
    specs = adversarial_task().optimizers(OPTIM)
    assert specs.keys() == {G, D}
    for spec in specs.values():
        assert all(group["betas"] == (0.9, 0.999) for group in spec.groups) and spec.settings is OPTIM
    learning = [p for group in specs[G].groups for p in group["params"]]
    assert len(learning) == 144 and all(p.dtype == torch.float32 for p in learning)


# State


def test_checkpoints_hold_the_additions_and_the_heads_and_the_average_only_the_additions(tmp_path: Path):
    task = adversarial_task()
    trainer = make_trainer(task, tmp_path)
    fresh = state_of(task)
    trainer.fit()
    payload, _ = trainer.state.load_newest()
    lora = {name for name in fresh if is_lora(name)}
    assert len(lora) == 144
    assert set(payload["model"]) == lora | {name for name in fresh if name.startswith("discriminator.heads.")}
    assert set(payload["ema"]["shadow"]) == lora and set(payload["optimizers"]) == {G, D}
    states = payload["optimizers"][G]["state"]
    assert len(states) == 144
    after = state_of(task)
    assert changed(fresh, after) <= set(payload["model"])
    assert all(torch.equal(after[name], payload["ema"]["shadow"][name]) for name in lora), "in the end the average"
    assert any(not torch.equal(payload["model"][name], after[name]) for name in lora)


def test_the_average_follows_the_additions(tmp_path: Path):
    task = adversarial_task()
    trainer = make_trainer(task, tmp_path)
    name = next(name for name, p in task.named_parameters() if ".lora_B." in name)
    expected, update = {}, trainer.ema.update

    def followed(model):
        update(model)
        decay = min(0.9, (1 + trainer.ema.updates) / (10 + trainer.ema.updates))
        last = expected.get("value", torch.zeros_like(model.state_dict()[name]))
        expected["value"] = decay * last + (1 - decay) * model.state_dict()[name]

    trainer.ema.update = followed
    trainer.fit()
    torch.testing.assert_close(task.state_dict()[name], expected["value"])
    assert expected["value"].abs().max() > 0


@pytest.mark.parametrize("steps", [1, 2], ids=["after-the-generator", "after-the-discriminator"])
def test_killed_after_either_turn_it_goes_on_bit_for_bit(tmp_path: Path, steps: int):
    whole = make_trainer(adversarial_task(), tmp_path / "whole")
    whole.fit()
    killed = make_trainer(adversarial_task(), tmp_path / "killed")
    save = killed.save

    def save_and_stop():
        save()
        if killed.step == steps:
            raise KeyboardInterrupt

    killed.save = save_and_stop
    with pytest.raises(KeyboardInterrupt):
        killed.fit()
    again = make_trainer(adversarial_task(), tmp_path / "killed")
    assert again.restore() == steps
    again.fit()
    assert not changed(state_of(whole.task), state_of(again.task))
    assert again.log.rows == whole.log.rows[-len(again.log.rows) :]


def test_noise_of_the_posterior_is_a_pure_function_of_the_sample():
    like = torch.empty(2, 4, 3, 5)
    first = posterior_noise(like, batch_of(1, 6), 0)
    assert torch.equal(posterior_noise(like, batch_of(6, 1), 0), first.flip(0))
    assert not torch.equal(posterior_noise(like, batch_of(1, 6), 1), first)
    many = posterior_noise(torch.empty(2, 4, 64, 64), batch_of(1, 6), 0)
    assert abs(many.mean().item()) < 0.03 and many.std().item() == pytest.approx(1, abs=0.03)


def test_gradient_checkpointing_changes_nothing():
    gradients = []
    for recompute in (False, True):
        task = adversarial_task().train()
        if recompute:
            assert checkpoint_blocks(task.network) > 0
            assert task.network.unet.is_gradient_checkpointing and task.network.vae.is_gradient_checkpointing
        task.losses(batch_of(0, 1), Progress(0, 8, G))["total"].backward()
        gradients.append({name: p.grad for name, p in task.named_parameters() if ".lora_B." in name})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4)


# Phases


def configured(**own) -> Stage2Config:
    network = NetworkConfig("one_step_diffusion", TINY)
    defaults = {"lpips": 0.0, "backbone": "convnext_atto"}
    return Stage2Config(sr_quality=network, one_step=OneStepConfig(**defaults | own))


def test_phases_follow_each_other_and_hand_on_the_scale_of_the_latents(tmp_path: Path):
    network = small_network(**TINY)
    config = configured(autoencoder_epochs=3, pre_removal_epochs=1, autoencoder_lr=5e-3)
    found = phases(network, config, OPTIM, torch.device("cpu"))
    assert [phase.name for phase in found] == ["autoencoder", "pre_removal", "adversarial"]
    assert [phase.optim.epochs for phase in found] == [3, 1, 1] and [phase.turns for phase in found] == [0, 0, 1]
    assert [phase.optim.lr for phase in found] == [5e-3, 5e-3, 1e-3]
    before, tasks = state_of(network), [found[0].make({})]
    numbers = make_trainer(tasks[0], tmp_path / "first", found[0].optim).fit()
    after = state_of(network)
    assert changed(before, after) == {name for name in before if name.startswith("vae.")}
    with torch.no_grad():
        latents = [network.vae.encode(2 * Waves()[0, k][0][None] - 1).latent_dist.mean for k in range(8)]
    assert 1 / torch.cat(latents).std().item() == pytest.approx(numbers["latent_scale"], rel=1e-4)
    tasks.append(found[1].make(numbers))
    assert network.latent_scale.item() == pytest.approx(numbers["latent_scale"])
    before = state_of(network)
    make_trainer(tasks[1], tmp_path / "second", found[1].optim).fit()
    moved = changed(before, state_of(network))
    assert moved and all(name.startswith(("vae.encoder.", "vae.quant_conv.")) for name in moved)
    assert isinstance(tasks[0], AutoencoderTask) and isinstance(tasks[1], PreRemovalTask)
    found[2].make(numbers)
    assert all(is_lora(name) == p.requires_grad for name, p in network.named_parameters())


def test_phases_that_do_not_fit_the_weights_are_refused():
    network = copy.copy(small_network(**TINY))
    network.preset = "sd2"
    with pytest.raises(UserError, match="autoencoder_epochs: preset sd2 has a trained autoencoder"):
        phases(network, configured(autoencoder_epochs=1), OPTIM, torch.device("cpu"))
    with pytest.raises(UserError, match=r"pre_removal_epochs: .* add own_encoder: true"):
        phases(network, configured(pre_removal_epochs=1), OPTIM, torch.device("cpu"))
    network.own_encoder = True
    assert len(phases(network, configured(pre_removal_epochs=1), OPTIM, torch.device("cpu"))) == 2
    with pytest.raises(UserError, match="no weights of LPIPS are named"):
        phases(small_network(**TINY), configured(lpips=1.0), OPTIM, torch.device("cpu"))[-1].make({})


# One image


def fit(task, batch: SRBatch, steps: int, lr: float) -> list[float]:
    """The first optimiser of a task on one batch again and again; its losses."""
    name, spec = next(iter(task.optimizers(replace(OPTIM, lr=lr, weight_decay=0.0)).items()))
    adam = torch.optim.AdamW(spec.groups)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps, lr / 50)
    found, learning = [], [p for group in spec.groups for p in group["params"]]
    task.train()
    for step in range(steps):
        loss = task.losses(replace(batch, keys=[(step, 0)]), Progress(step, steps, name))["total"]
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learning, 1.0)
        adam.step()
        falling.step()
        found.append(loss.item())
    task.eval()
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_image_is_overfitted():
    """First by the autoencoder, then, from the LR version that it has not seen, by the additions."""
    hr = torch.from_numpy(drawn_image()).permute(2, 0, 1)[None, :, :64, :64].contiguous()
    lr = F.interpolate(hr, scale_factor=0.25, mode="bicubic", antialias=True).clamp(0, 1)
    network, batch = small_network(), SRBatch(lr, hr, ["drawn"], [(0, 0)])

    def psnr() -> float:
        with torch.no_grad():
            return -10 * math.log10(F.mse_loss(network.eval()(lr).clamp(0, 1), hr).item())

    task = AutoencoderTask(network, 0)
    losses = fit(task, batch, 500, 4e-3)
    assert losses[-1] < losses[0] / 10
    with torch.no_grad():
        network.latent_scale.fill_(task.numbers([batch])["latent_scale"])
    before = psnr()
    losses = fit(AdversarialTask(network, replace(WEIGHTS, adversarial=0.0), None, None, 0), batch, 200, 1e-2)
    print(f"one image: {before:.2f} dB before and {psnr():.2f} dB after the additions have learnt")
    assert min(losses) < losses[0] and psnr() > max(30, before)
