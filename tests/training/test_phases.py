"""A second phase that needs a number of the first one: handed on, kept, and the same after any interruption."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.schema import OptimConfig
from tests.training.tiny_gan import OPTIM, Images, make_trainer
from training.phases import fit_phases
from training.task import MAIN, OptimizerSpec, Progress, Task
from training.trainer import Trainer
from utils.optimizer_utils import decay_groups


class Autoencoder(Task):
    """Phase 1; its number is the scale that gives latents a deviation of 1 (Rombach et al. 2022, arXiv:2112.10752)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.decoder, self.asked = nn.Conv2d(3, 2, 2, stride=2), nn.ConvTranspose2d(2, 3, 2, stride=2), 0

    def optimizers(self, optim: OptimConfig) -> dict[str, OptimizerSpec]:
        return {MAIN: OptimizerSpec(decay_groups("autoencoder", self.parameters(), optim.lr, 0.0), optim)}

    def losses(self, batch: Images, progress: Progress) -> dict[str, Tensor]:
        return {"total": F.l1_loss(self.decoder(self.encoder(batch.hr)), batch.hr)}

    def numbers(self, batches: Iterable[Images]) -> dict[str, float]:
        self.asked += 1
        latents = [self.encoder(batch.hr) for batch in batches]
        assert not latents[0].requires_grad and not self.training
        return {"latent_scale": 1 / torch.cat(latents).std().item()}


class Prior(Task):
    """Phase 2: a network on scaled latents; the number is in its own state too."""

    def __init__(self, encoder: nn.Module, latent_scale: float):
        super().__init__()
        torch.manual_seed(1)
        self.network, self.encoder = nn.Conv2d(2, 2, 3, padding=1), (encoder,)
        self.register_buffer("latent_scale", torch.tensor(latent_scale, dtype=torch.float64))

    def optimizers(self, optim: OptimConfig) -> dict[str, OptimizerSpec]:
        return {MAIN: OptimizerSpec(decay_groups("prior", self.parameters(), optim.lr, 0.0), optim)}

    def losses(self, batch: Images, progress: Progress) -> dict[str, Tensor]:
        with torch.no_grad():
            latent = self.encoder[0](batch.hr) * self.latent_scale.float()
        return {"total": F.mse_loss(self.network(latent), latent.flip(1))}


class Phases:
    """Both phases, as a stage would run them; `stop`: (phase, step) after whose checkpoint the run is killed."""

    def __init__(self, folder: Path, stop: tuple[str, int] | None = None, epochs: int = 2):
        self.folder, self.stop, self.optim = folder, stop, replace(OPTIM, epochs=epochs)
        self.first = self.second = None

    def trainer(self, name: str, task: Task) -> Trainer:
        trainer = make_trainer(task, self.folder / name, self.optim)
        save = trainer.save

        def save_and_stop() -> None:
            save()
            if self.stop == (name, trainer.step):
                raise KeyboardInterrupt

        trainer.save = save_and_stop
        return trainer

    def make_first(self, numbers: dict) -> Trainer:
        assert numbers == {}
        self.first = self.trainer("first", Autoencoder())
        return self.first

    def make_second(self, numbers: dict) -> Trainer:
        self.second = self.trainer("second", Prior(self.first.task.encoder, numbers["latent_scale"]))
        return self.second

    def fit(self) -> dict:
        return fit_phases([self.make_first, self.make_second])


def latent_deviation(phases: Phases) -> float:
    """Of the latents of all images by the averaged encoder."""
    batches = phases.first.further_batches()
    with torch.no_grad():
        return torch.cat([phases.first.task.encoder(batch.hr) for batch in batches]).std().item()


def test_the_number_is_that_of_the_averaged_weights_and_is_in_both_checkpoints(tmp_path: Path):
    phases = Phases(tmp_path)
    numbers = phases.fit()
    assert numbers["latent_scale"] == pytest.approx(1 / latent_deviation(phases)) and phases.first.task.asked == 1
    assert phases.first.state.load_newest()[0]["numbers"] == numbers
    assert phases.second.state.load_newest()[0]["model"]["latent_scale"].item() == numbers["latent_scale"]
    trained = phases.first.state.load_newest()[0]["model"]
    assert not torch.equal(trained["encoder.weight"], phases.first.task.encoder.weight), "saved are the trained ones"


@pytest.mark.parametrize("stop", [("first", 3), ("first", 8), ("second", 3), ("second", 8)], ids=str)
def test_killed_in_either_phase_it_ends_bit_for_bit_as_without(tmp_path: Path, stop: tuple[str, int]):
    whole = Phases(tmp_path / "whole")
    numbers = whole.fit()
    with pytest.raises(KeyboardInterrupt):
        Phases(tmp_path / "killed", stop).fit()
    again = Phases(tmp_path / "killed")
    assert again.fit() == numbers
    assert again.first.task.asked == (stop[0] == "first"), "a number that is known is not measured again"
    for one, other in ((whole.first, again.first), (whole.second, again.second)):
        for name, value in one.task.state_dict().items():
            assert torch.equal(value, other.task.state_dict()[name]), name


def test_a_first_phase_that_goes_on_has_other_numbers(tmp_path: Path):
    before = Phases(tmp_path).fit()
    longer = Phases(tmp_path, epochs=3)
    longer.first = longer.make_first({})
    longer.first.restore()
    numbers = longer.first.fit()
    assert numbers != before and numbers["latent_scale"] == pytest.approx(1 / latent_deviation(longer))
