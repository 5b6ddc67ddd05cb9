"""What goes wrong in a training: damaged statistics, damaged weights, memory, a full disk, a request to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from configs.schema import RunConfig, Stage2Config
from tests.small_disk import small_disk
from tests.training.test_trainer import OPTIM, RUN, Fit, Line, Memory, Points, collate
from training.faults import first_not_finite, largest, memory_advice
from training.loss_terms import NonFiniteError
from training.run_start import start_run
from training.stop_request import StopRequest
from training.task import Progress
from training.trainer import Trainer
from training.training_data import TrainingData
from utils.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Normalised(Fit):
    """Has a BatchNorm layer, and does something in a step."""

    def __init__(self, at_step: int = -1, fault=lambda task: None):
        super().__init__()
        self.norm, self.at_step, self.fault = nn.BatchNorm1d(1), at_step, fault

    def losses(self, batch: Points, progress: Progress) -> dict[str, torch.Tensor]:
        losses = super().losses(replace(batch, x=self.norm(batch.x[:, None])[:, 0]), progress)
        if progress.step == self.at_step:
            self.fault(self)
        return losses


def trainer_of(task: Fit, folder: Path, **run) -> Trainer:
    optim, data = replace(OPTIM, epochs=3, ema=0.9), TrainingData(Line(8), collate)
    return Trainer("test", task, data, optim, replace(RUN, **run), folder, Memory(), Accelerator(cpu=True))


@pytest.mark.parametrize("name", ["running_mean", "running_var"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_damaged_batchnorm_statistics_stop_before_the_update(tmp_path: Path, name: str, value: float):
    trainer = trainer_of(Normalised(3, lambda task: getattr(task.norm, name).data.fill_(value)), tmp_path)
    with pytest.raises(NonFiniteError, match=rf"BatchNorm statistics={value} at step 4 \(epoch 2\).*Images: \d\.png"):
        trainer.fit()
    kept = load_checkpoint(tmp_path / "checkpoints" / "last.pth")
    assert kept["step"] == 3 and not first_not_finite(kept)
    assert torch.equal(kept["model"]["weight"], trainer.task.weight), "no update was made"


@pytest.mark.parametrize("where", ["weights", "average", "optimiser main"])
def test_no_checkpoint_that_is_not_finite_replaces_a_good_one(tmp_path: Path, where: str):
    trainer = trainer_of(Normalised(), tmp_path)
    trainer.fit()
    before = (tmp_path / "checkpoints" / "last.pth").read_bytes()
    state = next(iter(trainer.optimizers["main"].optimizer.state.values()))
    tensors = {"weights": trainer.task.weight.data, "average": trainer.ema.shadow["weight"]}
    (tensors | {"optimiser main": state["exp_avg_sq"]})[where][0] = float("inf")
    with pytest.raises(NonFiniteError, match=rf"test: {where}.* is not finite after step 6; it was not saved"):
        trainer.save()
    assert (tmp_path / "checkpoints" / "last.pth").read_bytes() == before


def test_weights_that_the_last_step_damaged_are_found_before_the_end(tmp_path: Path):
    trainer = trainer_of(Normalised(), tmp_path, checkpoint_every=100)
    step = trainer.optimizers["main"].step

    def damage() -> None:
        step()
        if trainer.step == trainer.total_steps - 1:
            trainer.task.weight.data.fill_(float("nan"))

    trainer.optimizers["main"].step = damage
    with pytest.raises(NonFiniteError, match=r"weights\.weight is not finite after step 6"):
        trainer.fit()


def test_largest_of_no_tensor_and_of_huge_ones():
    assert largest([]) == 0 and largest([torch.full((3,), 1e30), torch.tensor([-2e30])]) == 2e30


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_lack_of_memory_is_called_so(tmp_path: Path, error: Exception):
    def fail(task: Fit) -> None:
        raise error

    with pytest.raises(UserError, match=r"test: out of memory; take optim\.micro_batch 2 .* or smaller images"):
        trainer_of(Normalised(2, fail), tmp_path).fit()


def test_advice_names_nothing_that_was_done_already():
    run = replace(RUN, workers=4)
    assert "micro_batch" not in memory_advice(OPTIM, run, 1, CPU) and "fewer run.workers than 4" in memory_advice(
        OPTIM, run, 1, CPU
    )
    assert "run.precision bf16" in memory_advice(OPTIM, RUN, 1, CUDA)
    assert memory_advice(OPTIM, replace(RUN, precision="bf16"), 1, CUDA) == (
        "out of memory; take smaller images or patches in a new run"
    )


def test_a_full_disk_keeps_the_last_checkpoint_and_says_so(tmp_path: Path):
    class Large(Normalised):
        def __init__(self):
            super().__init__()
            self.register_buffer("table", torch.rand(30_000))

    with small_disk(tmp_path / "disk", 360) as disk:
        trainer = trainer_of(Large(), disk)
        trainer.ema = None
        with pytest.raises(CheckpointError, match=r"last\.pth: cannot be written \(No space left on device\)"):
            trainer.fit()
        assert load_checkpoint(disk / "checkpoints" / "last.pth")["step"] == 2
        assert sorted(p.name for p in (disk / "checkpoints").iterdir()) == ["last.pth", "previous.pth"]


@pytest.fixture
def heeded() -> Iterator[None]:
    """SIGINT interrupts, also where the tests run in the background of a shell that has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_stop_saves_the_step_and_goes_on_to_the_same_end(tmp_path: Path, number: int, heeded):
    whole = trainer_of(Normalised(), tmp_path / "whole", checkpoint_every=100)
    whole.fit()
    stopped = trainer_of(Normalised(2, lambda _: os.kill(os.getpid(), number)), tmp_path / "run", checkpoint_every=100)
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    again = trainer_of(Normalised(), tmp_path / "run", checkpoint_every=100)
    assert again.restore() == 3
    again.fit()
    assert all(torch.equal(x, again.task.state_dict()[key]) for key, x in whole.task.state_dict().items())


