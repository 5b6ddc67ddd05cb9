"""What every test gets: no network, fixed seeds, `gpu` tests skipped without CUDA, and the shared data folder."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

# Before any library is imported, and inherited by the processes that tests start.
os.environ |= {"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0", "WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1"}
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(Path(__file__).resolve().parent / "offline"), os.environ.get("PYTHONPATH")])
)

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

# The same examples in every run, and no clock: other programs may keep the machine busy.
settings.register_profile("tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs CUDA, PyTorch sees no CUDA device here")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def seeds() -> None:
    """The same random numbers in every test, whatever ran before."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """shared_data("hit_uav") -> folder of that data set beside the checkout; skips the test where it is absent."""

    def find(name: str) -> Path:
        folder = ROOT.parent / "shared" / "data" / name
        if not folder.exists():
            pytest.skip(f"data set {name} is not on this machine ({folder})")
        return folder

    return find
