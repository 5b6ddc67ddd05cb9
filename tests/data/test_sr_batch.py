"""data/sr_batch.py: micro-batches, whoever loads them, and what becomes of them on the device."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.utils.data import DataLoader

from data.sampler import EpochBatchSampler
from data.sr_batch import collate_pairs
from tests.data.drawn_pairs import make


def test_batches_do_not_depend_on_workers(photographs: Path) -> None:
    dataset = make(photographs)
    dataset.preload()
    runs = []
    for workers in (0, 2):
        sampler = EpochBatchSampler(len(dataset), 8, 4, 0, 2)
        loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=collate_pairs, num_workers=workers)
        runs.append(list(loader))
    assert len(runs[0]) == 10
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one.lr, other.lr) and torch.equal(one.hr, other.hr) and one.files == other.files


def test_batch_moves_and_converts(photographs: Path) -> None:
    dataset = make(photographs)
    batch = collate_pairs([dataset[0, 0], dataset[0, 1]])
    assert batch.lr.dtype == torch.uint8 and batch.lr.shape == (2, 3, 8, 8) and len(batch.files) == 2
    moved = batch.to("cpu")
    assert moved.hr.dtype == torch.float32 and moved.hr.min() >= 0 and moved.hr.max() <= 1
    assert torch.equal((moved.hr * 255).round().byte(), batch.hr)
    assert torch.equal(moved.to("cpu").lr, moved.lr)


def test_drawn_numbers_travel_with_their_samples(photographs: Path) -> None:
    def draw(epoch: int, index: int) -> dict[str, torch.Tensor]:
        return {"kernels": torch.full((2, 2), float(index)), "numbers": torch.tensor([epoch], dtype=torch.float64)}

    dataset = make(photographs, draw=draw)
    batch = collate_pairs(dataset.__getitems__([(7, 3), (7, 1)]))
    assert batch.lr is None and batch.hr.shape == (2, 3, 16, 16)
    moved = batch.to("cpu")
    assert moved.lr is None and moved.hr.dtype == torch.float32 and moved.draws["numbers"].dtype == torch.float64
    assert moved.draws["kernels"][:, 0, 0].tolist() == [3, 1] and moved.draws["numbers"].flatten().tolist() == [7, 7]