@pytest.mark.parametrize("at", ["last step", "validation"])
def test_a_request_at_the_end_of_an_epoch_loses_nothing(tmp_path: Path, at: str):
    """The epoch's validation is made first when the run goes on."""

    def run(folder: Path, task: Fit, fail: bool) -> tuple[Trainer, list]:
        trainer, seen = trainer_of(task, folder, checkpoint_every=100), []

        def validate(epoch: int, step: int) -> dict:
            seen.append((epoch, step, trainer.task.weight.sum().item()))
            if fail and len(seen) == 2:
                raise KeyboardInterrupt
            return {"val": 1.0}

        trainer.validate = validate
        return trainer, seen

    whole, expected = run(tmp_path / "whole", Normalised(), False)
    whole.fit()
    kill = (lambda _: os.kill(os.getpid(), signal.SIGTERM)) if at == "last step" else (lambda _: None)
    stopped, seen = run(tmp_path / "run", Normalised(3, kill), at == "validation")
    with pytest.raises(KeyboardInterrupt):
        stopped.fit()
    again, later = run(tmp_path / "run", Normalised(), False)
    assert again.restore() == 4
    again.fit()
    assert seen + later == (expected if at == "last step" else [*expected[:2], *expected[1:]])
    assert all(torch.equal(x, again.task.state_dict()[key]) for key, x in whole.task.state_dict().items())
    logged = [row for row in (*stopped.log.rows, *again.log.rows) if "val" in row[0]]
    assert logged == [({"val": 1.0}, 2), ({"val": 1.0}, 4), ({"val": 1.0}, 6)]


def test_a_request_while_a_checkpoint_is_written_waits_for_it(tmp_path: Path, monkeypatch):
    def asked(*arguments: object, **options: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        save_checkpoint(*arguments, **options)

    monkeypatch.setattr("training.train_state.save_checkpoint", asked)
    with pytest.raises(KeyboardInterrupt):
        trainer_of(Normalised(), tmp_path).fit()
    assert load_checkpoint(tmp_path / "checkpoints" / "last.pth")["step"] == 1


def test_a_signal_that_is_ignored_stays_so():
    """In the background of a shell SIGINT is ignored, and Ctrl-C is meant for another program."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert not stop.asked and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_second_request_stops_at_once():
    with pytest.raises(KeyboardInterrupt), StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("still running")


def test_data_loading_processes_that_end_with_the_request_are_no_error():
    with pytest.raises(KeyboardInterrupt), StopRequest() as stop:
        stop.asked = True
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Terminated")


HOLD = """
import sys, time
from pathlib import Path
from training.run_start import start_run
from configs.schema import RunConfig, Stage2Config
from utils.cli import run
def main():
    start_run(Stage2Config(run=RunConfig(out=sys.argv[1], resume=True)))
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
    return 0
run(main)
"""


def test_one_process_a_run_folder_and_a_killed_one_leaves_neither_lock_nor_leftovers(tmp_path: Path):
    folder = tmp_path / "run"

    def start(seconds: float) -> subprocess.Popen:
        command = [sys.executable, "-c", HOLD, str(folder), str(seconds)]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    with start(300) as first:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"run\.out: {folder} is in use by process {first.pid} on .*"):
            start_run(Stage2Config(run=RunConfig(out=str(folder), resume=True)))
        first.kill()
    leftovers = [folder / ".metrics.jsonl.0123456789ab.tmp", folder / "ultralytics" / "weights" / "last.part"]
    others = [folder / ".mine.tmp", folder / "notes.part"]
    for path in leftovers + others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with start(0) as third:
        _, errors = third.communicate(timeout=120)
    assert third.returncode == 0, errors
    assert not any(path.exists() for path in leftovers) and all(path.exists() for path in others)
    assert json.loads((folder / "environment.json").read_text())
