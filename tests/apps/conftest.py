"""A small system, and the app that serves it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.apps.running import served
from tests.prediction.running import save_small


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return save_small(tmp_path_factory.mktemp("weights") / "system.pth", "yolov8n.yaml")


@pytest.fixture(scope="module")
def address(weights):
    with served("--weights", str(weights), "--max-pixels", "100000") as found:
        yield found
