"""Seconds spent per stage of a run: reading, SR, detection, saving."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import nn


class StageTimes:
    """Seconds spent per stage; CUDA is waited for, so that a stage pays for its own kernels only. Of stages within one
    another each is told without those inside."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: dict[str, float] = {}
        self._inside = 0.0

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to `stage`."""
        around, self._inside, start = self._inside, 0.0, time.perf_counter()
        try:
            yield
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        finally:
            spent = time.perf_counter() - start
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent - self._inside
            self._inside = around + spent

    @contextmanager
    def of_calls(self, modules: Mapping[str, nn.Module]) -> Iterator[None]:
        """Every call of a module is measured as the stage of its name, and no more in the stage that it is part of."""
        running, handles = ExitStack(), []
        for stage, module in modules.items():
            begin = partial(self._begin, running, stage)
            handles += [
                module.register_forward_pre_hook(begin),
                module.register_forward_hook(lambda *_: running.close()),
            ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _begin(self, running: ExitStack, stage: str, *_: object) -> None:
        running.enter_context(self.measure(stage))

    def over(self, stage: str, items: Iterable) -> Iterator:
        """Pass items on; the time it takes to get each one belongs to `stage`."""
        iterator, end = iter(items), object()
        while True:
            with self.measure(stage):
                item = next(iterator, end)
            if item is end:
                return
            yield item

    def per_image(self, images: int) -> str:
        """`1.2ms reading, 30.4ms SR, ...`."""
        return ", ".join(f"{seconds * 1e3 / max(images, 1):.1f}ms {stage}" for stage, seconds in self.seconds.items())
