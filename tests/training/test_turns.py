"""Several optimisers that take turns: who learns when, what is saved and averaged, resuming, stopping, processes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.training.tiny_gan import OPTIM, RUN, Images, RandomImages, TinyGAN, collate, make_trainer, networks
from training.loss_terms import NonFiniteError
from training.task import Progress
from training.trainer import Trainer
from utils.checkpoint import CheckpointError
from utils.optimizer_utils import learning_rate_factor

ROOT = Path(__file__).resolve().parents[2]
STEPS = 12  # 3 epochs of 4
both_ways = pytest.mark.parametrize("same_batch", [True, False], ids=["same-batch", "in-turns"])


def trained_by_hand(same_batch: bool) -> tuple[nn.Module, nn.Module, dict[str, torch.Tensor]]:
    """Generator, discriminator and averaged generator by a plain PyTorch loop."""
    task = TinyGAN(same_batch)
    parts = {"generator": task.generator, "discriminator": task.discriminator}
    rates = {"generator": OPTIM.lr, "discriminator": OPTIM.lr / 4}
    adams = {name: torch.optim.AdamW(part.parameters(), rates[name], (0.5, 0.9), weight_decay=0.0)
             for name, part in parts.items()}  # fmt: skip
    average = {name: value.clone() for name, value in task.generator.state_dict().items()}
    sampler = make_trainer(TinyGAN(same_batch), Path("unused")).sampler
    for step in range(STEPS):
        epoch, place = divmod(step, 4)
        keys = list(sampler(epoch, 0))[2 * place : 2 * place + 2]
        batches = [collate([RandomImages()[key] for key in part]) for part in keys]
        for name in task.turns(step):
            factor = learning_rate_factor(step, STEPS, 2, OPTIM.lr_final) if name == "generator" else 0.5 ** (epoch > 0)
            adams[name].param_groups[0]["lr"] = rates[name] * factor
            task.zero_grad()
            for batch in batches:
                (task.losses(batch, Progress(step, STEPS, name))["total"] / 2).backward()
            if name == "generator":
                torch.nn.utils.clip_grad_norm_(task.generator.parameters(), OPTIM.clip_norm)
            adams[name].step()
        decay = min(OPTIM.ema, (2 + step) / (11 + step))
        for name, value in task.generator.state_dict().items():
            average[name].lerp_(value, 1 - decay)
    return task.generator, task.discriminator, average


@both_ways
def test_it_is_the_plain_loop_of_a_gan(tmp_path: Path, same_batch: bool):
    trainer = make_trainer(TinyGAN(same_batch), tmp_path)
    trainer.fit()
    generator, discriminator, average = trained_by_hand(same_batch)
    payload, _ = trainer.state.load_newest()
    for name, value in generator.state_dict().items():
        torch.testing.assert_close(payload["model"][f"generator.{name}"], value, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(trainer.task.generator.state_dict()[name], average[name], rtol=1e-4, atol=1e-6)
    for name, value in discriminator.state_dict().items():
        torch.testing.assert_close(trainer.task.discriminator.state_dict()[name], value, rtol=1e-4, atol=1e-6)
    for part, at_first in zip((generator, discriminator), networks(), strict=True):
        assert (part[0].weight - at_first[0].weight).abs().max() > 1e-3, "nothing would be compared"


@both_ways
def test_only_those_whose_turn_it_is_get_gradients(tmp_path: Path, same_batch: bool):
    task = TinyGAN(same_batch)
    trainer, seen, losses = make_trainer(task, tmp_path), [], task.losses

    def noted(batch: Images, progress: Progress):
        learning = {name.split(".")[0] for name, p in task.named_parameters() if p.requires_grad}
        seen.append((progress.step, progress.turn, learning, id(batch)))
        return losses(batch, progress)

    task.losses = noted
    for name, parameter in task.named_parameters():
        part = name.split(".")[0]
        parameter.register_hook(lambda gradient, part=part: seen.append(part))
    trainer.fit()
    calls = [entry for entry in seen if isinstance(entry, tuple)]
    assert all(learning == {turn} for _, turn, learning, _ in calls)
    turn = None
    for entry in seen:
        turn = entry[1] if isinstance(entry, tuple) else turn
        assert isinstance(entry, tuple) or entry == turn, "a gradient of a resting part was computed"
    assert seen.count("generator") and seen.count("discriminator")
    assert all(p.requires_grad and p.grad is None for p in task.parameters())
    by_step = [[call for call in calls if call[0] == step] for step in range(STEPS)]
    for step, made in enumerate(by_step):
        assert [call[1] for call in made] == [name for name in task.turns(step) for _ in range(2)]
        if same_batch:
            assert [call[3] for call in made[:2]] == [call[3] for call in made[2:]], "the same batches in both turns"


def test_each_optimiser_follows_its_own_schedule(tmp_path: Path):
    trainer = make_trainer(TinyGAN(True), tmp_path)
    trainer.fit()
    rows = [row for row, _ in trainer.log.rows if "lr/generator" in row]
    assert [row["lr/discriminator"] for row in rows] == pytest.approx([OPTIM.lr / 4] * 4 + [OPTIM.lr / 8] * 8)
    expected = [OPTIM.lr * learning_rate_factor(step, STEPS, 2, OPTIM.lr_final) for step in range(STEPS)]
    assert [row["lr/generator"] for row in rows] == pytest.approx(expected)
    names = {"generator/total", "generator/l1", "generator/fooled", "discriminator/total", "discriminator/real"}
    assert {name for name in rows[0] if name.startswith("train/")} == {f"train/{name}" for name in names}


def test_only_the_generator_is_averaged(tmp_path: Path):
    trainer = make_trainer(TinyGAN(True), tmp_path)
    trainer.fit()
    payload, _ = trainer.state.load_newest()
    assert set(payload["model"]) == set(trainer.task.state_dict())
    assert set(payload["ema"]["shadow"]) == {name for name in payload["model"] if name.startswith("generator.")}
    assert set(payload["optimizers"]) == {"generator", "discriminator"}
    for name, value in trainer.task.state_dict().items():
        assert torch.equal(value, payload["model"][name]) == name.startswith("discriminator."), name


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    ("same_batch", "step", "turn"),
    [(True, 5, "generator"), (True, 5, "discriminator"), (False, 4, "generator"), (False, 5, "discriminator")],
)
def test_killed_in_either_turn_it_goes_on_bit_for_bit(tmp_path: Path, same_batch: bool, step: int, turn: str):
    task = TinyGAN(same_batch)
    whole = make_trainer(TinyGAN(same_batch), tmp_path / "whole")
    whole.fit()
    losses = task.losses

    def killing(batch: Images, progress: Progress):
        if (progress.step, progress.turn) == (step, turn):
            raise Killed
        return losses(batch, progress)

    task.losses = killing
    with pytest.raises(Killed):
        make_trainer(task, tmp_path / "killed").fit()
    again = make_trainer(TinyGAN(same_batch), tmp_path / "killed")
    assert again.restore() == step
    again.fit()
    for name, value in whole.task.state_dict().items():
        assert torch.equal(value, again.task.state_dict()[name]), name
    states = [trainer.state.load_newest()[0] for trainer in (whole, again)]
    assert flat(states[0]) == flat(states[1])
    assert again.log.rows == whole.log.rows[-len(again.log.rows) :]


def flat(value) -> list:
    """Everything in a payload, tensors as lists."""
    if isinstance(value, dict):
        return [(key, flat(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [flat(item) for item in value]
    return value.tolist() if isinstance(value, torch.Tensor) else value


@both_ways
def test_nan_stops_before_the_update_and_names_the_turn(tmp_path: Path, same_batch: bool):
    trainer = make_trainer(TinyGAN(same_batch, poison=5), tmp_path)
    with pytest.raises(NonFiniteError, match=r"total=nan at step 6 \(epoch 2, turn of discriminator\)"):
        trainer.fit()
    assert all(torch.isfinite(value).all() for value in trainer.task.state_dict().values())
    again = make_trainer(TinyGAN(same_batch), tmp_path)
    assert again.restore() == 5
    now, then = trainer.task.discriminator.state_dict(), again.task.discriminator.state_dict()
    assert all(torch.equal(now[name], then[name]) for name in now), "the bad turn changed weights"


def test_checkpoints_of_another_task_are_refused(tmp_path: Path):
    make_trainer(TinyGAN(True), tmp_path).fit()

    class OneNetwork(TinyGAN):
        def optimizers(self, optim):
            return {"generator": super().optimizers(optim)["generator"]}

        def turns(self, step):
            return ("generator",)

    with pytest.raises(CheckpointError, match=r"last\.pth: has optimisers \['discriminator', 'generator'\], not"):
        make_trainer(OneNetwork(True), tmp_path).restore()

    class OtherNetwork(TinyGAN):
        def __init__(self):
            super().__init__(True)
            self.more = nn.Linear(1, 1)

    with pytest.raises(CheckpointError, match=r"2 tensors are missing or unknown \(more\.bias\); it was written by"):
        make_trainer(OtherNetwork(), tmp_path).restore()


def test_processes_have_to_look_for_weights_without_gradient(tmp_path: Path, monkeypatch):
    trainer = make_trainer(TinyGAN(True), tmp_path)
    accelerator = trainer.accelerator
    monkeypatch.setattr(type(accelerator), "num_processes", 2)
    monkeypatch.setattr(accelerator.ddp_handler, "find_unused_parameters", False)
    with pytest.raises(ValueError, match="some_get_no_gradient=True"):
        Trainer("tiny", TinyGAN(True), trainer.data, OPTIM, RUN, tmp_path, trainer.log, accelerator)


@pytest.mark.slow
@both_ways
def test_two_processes_follow_one(tmp_path: Path, same_batch: bool):
    found = {}
    for processes in (1, 2):
        out = tmp_path / str(processes)
        result = subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}",
             "-m", "tests.training.tiny_gan", str(out), "both" if same_batch else "turns"],
            cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert result.returncode == 0, result.stdout + result.stderr
        found[processes] = json.loads((out / "losses.json").read_text())
    assert len(found[1]["rows"]) == STEPS
    for one, two in zip(found[1]["rows"], found[2]["rows"], strict=True):
        assert one == pytest.approx(two, abs=1e-5)
    for one, two in zip(found[1]["weights"], found[2]["weights"], strict=True):
        assert one == pytest.approx(two, abs=1e-5)
    assert all(math.isfinite(value) for row in found[1]["rows"] for value in row.values())


def test_longer_and_shorter_trainings_go_on_from_where_they_are(tmp_path: Path, capsys):
    """The schedule is that of the new length from the step on at which the run was resumed."""
    short = make_trainer(TinyGAN(True), tmp_path)
    short.fit()
    longer = make_trainer(TinyGAN(True), tmp_path, replace(OPTIM, epochs=5))
    assert longer.restore() == STEPS
    longer.fit()
    rates = [row["lr/generator"] for row, _ in longer.log.rows if "lr/generator" in row]
    expected = [OPTIM.lr * learning_rate_factor(step, 20, 2, OPTIM.lr_final) for step in range(STEPS, 20)]
    assert rates == pytest.approx(expected) and longer.epochs_made == 5
    shorter = make_trainer(TinyGAN(True), tmp_path, replace(OPTIM, epochs=4))
    assert shorter.restore() == 20
    assert "20 steps are made, more than 4 epochs have" in capsys.readouterr().out
    shorter.fit()
    assert shorter.log.rows == [] and shorter.epochs_made == 5
    for name, value in longer.task.state_dict().items():
        assert torch.equal(value, shorter.task.state_dict()[name]), name
