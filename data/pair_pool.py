"""LR-HR pairs made on the device, and mixed over batches so that a batch holds differently resized ones.

Images of one batch have to be resized alike while they are degraded. Real-ESRGAN therefore draws its batches from a
queue of pairs. Here the queue has no state of its own: sample j of a batch takes its pair from the micro-batch d_j
before, with fixed delays d_j spread over 0 ... depth - 1, around the end of the epoch. So every pair is used once an
epoch, and what a step sees stays a pure function of (seed, epoch): a resumed run fills the pool again by degrading the
last few micro-batches once more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from data.sr_batch import SRBatch

Degrade = Callable[[Tensor, dict[str, Tensor], tuple[int, int], tuple[int, int]], Tensor]
Target = Callable[[Tensor], Tensor]


class PairPool:
    """Degrades micro-batches of HR patches and mixes the pairs.

    Args:
        degrade: (HR (B, 3, H, W) in [0, 1], draws, first key, LR size) -> LR (B, 3, h, w) in whole 8-bit steps.
        patch: side of an LR patch in pixels.
        pairs: pairs held back, 0 mixes nothing.
        micro_batch: samples of a micro-batch.
        target: HR (B, 3, H, W) -> what is degraded and learnt; None: HR itself.
    """

    def __init__(self, degrade: Degrade, patch: int, pairs: int, micro_batch: int, target: Target | None = None):
        self.degrade, self.patch, self.target = degrade, patch, target or (lambda hr: hr)
        # Delays spread evenly over 0 ... depth - 1 hold (depth - 1) / 2 micro-batches back.
        self.depth = 1 + round(2 * pairs / micro_batch)

    @property
    def lead(self) -> int:
        """Micro-batches that must come before the first one that is wanted."""
        return self.depth - 1

    def __call__(self, batches: Iterable[SRBatch]) -> Iterator[SRBatch]:
        """One batch of pairs per micro-batch of HR patches (on the device, in [0, 1]) after the first `lead`."""
        line: deque[SRBatch] = deque(maxlen=self.depth)
        for batch in batches:
            hr = self.target(batch.hr)
            lr = self.degrade(hr, batch.draws, batch.keys[0], (self.patch, self.patch))
            # Both are whole 8-bit steps; the line would take four times the memory in float32.
            line.append(SRBatch(to_bytes(lr), to_bytes(hr), batch.files, batch.keys))
            if len(line) == self.depth:
                yield self.join(line)

    def join(self, line: deque[SRBatch]) -> SRBatch:
        """The batch whose sample j comes from the micro-batch d_j before the newest."""
        count = len(line[-1].files)
        places = [(line[-1 - slot * self.depth // count], slot) for slot in range(count)]
        lr, hr = (torch.stack([getattr(batch, name)[slot] for batch, slot in places]) for name in ("lr", "hr"))
        files, keys = ([getattr(batch, name)[slot] for batch, slot in places] for name in ("files", "keys"))
        return SRBatch(lr.float().div_(255), hr.float().div_(255), files, keys)


def to_bytes(image: Tensor) -> Tensor:
    """[0, 1] -> uint8."""
    return (image * 255).round().byte()
