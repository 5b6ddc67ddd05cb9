"""PSNR and SSIM of an SR network on benchmark sets, as the literature has them: Y channel, border = scale, 8 bit."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from utils.metrics import psnr_y, ssim_y

Pairs = list[tuple[str, np.ndarray, np.ndarray]]


@torch.no_grad()
def super_resolve(network: nn.Module, lr: np.ndarray, device: torch.device) -> np.ndarray:
    """One image, uint8 (h, w, 3) -> uint8 (s*h, s*w, 3)."""
    image = torch.from_numpy(np.ascontiguousarray(lr.transpose(2, 0, 1)))[None].to(device).float() / 255
    sr = network(image)[0].float().clamp(0, 1) * 255
    return sr.round().byte().permute(1, 2, 0).cpu().numpy()


def benchmark(network: nn.Module, sets: dict[str, Pairs], scale: int, device: torch.device) -> dict[str, float]:
    """{"psnr/Set5": dB, "ssim/Set5": ..., ...}, means over the images of each set."""
    network.eval()
    metrics = {}
    for name, pairs in sets.items():
        images = [(super_resolve(network, lr, device), hr) for _, lr, hr in pairs]
        metrics[f"psnr/{name}"] = float(np.mean([psnr_y(sr, hr, border=scale) for sr, hr in images]))
        metrics[f"ssim/{name}"] = float(np.mean([ssim_y(sr, hr, border=scale) for sr, hr in images]))
    return metrics
