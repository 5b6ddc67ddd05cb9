"""PSNR and SSIM of an SR network on benchmark sets, as the literature has them: Y channel, border = scale, 8 bit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from data.sr_pairs import benchmark_pairs
from models.arbitrary_scale import super_resolve
from utils.convert import to_image, to_tensor
from utils.errors import UserError
from utils.metrics import mean_over_images, psnr_y, ssim_y

Pairs = list[tuple[str, np.ndarray, np.ndarray]]


def border_of(scale: float) -> int:
    """HR pixels that the custom leaves out on each side when comparing."""
    return math.ceil(scale)


def dataset_names(folders: Sequence[str | Path]) -> list[str]:
    """One name a folder, none twice: its own, or that of the one above where it is only called HR; where some are
    alike, with as many of the folders above as tell them apart ("rsscn7_test", "hit_uav_test").

    Raises:
        UserError: one folder is given twice.
    """
    paths = []
    for path in (Path(folder).resolve() for folder in folders):
        paths.append(path.parent if path.name.lower() in ("hr", "gt", "images") and path.parent.name else path)
    names = [path.name for path in paths]
    for depth in range(2, max((len(path.parts) for path in paths), default=0)):
        twice = {name for name in names if names.count(name) > 1}
        names = [
            "_".join(path.parts[-depth:]) if name in twice else name for name, path in zip(names, paths, strict=True)
        ]
    if len(set(names)) < len(names):
        raise UserError(f"{', '.join(map(str, folders))}: one folder is given twice; name it once")
    return names


def validation_sets(
    folders: Sequence[str | Path], scales: Sequence[float], max_pixels: int, lr_folders: Sequence[str | Path] = ()
) -> dict[str, tuple]:
    """{"Set5": (scale, pairs), ...}, or {"Set5_x2": ..., "Set5_x3.5": ...} where there are several scales.

    Args:
        folders: see `benchmark_pairs`.
        scales: factors.
        max_pixels: see `benchmark_pairs`.
        lr_folders: LR images of one scale, one folder per HR folder; empty takes those inside, or makes them.

    Raises:
        ValueError: one folder twice, not one LR folder per HR folder, or LR folders with several scales.
        ImageError: see `benchmark_pairs`.
    """
    if lr_folders and len(lr_folders) != len(folders):
        counts = f"data.lr_val names {len(lr_folders)} folders, but data.val {len(folders)}"
        raise UserError(f"{counts}: give one LR folder per HR folder, or none at all")
    if lr_folders and len(scales) > 1:
        raise UserError("data.lr_val holds the LR images of one scale, but there are several to validate at")
    lr_of = dict(zip(folders, lr_folders, strict=False))
    endings = {scale: f"_x{scale:g}" if len(scales) > 1 else "" for scale in scales}
    return {
        name + ending: (scale, benchmark_pairs(folder, scale, max_pixels, lr_of.get(folder)))
        for name, folder in zip(dataset_names(folders), folders, strict=True)
        for scale, ending in endings.items()
    }


@torch.no_grad()
def benchmark(network: nn.Module, sets: dict[str, tuple[float, Pairs]], device: torch.device) -> dict[str, float]:
    """{"psnr/Set5": dB, "ssim/Set5": ..., ...}, means over the images of each set."""
    network.eval()
    metrics = {}
    for name, (scale, pairs) in sets.items():
        border = border_of(scale)
        images = [(to_image(super_resolve(network, to_tensor(lr, device), hr.shape[:2])), hr) for _, lr, hr in pairs]
        metrics[f"psnr/{name}"] = mean_over_images([psnr_y(sr, hr, border) for sr, hr in images])
        metrics[f"ssim/{name}"] = mean_over_images([ssim_y(sr, hr, border) for sr, hr in images])
    return metrics


def mean_psnr(metrics: dict[str, float]) -> float | None:
    """Mean PSNR over the sets, by which the best weights are chosen; None without a set."""
    values = [value for name, value in metrics.items() if name.startswith("psnr/")]
    return mean_over_images(values) if values else None
