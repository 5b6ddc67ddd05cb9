"""The simulated device as a fixture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.simulated_cuda import SimulatedCuda

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def cuda() -> Iterator[SimulatedCuda]:
    """A device to itself; Accelerate, which remembers the device of the process, forgets it."""
    if torch.cuda.is_available():
        pytest.skip("a real GPU is here; tests marked gpu run on it")
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(True)
    with SimulatedCuda(ROOT) as device:
        yield device
    AcceleratorState._reset_state(True)
