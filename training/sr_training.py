"""Stage 2 as configured: network, data (images, cache, degradation on the device, pool) and task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from configs.schema import NetworkConfig, OptimConfig, Stage2Config
from data.image_cache import ImageCache
from data.pair_pool import PairPool
from data.real_degradation import RealDegradation, check_range
from data.sr_batch import collate_pairs
from data.sr_pairs import SRPairDataset
from loading.load_lpips import load_lpips
from loading.load_sr import build_or_load_sr
from training.gradient_checkpointing import checkpoint_blocks
from training.processes import micro_batches
from training.task import Task
from training.tasks.lmf_queries import QueryTask
from training.tasks.pixel import PixelTask
from training.training_data import TrainingData
from utils.errors import UserError

Say = Callable[[str], None]


def build_network(role: str, network_config: NetworkConfig, config: Stage2Config, say: Say = print) -> nn.Module:
    """The network to be trained, on the CPU; its first weights depend on run.seed alone, not on what ran before.

    Raises:
        UserError: see `build_or_load_sr` and `checkpoint_blocks`; or a network of integers.
    """
    torch.manual_seed(config.run.seed)
    network = build_or_load_sr(network_config, config.scale)
    if network.capabilities.quantised:
        raise UserError(
            f"{role}: {network.spec['name']} is computed in integers and not trained; train an edsr with tail single "
            "and quantise it with `python -m tools.quantise_sr`"
        )
    if config.gradient_checkpointing:
        say(f"{role}: {checkpoint_blocks(network)} blocks are recomputed in the backward pass")
    if config.data.scales and not network.capabilities.takes_size:
        say(f"{role}: {network_config.name} has one scale, so data.scales is left aside for it")
    return network


def trained_scales(network: nn.Module, scales: list[float] | None) -> list[float]:
    """Those of `scales` that concern this network: all of them where it takes any size, else none."""
    return list(scales or ()) if network.capabilities.takes_size else []


def sr_training_data(
    config: Stage2Config, optim: OptimConfig, folder: Path, processes: int, network: nn.Module, say: Say = print
) -> TrainingData:
    """Data for one network, images already in the cache.

    Args:
        config: settings of the stage.
        optim: settings of the network's optimiser (for the size of a micro-batch).
        folder: run folder, where the disk cache lies unless the settings name another one.
        processes: number of processes.
        network: one that takes any size trains on `data.scales`.
        say: tells what is left out.

    Raises:
        UserError: settings that do not fit each other.
        ImageError: see `SRPairDataset`.
    """
    data = config.data
    scales = tuple(trained_scales(network, data.scales)) or None
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
    for note in dataset.notes():
        say(note)
    mix = None
    if degradation:
        # Batches of different scales cannot be mixed; each has random sizes of its own in any case.
        pairs = 0 if scales else data.degradation.pool
        mix = PairPool(degradation, data.patch, pairs, micro_batches(optim, processes)[0], degradation.target)
    return TrainingData(dataset, collate_pairs, config.run.workers, mix)


def sr_task(role: str, network: nn.Module, config: Stage2Config, device: torch.device) -> Task:
    """How the network learns: from single random pixels where it can colour them alone, else from whole patches.

    Raises:
        UserError: a loss that single pixels do not have.
        CheckpointError: see `load_lpips`.
    """
    loss = config.loss
    if network.capabilities.samples and loss.queries:
        if loss.pixel != "l1" or loss.perceptual > 0:
            raise UserError("loss.queries trains at single pixels, by l1 alone; set it to 0 for other losses")
        return QueryTask(network, loss.queries, config.run.seed, name=role)
    perceptual = load_lpips(loss.perceptual_weights).to(device) if loss.perceptual > 0 else None
    return PixelTask(network, loss.pixel, loss.epsilon, perceptual, loss.perceptual, name=role)
