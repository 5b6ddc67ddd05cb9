"""Stage 2 in phases: numbers are handed on, every phase is resumed where it was, the others stay as they are."""

from __future__ import annotations

import sys
import types
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

import stage2_pretrain_sr
from configs.schema import NetworkConfig, OptimConfig, RunConfig, Stage2Config
from configs.sr_schema import SRDataConfig
from training import tasks
from training.sr_phases import Phase, sr_phases
from training.sr_training import build_network
from training.tasks.pixel import PixelTask
from utils.checkpoint import load_network


class Level(PixelTask):
    """Pixel loss; hands on the mean of the weights, and knows those of the phase before."""

    def __init__(self, network, known):
        super().__init__(network)
        self.known = known

    def numbers(self, batches):
        return {"level": float(sum(p.mean() for p in self.network.parameters())), "batches": len(list(batches))}


@pytest.fixture
def made(monkeypatch):
    """Two phases for espcn; the numbers that every task was made with."""
    seen, module = [], types.ModuleType("two_phases")

    def phases(network, config, optim, device):
        def make(numbers):
            seen.append(dict(numbers))
            return Level(network, numbers)

        first = replace(optim, epochs=1, lr=1e-2)
        return [Phase("first", first, make), Phase("second", optim, make, replace(config.data, patch=12), turns=True)]

    module.phases = phases
    monkeypatch.setitem(sys.modules, "two_phases", module)
    monkeypatch.setitem(tasks.SR_PHASES, "espcn", "two_phases")
    return seen


@pytest.fixture
def arguments(tmp_path):
    for number in range(3):
        image = np.random.default_rng(number).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        (tmp_path / "images").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), image)
    return [
        f"--data.train=[{tmp_path / 'images'}]", "--data.patch=8", "--data.samples_per_epoch=8", "--scale=2",
        "--sr_fast.name=bicubic", "--sr_fast.args={}", "--sr_quality.name=espcn", "--sr_quality.args={n_feats: 4}",
        "--optim_quality.batch=4", "--run.workers=0", "--run.threads=1", "--optim_quality.epochs=2", "--run.device=cpu",
    ]  # fmt: skip


def trained(arguments, out):
    assert stage2_pretrain_sr.main([*arguments, f"--run.out={out}"]) == 0
    return load_network(out / "sr_quality_pretrained.pth")


def test_phases_run_in_order_in_folders_of_their_own_and_know_the_numbers(arguments, made, tmp_path):
    result = trained(arguments, tmp_path / "run")
    assert [sorted(numbers) for numbers in made] == [[], ["batches", "level"]]
    assert made[1]["batches"] == 2 and result["meta"]["epochs"] == 2
    for phase in ("first", "second"):
        assert list((tmp_path / "run" / "sr_quality" / phase / "checkpoints").iterdir())
        assert (tmp_path / "run" / "sr_quality" / phase / "metrics.jsonl").exists()


def test_the_last_phase_alone_is_validated(arguments, made, tmp_path):
    trained([*arguments, f"--data.val=[{tmp_path / 'images'}]"], tmp_path / "run")
    log = {
        phase: (tmp_path / "run" / "sr_quality" / phase / "metrics.jsonl").read_text() for phase in ("first", "second")
    }
    assert "psnr" not in log["first"] and "psnr" in log["second"]


def test_a_run_stopped_in_its_second_phase_ends_as_one_that_was_not(arguments, made, tmp_path, monkeypatch):
    whole = trained(arguments, tmp_path / "whole")
    losses, count = PixelTask.losses, []

    def stop(self, batch, progress):
        count.append(1)
        if len(count) == 4:  # two steps of the first phase, one of the second
            raise KeyboardInterrupt
        return losses(self, batch, progress)

    monkeypatch.setattr(PixelTask, "losses", stop)
    stopped = [*arguments, "--run.checkpoint_every=1", f"--run.out={tmp_path / 'stopped'}"]
    with pytest.raises(KeyboardInterrupt):
        stage2_pretrain_sr.main(stopped)
    monkeypatch.setattr(PixelTask, "losses", losses)
    assert stage2_pretrain_sr.main([*stopped, "--run.resume"]) == 0
    resumed = load_network(tmp_path / "stopped" / "sr_quality_pretrained.pth")
    assert all(torch.equal(resumed["weights"][key], value) for key, value in whole["weights"].items())
    assert made[-1] == made[1]  # the numbers of the finished phase are read, not made again


def test_networks_without_phases_of_their_own_have_one_without_a_name():
    config = Stage2Config(run=RunConfig(), data=SRDataConfig(), scale=2)
    network = build_network("sr_fast", NetworkConfig("espcn", {"n_feats": 4}), config)
    (phase,) = sr_phases("sr_fast", network, config, OptimConfig(), torch.device("cpu"))
    assert (phase.name, phase.data, phase.turns) == ("", None, False)
    assert isinstance(phase.make({}), PixelTask)
