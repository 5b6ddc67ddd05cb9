"""Stage 2 as configured: data (images, cache, degradation on the device, pool) and objective of one network."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from configs.schema import OptimConfig, Stage2Config
from data.image_cache import ImageCache
from data.pair_pool import PairPool
from data.real_degradation import RealDegradation, check_range
from data.sr_batch import collate_pairs
from data.sr_pairs import SRPairDataset
from loading.load_lpips import load_lpips
from models.lmf.network import LMF
from training.tasks.lmf_queries import QueryObjective
from training.tasks.objectives import PixelObjective
from training.trainer import TrainingData, micro_batches
from utils.errors import UserError


def sr_training_data(
    config: Stage2Config, optim: OptimConfig, folder: Path, processes: int, arbitrary: bool
) -> TrainingData:
    """Data for one network, images already in the cache.

    Args:
        config: settings of the stage.
        optim: settings of the network's optimiser (for the size of a micro-batch).
        folder: run folder, where the disk cache lies unless the settings name another one.
        processes: number of processes.
        arbitrary: whether the network takes any size, and so trains on `data.scales`.

    Raises:
        ValueError: settings that do not fit each other.
        ImageError: see `SRPairDataset`.
    """
    data = config.data
    scales = tuple(data.scales) if arbitrary and data.scales else None
    if scales:
        check_range(data.scales, "data.scales")
    degradation = None
    if data.degradation.kind == "realesrgan":
        degradation = RealDegradation(data.degradation, config.run.seed)
    dataset = SRPairDataset(
        data,
        config.scale,
        config.run.seed,
        ImageCache(data.cache, data.cache_folder or folder / "cache"),
        scales,
        degradation and degradation.draw,
    )
    dataset.preload()
    mix = None
    if degradation:
        # Batches of different scales cannot be mixed; each has random sizes of its own in any case.
        pairs = 0 if scales else data.degradation.pool
        mix = PairPool(degradation, data.patch, pairs, micro_batches(optim, processes)[0])
    return TrainingData(dataset, collate_pairs, config.run.workers, mix)


def sr_objective(network: nn.Module, config: Stage2Config, device: torch.device) -> nn.Module:
    """What trains the network: L1 at random pixels for Latent Modulated Functions, else a loss on whole patches.

    Raises:
        ValueError: a loss that single pixels do not have.
        CheckpointError: see `load_lpips`.
    """
    loss = config.loss
    if isinstance(network, LMF) and loss.queries:
        if loss.pixel != "l1" or loss.perceptual > 0:
            raise UserError("loss.queries trains at single pixels, by l1 alone; set it to 0 for other losses")
        return QueryObjective(network, loss.queries, config.run.seed)
    perceptual = load_lpips(loss.perceptual_weights).to(device) if loss.perceptual > 0 else None
    return PixelObjective(network, loss.pixel, loss.epsilon, perceptual, loss.perceptual)
