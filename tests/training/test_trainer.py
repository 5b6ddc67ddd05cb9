"""The training loop on a network of two numbers: steps, averaging, stopping before damage."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, Dataset

from configs.schema import OptimConfig, RunConfig
from training.ema import ModelEMA
from training.loss_terms import LossSums, NonFiniteError, shown
from training.processes import make_accelerator, micro_batches
from training.task import MAIN, OptimizerSpec, Progress, Task
from training.trainer import Trainer
from training.training_data import TrainingData
from utils.optimizer_utils import decay_groups, learning_rate_factor, stepped_factor

OPTIM = OptimConfig(epochs=2, batch=4, lr=0.1, warmup=1, clip_norm=10.0)
RUN = RunConfig(device="cpu", workers=0, checkpoint_every=1, log_every=1)


@dataclass
class Points:
    x: torch.Tensor
    files: list[str]

    def to(self, device: torch.device) -> Points:
        return Points(self.x.to(device), self.files)


class Line(Dataset):
    """Sample i is the number i; sample `poison` of epoch 1 is NaN."""

    def __init__(self, length: int, poison: int | None = None):
        self.length, self.poison = length, poison

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> tuple[float, str]:
        epoch, index = key
        return (float("nan") if epoch == 1 and index == self.poison else float(index)), f"{index}.png"


def collate(samples: list[tuple[float, str]]) -> Points:
    return Points(torch.tensor([x for x, _ in samples]), [name for _, name in samples])


class Fit(Task):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 1))

    def optimizers(self, optim: OptimConfig) -> dict[str, OptimizerSpec]:
        return {MAIN: OptimizerSpec(decay_groups("line", self.parameters(), optim.lr, optim.weight_decay), optim)}

    def losses(self, batch: Points, progress: Progress) -> dict[str, torch.Tensor]:
        error = (self.weight[0] * batch.x + self.weight[1] - (2 * batch.x + 1)).square().mean()
        return {"total": error, "error": error.detach()}


class Memory:
    """Log that remembers."""

    def __init__(self):
        self.rows: list[tuple[dict, int]] = []

    def scalars(self, values: dict, step: int) -> None:
        self.rows.append((values, step))


def make_trainer(folder: Path, optim: OptimConfig = OPTIM, poison: int | None = None) -> Trainer:
    data = TrainingData(Line(8, poison), collate)
    return Trainer("test", Fit(), data, optim, RUN, folder, Memory(), Accelerator(cpu=True))


def test_makes_every_step_and_lowers_the_loss(tmp_path: Path):
    trainer = make_trainer(tmp_path, replace(OPTIM, epochs=40))
    trainer.fit()
    losses = [row["train/error"] for row, _ in trainer.log.rows if "train/error" in row]
    assert trainer.step == len(losses) == 80
    assert losses[-1] < 0.2 * losses[0]


def test_log_means_are_over_the_steps_that_had_the_loss():
    window = LossSums()
    for losses in ({"total": 1.0, "a": 2.0}, {"total": 3.0, "b": 5.0}, {"total": 5.0, "a": 4.0}):
        window.add(losses)
    assert window.flush() == {"total": 3.0, "a": 3.0, "b": 5.0}
    assert window.flush() == {}


def test_state_of_an_older_version_is_taken_up(tmp_path: Path):
    trainer = make_trainer(tmp_path)
    trainer.window = LossSums({"total": 2}, {"total": 6.0})
    trainer.save()
    payload, _ = trainer.state.load_newest()
    del payload["window_counts"]
    trainer.state.save(payload | {"window_steps": 2})
    again = make_trainer(tmp_path)
    again.restore()
    assert again.window == trainer.window


def test_micro_batches_do_not_change_the_result(tmp_path: Path):
    whole, split = make_trainer(tmp_path / "a"), make_trainer(tmp_path / "b", replace(OPTIM, micro_batch=2))
    whole.fit()
    split.fit()
    torch.testing.assert_close(whole.task.weight, split.task.weight)


def test_the_gradient_is_that_of_the_mean_over_micro_batches(tmp_path: Path):
    """Which AdamW, blind to its scale, would hide: the norms before clipping tell."""

    def norms(name: str, micro_batch: int) -> list[float]:
        trainer, found = make_trainer(tmp_path / name, replace(OPTIM, micro_batch=micro_batch)), []
        turn = trainer.optimizers[MAIN]
        clip = turn.clip
        turn.clip = lambda: found.append(clip()) or found[-1]
        trainer.fit()
        return [norm.item() for norm in found]

    whole = norms("whole", 4)
    assert len(whole) == 4 and min(whole) > 1
    assert norms("halves", 2) == pytest.approx(whole, rel=1e-4) == norms("single", 1)


def test_nan_stops_before_the_step_and_names_everything(tmp_path: Path):
    trainer = make_trainer(tmp_path, poison=5)
    with pytest.raises(NonFiniteError) as error:
        trainer.fit()
    assert torch.isfinite(trainer.task.weight).all()
    message = str(error.value)
    assert "test" in message and "total=nan" in message and "5.png" in message and "epoch 2" in message
    step = int(message.split("step ")[1].split()[0])
    assert step == trainer.step + 1
    again = make_trainer(tmp_path)
    again.restore()
    assert torch.equal(again.task.weight, trainer.task.weight), "weights were changed by the bad step"


def test_infinite_gradient_stops(tmp_path: Path):
    trainer = make_trainer(tmp_path)
    trainer.task.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(NonFiniteError, match="gradient norm"):
        trainer.fit()
    assert torch.equal(trainer.task.weight, torch.zeros(2, 1))


def test_batch_must_split_evenly():
    assert micro_batches(replace(OPTIM, batch=8, micro_batch=2), 2) == (2, 2)
    with pytest.raises(ValueError, match=r"optim\.batch=8 must be a multiple of optim\.micro_batch=3"):
        micro_batches(replace(OPTIM, batch=8, micro_batch=3), 1)


def test_fp16_without_cuda_is_refused():
    with pytest.raises(ValueError, match="fp16 needs CUDA"):
        make_accelerator(replace(RUN, precision="fp16"))


def test_learning_rate_rises_then_falls():
    factors = [learning_rate_factor(step, 100, 10, 0.05) for step in range(100)]
    assert factors[0] == pytest.approx(0.1) and factors[9] == 1.0
    assert factors[-1] == pytest.approx(0.05)
    assert all(a >= b for a, b in itertools.pairwise(factors[10:]))
    quarter = 0.05 + 0.95 * (1 + 0.5**0.5) / 2  # of the cosine from 1 to 0.05, after 20 of 80 steps
    assert learning_rate_factor(20, 81, 0, 0.05) == pytest.approx(quarter)


def test_ema_follows_its_formula():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    ema, expected = ModelEMA(model, 0.9), 0.0
    for n in range(1, 40):
        nn.init.constant_(model.weight, float(n))
        ema.update(model)
        decay = min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * n
    assert ema.shadow["weight"].item() == pytest.approx(expected, rel=1e-5)
    with ema.applied(model):
        assert model.weight.item() == pytest.approx(expected, rel=1e-5)
    assert model.weight.item() == 39


def test_stepped_learning_rate():
    factors = [stepped_factor(step, 10, 4, [2, 3], 0.5) for step in range(50)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factors[19:21] == [1.0, 0.5] and factors[29:31] == [0.5, 0.25] and factors[-1] == 0.25
    assert [stepped_factor(step, 10, 0, [], 0.5) for step in (0, 99)] == [1.0, 1.0]


def test_trainer_follows_the_schedule_it_is_given(tmp_path: Path):
    optim = replace(OPTIM, epochs=4, schedule="step", milestones=[1, 3], gamma=0.1)
    trainer = make_trainer(tmp_path, optim)
    trainer.fit()
    rates = [row["lr/line"] for row, _ in trainer.log.rows if "lr/line" in row]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.01, 0.01, 0.001, 0.001])


class TwoRates(Fit):
    def __init__(self):
        super().__init__()
        self.slow = nn.Parameter(torch.zeros(1, 1))

    def optimizers(self, optim: OptimConfig) -> dict[str, OptimizerSpec]:
        fast = decay_groups("fast", [self.weight], optim.lr, 0.0)
        return {MAIN: OptimizerSpec(fast + decay_groups("slow", [self.slow], optim.lr / 100, 0.0), optim)}

    def losses(self, batch: Points, progress: Progress) -> dict[str, torch.Tensor]:
        return {"total": super().losses(batch, progress)["total"] + (self.slow - 1).square().sum()}


def test_every_group_keeps_its_own_rate(tmp_path: Path):
    optim = replace(OPTIM, schedule="step", milestones=[1], gamma=0.1)
    trainer = Trainer(
        "test", TwoRates(), TrainingData(Line(8), collate), optim, RUN, tmp_path, Memory(), Accelerator(cpu=True)
    )
    trainer.fit()
    rates = [(row["lr/fast"], row["lr/slow"]) for row, _ in trainer.log.rows if "lr/fast" in row]
    assert rates == [pytest.approx(pair) for pair in [(0.1, 0.001)] * 2 + [(0.01, 0.0001)] * 2]
    assert trainer.task.slow.item() == pytest.approx(2 * 0.001 + 2 * 0.0001, rel=0.01)  # Adam moves by its rate


def test_a_checkpoint_with_one_unnamed_optimiser_is_taken_up(tmp_path: Path):
    """The format of before tasks: keys step, model, optimizer, ema, scaler, window_counts, window_sums."""
    optim = replace(OPTIM, ema=0.9)
    whole = make_trainer(tmp_path / "whole", optim)
    whole.fit()
    trainer = make_trainer(tmp_path / "old", optim)
    trainer.total_steps = 2
    trainer.optimizers["main"].factor = lambda *_: learning_rate_factor(trainer.step, 4, optim.warmup, optim.lr_final)
    trainer.fit()
    payload, _ = trainer.state.load_newest()
    payload["optimizer"] = payload.pop("optimizers")["main"]
    del payload["numbers"]
    trainer.state.save(payload)
    again = make_trainer(tmp_path / "old", optim)
    assert again.restore() == 2
    again.fit()
    assert torch.equal(again.task.weight, whole.task.weight)


def test_an_epochs_line_shows_the_mean_terms_and_the_time_left(tmp_path: Path, capsys):
    trainer = make_trainer(tmp_path)
    trainer.fit()
    lines = [line for line in capsys.readouterr().out.splitlines() if "epoch" in line]
    errors = [row["train/error"] for row, _ in trainer.log.rows if "train/error" in row]
    assert len(lines) == 2
    for epoch, line in enumerate(lines):
        mean = sum(errors[2 * epoch : 2 * epoch + 2]) / 2
        assert line.startswith(f"test epoch {epoch + 1}/2: loss {mean:.4g} (error {mean:.3g}), ")
        assert re.search(r", \d+:\d\d:\d\d left$", line)
    assert lines[1].endswith(" 0:00:00 left")


def test_terms_are_shown_with_the_sum_of_every_turn_in_front():
    terms = {"b/total": 2.0, "b/real": 0.51239, "g/l1": 0.0, "g/total": 1.0}
    assert shown(terms) == "b/loss 2, g/loss 1 (b/real 0.512, g/l1 0)"
    assert shown({"total": 1.5}) == "loss 1.5"


class Delay:
    """Hands on the batch before the last one."""

    lead = 2

    def __call__(self, batches):
        held = []
        for batch in batches:
            held.append(batch)
            if len(held) > self.lead:
                yield held.pop(0)


def test_mixed_batches_are_the_same_after_a_restart(tmp_path: Path):
    """A stream that needs batches from before its start gets them, around the end of the epoch."""

    def seen(trainer: Trainer, epoch: int, start: int) -> list[list[str]]:
        loader = DataLoader(trainer.data.dataset, batch_sampler=trainer.sampler(epoch, start), collate_fn=collate)
        return [batch.files for batch in trainer.on_device(loader)]

    trainer = make_trainer(tmp_path, replace(OPTIM, micro_batch=2))
    plain = seen(trainer, 1, 0)
    trainer.data = replace(trainer.data, mix=Delay())
    mixed = seen(trainer, 1, 0)
    assert mixed == plain[-2:] + plain[:-2] and sorted(mixed) == sorted(plain)
    assert seen(trainer, 1, 1) == mixed[2:]
    trainer.fit()
    assert trainer.step == trainer.total_steps


def test_every_bad_micro_batch_is_named_alone(tmp_path: Path):
    trainer = make_trainer(tmp_path, replace(OPTIM, micro_batch=1), poison=5)
    with pytest.raises(NonFiniteError, match=r"error=nan, total=nan at step .*Images: 5\.png\. Look"):
        trainer.fit()


class Recorded(Fit):
    """Remembers the weights with which every step began."""

    def __init__(self):
        super().__init__()
        self.before: list[torch.Tensor] = []

    def losses(self, batch: Points, progress: Progress) -> dict[str, torch.Tensor]:
        self.before.append(self.weight.detach().clone())
        return super().losses(batch, progress)


def test_validation_and_result_have_the_averaged_weights_and_training_the_raw_ones(tmp_path: Path):
    """The average by its formula from the weights of an equal run without one."""

    def trained(name: str, ema: float) -> tuple[Recorded, list[torch.Tensor]]:
        task, seen = Recorded(), []
        data, optim = TrainingData(Line(8), collate), replace(OPTIM, epochs=3, ema=ema)

        def validate(epoch: int, step: int) -> dict[str, float]:
            seen.append(task.weight.detach().clone())
            return {}

        Trainer("test", task, data, optim, RUN, tmp_path / name, Memory(), Accelerator(cpu=True), validate).fit()
        return task, seen

    (raw, raw_seen), (averaged, averaged_seen) = trained("raw", 0.0), trained("averaged", 0.9)
    after = [*raw.before[1:], raw.weight.detach()]  # weights after every step
    average, expected = raw.before[0], []
    for number, weight in enumerate(after, start=1):
        decay = min(0.9, (1 + number) / (10 + number))
        average = decay * average + (1 - decay) * weight
        expected.append(average)
    assert len(after) == 6 and [torch.equal(a, b) for a, b in zip(raw_seen, after[1::2])] == [True] * 3
    assert all(torch.equal(a, b) for a, b in zip(averaged.before, raw.before, strict=True)), "raw weights learn on"
    torch.testing.assert_close(averaged_seen, expected[1::2])
    torch.testing.assert_close(averaged.weight.detach(), expected[-1])
    assert (expected[-1] - raw.weight).abs().min() > 0.005, "or nothing was shown"
