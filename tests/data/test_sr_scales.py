"""Training pairs of arbitrary scales: one factor a micro-batch, in images large enough for all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from data.image_cache import ImageCache
from data.sampler import EpochBatchSampler
from data.sr_batch import collate_pairs
from data.sr_pairs import SRPairDataset
from tests.data.drawn_pairs import make, save
from utils.resize import resize


def scaled(folder: Path, scales: tuple[float, float] = (1.0, 4.0), **more) -> SRPairDataset:
    return make(folder, scales=scales, patch=6, **more)


def test_a_micro_batch_shares_a_scale_that_its_first_sample_decides(tmp_path: Path) -> None:
    save(tmp_path / "hr" / "a.png", 60, 50)
    save(tmp_path / "hr" / "b.png", 41, 47)
    dataset, sides = scaled(tmp_path / "hr"), set()
    for first in range(0, 40, 4):
        batch = collate_pairs(dataset.__getitems__([(1, first + k) for k in range(4)]))
        scale = dataset.batch_scale((1, first))
        side = round(6 * scale)
        assert batch.lr.shape == (4, 3, 6, 6) and batch.hr.shape == (4, 3, side, side) and 1 <= scale <= 4
        assert batch.keys == [(1, first + k) for k in range(4)] and batch.indices[2] == first + 2 and batch.epoch == 1
        sides.add(side)
        for lr, hr in zip(batch.lr, batch.hr, strict=True):
            # A patch that was turned had its columns resized first.
            ways = [resize(hr.permute(1, 2, 0).numpy(), 6, 6), resize(hr.permute(2, 1, 0).numpy(), 6, 6).swapaxes(0, 1)]
            assert min(np.abs(way.astype(int) - lr.permute(1, 2, 0).numpy()).max() for way in ways) <= 1
    assert len(sides) > 4
    again = scaled(tmp_path / "hr", cache=ImageCache("none"))
    one, other = (d.__getitems__([(3, 5), (3, 2)]) for d in (dataset, again))
    assert all(torch.equal(one[k][name], other[k][name]) for k in (0, 1) for name in ("lr", "hr"))


def test_hr_patches_of_one_size(tmp_path: Path) -> None:
    """LR has as many pixels as fit, the factor is then a little larger than the one drawn."""
    save(tmp_path / "hr" / "a.png", 60, 50)
    save(tmp_path / "hr" / "small.png", 39, 60)
    dataset, sides = scaled(tmp_path / "hr", (1.0, 8.0), hr_patch=40), set()
    assert [file.name for file, _ in dataset.files] == ["a.png"]
    for first in range(30):
        batch = collate_pairs(dataset.__getitems__([(0, first), (0, first + 1)]))
        side = int(40 / dataset.batch_scale((0, first)))
        assert batch.hr.shape == (2, 3, 40, 40) and batch.lr.shape == (2, 3, side, side)
        ways = [resize(hr.numpy(), side, side) for hr in (batch.hr[0].permute(1, 2, 0), batch.hr[0].permute(2, 1, 0))]
        lr = batch.lr[0].permute(1, 2, 0).numpy().astype(int)
        assert min(np.abs(way - lr).max() for way in (ways[0], ways[1].swapaxes(0, 1))) <= 1
        sides.add(side)
    assert len(sides) > 5


@pytest.mark.parametrize("more", [{}, {"scales": (1.0, 41.0)}, {"scales": (1.0, 4.0), "draw": lambda *key: {}}])
def test_hr_patches_of_one_size_need_scales_and_bicubic_lr(photographs: Path, more: dict) -> None:
    with pytest.raises(ValueError, match=r"data\.hr_patch is 40: it needs data\.scales up to it"):
        make(photographs, hr_patch=40, **more)


def test_scales_through_worker_processes(tmp_path: Path) -> None:
    save(tmp_path / "hr" / "a.png", 60, 50)
    dataset, runs = scaled(tmp_path / "hr"), []
    for workers in (0, 2):
        loader = DataLoader(dataset, batch_sampler=EpochBatchSampler(40, 8, 4, 0, 2), collate_fn=collate_pairs,
                            num_workers=workers)  # fmt: skip
        runs.append(list(loader))
    assert len({batch.hr.shape[-1] for batch in runs[0]}) > 3
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one.lr, other.lr) and torch.equal(one.hr, other.hr)


def test_lr_folders_fit_neither_scales_nor_degradation(photographs: Path, tmp_path: Path) -> None:
    for more, what in (({"scales": (1.0, 4.0)}, "data.scales"), ({"draw": lambda *key: {}}, "kind realesrgan")):
        with pytest.raises(ValueError, match=f"data.lr_train holds the LR images of one scale, but .*{what} makes"):
            make(photographs, lr=photographs, **more)


def test_images_must_hold_the_patch_of_the_largest_scale(photographs: Path) -> None:
    assert len(make(photographs, scales=(1.0, 4.0)).files) == 3
    dataset = make(photographs, scales=(1.0, 5.0))  # 40 pixels, and one image is 32, another 39 pixels narrow
    assert [file.name for file, _ in dataset.files] == ["0.png"] and len(dataset.too_small) == 2
    assert {dataset[0, k]["hr"].shape[-1] for k in range(40)} <= set(range(8, 41))
