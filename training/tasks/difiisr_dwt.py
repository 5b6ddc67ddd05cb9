"""DifIISR-DWT (stage 2): statistics of the wavelet bands, then diffusion.

What is drawn for a sample, its time step and its noise, is a pure function of (seed, epoch, sample index).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.generative_schema import DifIISRConfig
from configs.schema import OptimConfig, Stage2Config
from data.sr_batch import SRBatch
from loading.load_lpips import load_lpips
from models.difiisr_dwt.network import DifIISRDWT, LRCode
from models.difiisr_dwt.shift_diffusion import forward_sample
from models.noise import normal_field
from training.sr_phases import Phase
from training.task import MAIN, OptimizerSpec, Progress, Task
from utils.errors import UserError
from utils.optimizer_utils import decay_groups

STREAM = 0xD1FF  # tells the time steps' random numbers from those of the patch's place


def phases(network: DifIISRDWT, config: Stage2Config, optim: OptimConfig, device: torch.device) -> list[Phase]:
    """Measure the bands, unless the network comes with statistics; then train it.

    Raises:
        UserError: patches that the network would have to pad, or lists of weights of another length.
        CheckpointError: see `load_lpips`.
    """
    multiple, settings = network.capabilities.size_multiple, config.difiisr_dwt
    if config.data.patch % multiple:
        patch = -(-config.data.patch // multiple) * multiple
        raise UserError(f"data.patch is {config.data.patch}, but this difiisr_dwt needs a multiple of {multiple}; "
                         f"set it to {patch}, or choose fewer levels in `mult` or a smaller `window`")  # fmt: skip
    if len(settings.perceptual) != 2 or len(settings.perceptual_steps) != 3:
        raise UserError("difiisr_dwt.perceptual takes two numbers, difiisr_dwt.perceptual_steps three")
    weights = config.loss.perceptual_weights
    perceptual = load_lpips(weights).to(device) if weights else None

    def diffusion(numbers: dict[str, Any]) -> Task:
        if numbers:
            network.set_statistics(numbers["mean"], numbers["std"], numbers["residual_std"])
        return DiffusionTask(network, settings, config.run.seed, perceptual)

    last = Phase("diffusion", optim, diffusion)
    if network.has_statistics:
        return [last]
    few = replace(config.data, samples_per_epoch=settings.measured_patches)
    measuring = replace(optim, epochs=1, ema=0.0)
    return [Phase("bands", measuring, lambda numbers: BandStatistics(network), few), last]


def hr_image(batch: SRBatch) -> Tensor:
    """HR patches in the codec's range, [-1, 1]."""
    return 2 * batch.hr - 1


class BandStatistics(Task):
    """Learns nothing; its numbers are mean and deviation of every channel of the HR codes, and the deviation of the
    distance between HR and LR codes."""

    def __init__(self, network: DifIISRDWT):
        super().__init__()
        self.network = network

    def optimizers(self, optim: OptimConfig) -> dict[str, OptimizerSpec]:
        return {MAIN: OptimizerSpec([{"name": "none", "params": list(self.network.parameters())}], optim)}

    def turns(self, step: int) -> tuple[str, ...]:
        return ()

    def numbers(self, batches: Iterable[SRBatch]) -> dict[str, Tensor]:
        sums, count = torch.zeros(3, self.network.codec.channels, dtype=torch.float64), 0
        for batch in batches:
            hr = self.network.codec.encode(hr_image(batch))[0].double()
            shift = hr - self.network.encode_lr(batch.lr).y
            sums += torch.stack([part.sum((0, 2, 3)).cpu() for part in (hr, hr.square(), shift.square())])
            count += hr[:, 0].numel()
        mean, square, shift_square = sums / count
        std = (square - mean.square()).clamp_min(0).sqrt()
        if not bool((std > 0).all()):
            raise UserError("a wavelet band of the training images is empty: are they all of one colour?")
        return {"mean": mean.float(), "std": std.float(), "residual_std": (shift_square.sqrt() / std).float()}


