"""The masker learns from a loss behind the image alone where quality pays, and reaches its target share."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

from configs.stage3_schema import LossConfig
from models import build_sr
from models.conditional_sr import ConditionalSR
from models.masker import Masker
from training.task import Progress
from training.tasks.joint import JointTask
from utils.gumbel import gumbel_noise

STEPS, PATCH, GRID = 150, 8, 8


class RegionLoss(nn.Module):
    """Stands for a detector: sees only the objects, and wants them as they are in HR."""

    def loss(self, images, boxes, classes, image_index, raw=None):
        error = (images - self.hr).abs().mean(1) * self.objects
        return {"det": error.sum() / self.objects.sum()}


def make_scene(step: int) -> tuple[SimpleNamespace, torch.Tensor]:
    """Grey noise with bright checkered patches (objects); returns the batch and which patches hold objects."""
    generator = torch.Generator().manual_seed(step)
    objects = (torch.rand(4, 1, GRID, GRID, generator=generator) < 0.15).float()
    side = GRID * PATCH
    noise = 0.4 + 0.1 * torch.rand(4, 3, 2 * side, 2 * side, generator=generator)
    checker = ((torch.arange(2 * side)[:, None] // 2 + torch.arange(2 * side) // 2) % 2).float()
    area = objects.repeat_interleave(2 * PATCH, 2).repeat_interleave(2 * PATCH, 3)
    hr = area * checker + (1 - area) * noise
    lr = nn.functional.interpolate(hr, scale_factor=0.5, mode="area")
    lr = lr + area[..., ::2, ::2] * 0.3 * torch.rand(lr.shape, generator=generator)  # objects are visible in LR
    batch = SimpleNamespace(
        lr=lr, hr=hr, boxes=None, classes=None, image_index=None, content=None,
        labelled=torch.ones(4, dtype=torch.bool),
        indices=torch.arange(4) + 4 * step, epoch=0,
    )  # fmt: skip
    batch.area = area[:, 0]
    return batch, objects[:, 0].bool()


def test_masker_finds_the_objects_and_the_target_share():
    torch.manual_seed(0)
    quality = build_sr("edsr", 2, {"n_blocks": 1, "n_feats": 8})
    front = ConditionalSR(Masker(PATCH, bias=1.0), build_sr("bicubic", 2), quality)
    system = nn.Module()
    system.front, system.detector, system.shown = front, RegionLoss(), nn.Identity()
    system.zoom = system.upscale = 1
    weights = LossConfig(det=1.0, sparse=10.0, target=0.25, smooth=0.0, objects=0.0)
    objective = JointTask(system, weights, tau=(2.0, 0.1)).train()
    optimizer = torch.optim.Adam(
        [{"params": front.masker.parameters(), "lr": 3e-3}, {"params": quality.parameters(), "lr": 3e-3}]
    )
    for step in range(STEPS):
        batch, _ = make_scene(step)
        system.detector.hr, system.detector.objects = batch.hr, batch.area
        optimizer.zero_grad()
        objective(batch, Progress(step, STEPS))["total"].backward()
        optimizer.step()
    front.masker.eval()
    inside, outside, shares = [], [], []
    for step in range(STEPS, STEPS + 8):
        batch, objects = make_scene(step)
        logits = front.masker(batch.lr)
        kept = logits[:, 1] > logits[:, 0]
        inside.append(kept[objects].float().mean())
        outside.append(kept[~objects].float().mean())
        shares.append(kept.float().mean())
    share, ratio = torch.stack(shares).mean(), torch.stack(inside).mean() / torch.stack(outside).mean()
    assert 0.15 < share < 0.35
    assert ratio > 2


def test_noise_ends_with_the_decision():
    front = ConditionalSR(Masker(PATCH), build_sr("bicubic", 2), build_sr("bicubic", 2)).train()
    with torch.no_grad():
        front.masker.logits.weight.mul_(500)  # a decided masker
    lr = make_scene(0)[0].lr
    noise = gumbel_noise(range(4), 0, 0, (GRID, GRID))
    drawn, decided = front(lr, 0.05, noise).mask, front(lr, 0.05, None).mask
    assert (drawn == decided).float().mean() > 0.95
    assert (front(lr, 50.0, noise).mask == decided).float().mean() < 0.8


def test_calibration_gives_the_share():
    masker = Masker(PATCH).eval()
    scores = torch.randn(4000)
    masker.offset.data.zero_()
    masker.calibrate(scores, 0.25)
    offset = masker.offset.item() * 10
    assert abs(((scores + offset) > 0).float().mean() - 0.25) < 0.002
