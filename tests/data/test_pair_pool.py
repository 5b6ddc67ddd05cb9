"""data/pair_pool.py: every pair once an epoch, no two of one degraded batch together, the same after a resume."""

from __future__ import annotations

import itertools

import pytest
import torch

from data.pair_pool import PairPool
from data.sampler import EpochBatchSampler
from data.sr_batch import SRBatch


def degrade(hr: torch.Tensor, draws: dict, key: tuple[int, int], size: tuple[int, int]) -> torch.Tensor:
    """An LR image of one value, which tells the batch that it was degraded in."""
    return torch.full((len(hr), 3, *size), key[1] / 255)


def stream(sampler: EpochBatchSampler):
    """HR patches whose value is their index."""
    for keys in sampler:
        hr = torch.stack([torch.full((3, 4, 4), index / 255) for _, index in keys])
        yield SRBatch(None, hr, [f"{index}.png" for _, index in keys], keys)


def batches(pool: PairPool, start: int = 0, length: int = 40, batch: int = 4, world: int = 1, rank: int = 0) -> list:
    sampler = EpochBatchSampler(length, batch, batch // world, 3, 0, rank, world, start, lead=pool.lead)
    found = list(pool(stream(sampler)))
    assert len(list(sampler)) == len(sampler)
    return found


@pytest.mark.parametrize("pairs", [0, 4, 6, 16, 90])
def test_every_pair_is_used_once_and_stays_together(pairs: int):
    pool = PairPool(degrade, 2, pairs, 4)
    found = batches(pool)
    assert len(found) == 10
    indices = [round(255 * hr[0, 0, 0].item()) for batch in found for hr in batch.hr]
    assert sorted(indices) == list(range(40))
    order = EpochBatchSampler(40, 4, 4, 3, 0).order().reshape(-1, 4)
    for batch in found:
        assert batch.lr.shape == (4, 3, 2, 2)
        for lr, hr, file, key in zip(batch.lr, batch.hr, batch.files, batch.keys, strict=True):
            index, first = (round(255 * image[0, 0, 0].item()) for image in (hr, lr))
            (row,) = [row for row in order if index in row]
            assert row[0] == first and file == f"{index}.png" and key == (0, index)


def test_a_deep_pool_joins_differently_degraded_pairs():
    assert PairPool(degrade, 2, 6, 4).depth == 4
    for batch in batches(PairPool(degrade, 2, 6, 4)):
        assert len({lr[0, 0, 0].item() for lr in batch.lr}) == 4
    for batch in batches(PairPool(degrade, 2, 0, 4)):
        assert len({lr[0, 0, 0].item() for lr in batch.lr}) == 1


@pytest.mark.parametrize(("start", "world"), list(itertools.product((1, 4, 9), (1, 2))))
def test_a_resumed_epoch_goes_on_with_the_same_batches(start: int, world: int):
    for rank in range(world):
        whole, rest = (batches(PairPool(degrade, 2, 6, 4 // world), s, world=world, rank=rank) for s in (0, start))
        assert len(rest) == len(whole) - start
        for one, other in zip(whole[start:], rest, strict=True):
            assert torch.equal(one.lr, other.lr) and torch.equal(one.hr, other.hr) and one.files == other.files


def test_a_pool_need_be_no_multiple_of_the_batch():
    """A queue of 256 pairs emptied by batches of 6 would run short; here any number of pairs is held back."""
    pool = PairPool(degrade, 2, 256, 6)
    found = batches(pool, length=605, batch=6)
    assert len(found) == 100, "the last, short batch is left out"
    files = [file for batch in found for file in batch.files]
    assert len(files) == len(set(files)) == 600 and all(batch.lr.shape[0] == 6 for batch in found)


def test_degraded_and_learnt_is_the_same_target():
    seen = []

    def noted(hr, draws, key, size):
        seen.append(hr)
        return degrade(hr, draws, key, size)

    found = batches(PairPool(noted, 2, 0, 4, target=lambda hr: hr / 2), length=8)
    indices = [key[1] for batch in found for key in batch.keys]
    hr = torch.cat([batch.hr for batch in found])[:, 0, 0, 0]
    torch.testing.assert_close(torch.cat(seen)[:, 0, 0, 0] * 510, torch.tensor(indices).float())
    torch.testing.assert_close(hr * 510, torch.tensor(indices).float(), atol=1.01, rtol=0)