class DiffusionTask(Task):
    """Error of the estimated HR code, perceptual distance of its image, and reconstruction by the codec's layers.

    The reconstruction error alone trains the layers by which a codec encodes: as parts of the target they could make it
    easy instead of true.

    Args:
        network: with statistics.
        settings: of the losses.
        seed: of the run.
        perceptual: distance of images (B, 3, H, W) in [0, 1] -> (B,), on the device; None leaves the term out.
    """

    def __init__(
        self, network: DifIISRDWT, settings: DifIISRConfig, seed: int = 0, perceptual: nn.Module | None = None
    ):
        super().__init__()
        self.network, self.settings, self.seed = network, settings, seed
        self.etas = torch.tensor(network.schedule.etas())
        self.weights = band_weights(network.codec.std, settings.band_power)
        # In a tuple, because its fixed weights belong neither into the checkpoints nor into the average.
        self.perceptual = None if perceptual is None else (perceptual,)

    def optimizers(self, optim: OptimConfig) -> dict[str, OptimizerSpec]:
        groups = decay_groups("difiisr_dwt", self.network.parameters(), optim.lr, optim.weight_decay)
        return {MAIN: OptimizerSpec(groups, optim)}

    def losses(self, batch: SRBatch, progress: Progress) -> dict[str, Tensor]:
        hr = hr_image(batch)
        with torch.no_grad():
            code, x0 = self.network.encode_lr(batch.lr), self.network.codec.encode(hr)[0]
        t = self.timesteps(batch).to(hr.device)
        estimate = self.estimate(x0, code, t, batch)
        error = (estimate - x0).square().mean((0, 2, 3))
        loss = (self.weights.to(error) * error).mean()
        terms = {"mse": loss.detach()}
        if self.perceptual is not None:
            distance = self.distances(estimate, x0, code)
            steps = perceptual_weights(t, self.network.schedule.steps, self.settings.perceptual_steps)
            loss = loss + ramp(self.settings.perceptual, progress) * (steps * distance).mean()
            terms["perceptual"] = distance.detach().mean()
        if any(True for _ in self.network.codec.parameters()):
            error = F.mse_loss(self.network.codec.decode(*self.network.codec.encode(hr)), hr)
            loss = loss + self.settings.reconstruction * error
            terms["reconstruction"] = error.detach()
        return {"total": loss} | terms

    def estimate(self, x0: Tensor, code: LRCode, t: Tensor, batch: SRBatch) -> Tensor:
        """The network's x0 from x_t at the steps t (B,)."""
        eta = self.etas.to(x0)[t][:, None, None, None]
        x_t = forward_sample(x0, code.y, eta, self.noise(x0, batch), self.network.schedule.kappa)
        return self.network.denoise(x_t, t, code)

    def timesteps(self, batch: SRBatch) -> Tensor:
        """int64 (B,), each of the T steps equally often."""
        steps = self.network.schedule.steps
        return torch.tensor([np.random.default_rng((self.seed, *key, STREAM)).integers(steps) for key in batch.keys])

    def noise(self, like: Tensor, batch: SRBatch) -> Tensor:
        """Each sample has a place of its own in the field of the seed, by its index and epoch."""
        _, channels, height, width = like.shape
        origin = torch.tensor([(index * height, epoch * width) for epoch, index in batch.keys])
        return normal_field(self.seed, 0, channels, origin, (height, width), like.device)

    def distances(self, estimate: Tensor, x0: Tensor, code: LRCode) -> Tensor:
        """Perceptual distance (B,) of the estimate's image from that of the true code, which is the HR image where the
        codec is lossless: otherwise colours would drift to make up for what the codec cannot hold."""
        decode = self.network.codec.decode
        with torch.no_grad():
            target = decode(x0, code.aux)
        images = ((image / 2 + 0.5).clamp(0, 1) for image in (decode(estimate, code.aux), target))
        assert self.perceptual is not None
        return self.perceptual[0](*images)


def band_weights(std: Tensor, power: float) -> Tensor:
    """Weights (channels,) of the squared errors, std^(2 * power) with mean 1: at 1 it is the error of the pixels."""
    weights = std.flatten() ** (2 * power)
    return weights / weights.mean()


def perceptual_weights(t: Tensor, timesteps: int, thirds: Sequence[float]) -> Tensor:
    """Weights (B,) of the samples by the third of the T steps in which theirs lies: noisy ones say little."""
    third = (t >= timesteps // 3).long() + (t >= 2 * timesteps // 3).long()
    return torch.tensor(list(thirds), device=t.device)[third]


def ramp(ends: Sequence[float], progress: Progress) -> float:
    """Weight of the perceptual term, linear over the training."""
    first, last = ends
    return first + (last - first) * progress.step / max(1, progress.total_steps)
