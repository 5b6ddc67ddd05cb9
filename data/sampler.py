"""The order of training samples as a pure function of (seed, epoch), so that a run can resume at any step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from utils.errors import UserError


class EpochBatchSampler:
    """Yields one list of (epoch, index) keys per micro-batch; a `batch_sampler` for `torch.utils.data.DataLoader`.

    Step g of the epoch takes `order[g * batch : (g + 1) * batch]` of one global permutation, whatever the number of
    processes. It is cut into micro-batches, and micro-batch j goes to process `j % world`. The tail that does not fill
    a batch is dropped; a set smaller than a batch is repeated to fill one.

    Args:
        length: samples in the data set.
        batch: samples per optimiser step, over all processes.
        micro_batch: samples per list; 0 means batch / world.
        seed: seed of the run.
        epoch: epoch, counted from 0.
        rank: number of this process.
        world: number of processes.
        start_step: steps of this epoch that are already done.
        lead: micro-batches of this process before `start_step` that come first, around the end of the epoch.
        shuffle: permute; otherwise the order is 0, 1, 2, ...

    Raises:
        ValueError: an empty data set, or sizes that do not fit each other.
    """

    def __init__(
        self,
        length: int,
        batch: int,
        micro_batch: int,
        seed: int,
        epoch: int,
        rank: int = 0,
        world: int = 1,
        start_step: int = 0,
        shuffle: bool = True,
        lead: int = 0,
    ):
        if length < 1:
            raise UserError("the data set is empty: nothing to sample from")
        if batch < 1 or micro_batch < 0:
            raise UserError(f"batch must be at least 1 and micro_batch at least 0, got {batch} and {micro_batch}")
        if not 0 <= rank < world:
            raise UserError(f"rank must lie in 0..{world - 1}, got {rank}")
        micro_batch = micro_batch or max(batch // world, 1)
        if batch % (micro_batch * world):
            raise UserError(
                f"batch {batch} is no multiple of micro_batch x processes = {micro_batch} x {world}; change one of them"
            )
        self.length, self.batch, self.micro_batch = length, batch, micro_batch
        self.seed, self.epoch, self.shuffle = seed, epoch, shuffle
        self.rank, self.world, self.start_step, self.lead = rank, world, start_step, lead
        if not 0 <= start_step <= self.steps:
            raise UserError(f"start_step {start_step} lies outside this epoch of {self.steps} steps")

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole epoch, those before `start_step` included."""
        return max(self.length // self.batch, 1)

    def order(self) -> np.ndarray:
        """Sample indices of the whole epoch over all processes, int64 (steps * batch,)."""
        order = np.arange(self.length)
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        return np.resize(order, self.steps * self.batch)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        micro_batches = self.order().reshape(self.steps, -1, self.world, self.micro_batch)
        own = micro_batches[:, :, self.rank].reshape(-1, self.micro_batch)
        first = self.start_step * len(own) // self.steps - self.lead
        for number in range(first, len(own)):
            yield [(self.epoch, int(index)) for index in own[number % len(own)]]

    def __len__(self) -> int:
        """Micro-batches that this process still gets."""
        return self.lead + (self.steps - self.start_step) * self.batch // (self.micro_batch * self.world)
