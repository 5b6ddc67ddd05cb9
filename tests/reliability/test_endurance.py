"""Long runs: memory and open files do not grow."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from prediction.super_resolver import SuperResolver
from tests.prediction.running import noise
from tests.reliability.tiny_run import trainer_of

MOST_MEGABYTES = 1.0  # per 1,000


def resident() -> float:
    """Megabytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def slope(values: list[float], every: int) -> float:
    """Growth per 1,000, the first fifth left out."""
    kept = values[len(values) // 5 :]
    return float(np.polyfit(np.arange(len(kept)) * every / 1000, kept, 1)[0])


@pytest.mark.slow
def test_training_steps(tmp_path: Path, count, record):
    tried = count(0, 10_000)
    trainer, memory, files = trainer_of(tmp_path, epochs=tried // 2, every=50), [], []
    optimise = trainer.optimise

    def watched(batches, epoch):
        if trainer.step % 20 == 0:
            memory.append(resident())
            files.append(len(os.listdir("/proc/self/fd")))
        return optimise(batches, epoch)

    trainer.optimise = watched
    trainer.fit()
    growth = slope(memory, 20)
    note = f"{growth:+.3f} MB per 1,000 steps; open files {min(files[5:])} to {max(files)}"
    record("Endurance", "training steps", trainer.step, tried // 2 * 2, note)
    assert growth < MOST_MEGABYTES or tried < 2000, "too short to tell"


@pytest.mark.slow
def test_images(count, record):
    tried = count(0, 10_000)
    resolver, memory, done = SuperResolver("shipped", 4, "cpu"), [], 0
    resolver = SuperResolver(str(Path(resolver.weights).with_name("espcn_8_x4.safetensors")), 4, "cpu")
    for index in range(tried):
        if index % 20 == 0:
            memory.append(resident())
        done += resolver.image(noise(16 + index % 17, 16 + index % 13, 3, seed=index)).size > 0
    growth = slope(memory, 20)
    record("Endurance", "images of 221 sizes super-resolved", done, tried, f"{growth:+.3f} MB per 1,000 images")
    assert growth < MOST_MEGABYTES or tried < 2000, "too short to tell"
