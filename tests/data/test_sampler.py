"""data/sampler.py: the order of samples."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from data.sampler import EpochBatchSampler


def step_keys(length: int, batch: int, micro: int, world: int, start: int = 0, **more) -> list[list[tuple[int, int]]]:
    """Keys of each step in global order, put together from all processes."""
    lists = [list(EpochBatchSampler(length, batch, micro, 7, 3, r, world, start, **more)) for r in range(world)]
    merged = [keys for turn in zip(*lists, strict=True) for keys in turn]
    flat = [key for keys in merged for key in keys]
    return [flat[k : k + batch] for k in range(0, len(flat), batch)]


@given(st.integers(1, 60), st.sampled_from([(12, 3, 4), (12, 3, 2), (12, 6, 1), (12, 1, 3), (12, 12, 1), (12, 0, 3)]))
@settings(max_examples=60, deadline=None)
def test_steps_do_not_depend_on_processes_or_micro_batches(length: int, layout: tuple[int, int, int]) -> None:
    batch, micro, world = layout
    assert step_keys(length, batch, micro, world) == step_keys(length, batch, batch, 1)


@given(st.integers(1, 60), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_resuming_yields_the_rest(length: int, start: int) -> None:
    sampler = EpochBatchSampler(length, 8, 2, 0, 1)
    start = min(start, sampler.steps)
    rest = EpochBatchSampler(length, 8, 2, 0, 1, start_step=start)
    assert list(rest) == list(sampler)[start * 4 :]
    assert len(rest) == len(list(rest)) and rest.steps == sampler.steps


def test_an_epoch_is_a_permutation_without_its_tail() -> None:
    sampler = EpochBatchSampler(50, 8, 8, 0, 0)
    indices = [index for keys in sampler for _, index in keys]
    assert sampler.steps == 6 and len(indices) == 48 == len(set(indices))
    assert all(epoch == 0 for keys in sampler for epoch, _ in keys)
    assert indices == [index for keys in EpochBatchSampler(50, 8, 8, 0, 0) for _, index in keys]


def test_seed_and_epoch_change_the_order() -> None:
    orders = {tuple(EpochBatchSampler(50, 10, 10, seed, epoch).order()) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4
    assert list(EpochBatchSampler(4, 2, 2, 0, 5, shuffle=False)) == [[(5, 0), (5, 1)], [(5, 2), (5, 3)]]


def test_a_small_set_is_repeated() -> None:
    (keys,) = EpochBatchSampler(3, 8, 8, 0, 0)
    indices = [index for _, index in keys]
    assert set(indices) == {0, 1, 2} and indices[:3] == indices[3:6]


def test_serves_a_data_loader() -> None:
    class Echo:
        def __getitem__(self, key: tuple[int, int]) -> tuple[int, int]:
            return key

        def __len__(self) -> int:
            return 10

    sampler = EpochBatchSampler(10, 4, 2, 0, 0)
    loader = DataLoader(Echo(), batch_sampler=sampler, collate_fn=list)
    assert list(loader) == list(sampler) and len(loader) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 0}, "empty"),
        ({"batch": 0}, "batch"),
        ({"micro_batch": 3}, "multiple"),
        ({"rank": 2, "world": 2}, "rank"),
        ({"micro_batch": 0, "world": 3}, "multiple"),
        ({"start_step": 3}, "start_step"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EpochBatchSampler(**({"length": 16, "batch": 8, "micro_batch": 4, "seed": 0, "epoch": 0} | arguments))
