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


def dataset_name(folder: str | Path) -> str:
    """Name of a folder, or of the one above where it is only called HR."""
    folder = Path(folder).resolve()
    return folder.parent.name if folder.name.lower() in ("hr", "gt", "images") and folder.parent.name else folder.name


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
        ValueError: two folders of one name, not one LR folder per HR folder, or LR folders with several scales.
        ImageError: see `benchmark_pairs`.
    """
    if lr_folders and len(lr_folders) != len(folders):
        counts = f"data.lr_val names {len(lr_folders)} folders, but data.val {len(folders)}"
        raise UserError(f"{counts}: give one LR folder per HR folder, or none at all")
    if lr_folders and len(scales) > 1:
        raise UserError("data.lr_val holds the LR images of one scale, but there are several to validate at")
    lr_of = dict(zip(folders, lr_folders, strict=False))
    if len({dataset_name(folder) for folder in folders}) < len(folders):
        raise UserError(f"data.val: two folders of one name in {list(folders)}; rename one, their figures would mix")
    endings = {scale: f"_x{scale:g}" if len(scales) > 1 else "" for scale in scales}
    return {
        dataset_name(folder) + ending: (scale, benchmark_pairs(folder, scale, max_pixels, lr_of.get(folder)))
        for folder in folders
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
