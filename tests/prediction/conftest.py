"""A system with a masker, one without, and a folder of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models import build_sr
from models.single_sr import SingleSR
from tests.prediction.running import noise, save_plain, save_small


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return save_small(tmp_path_factory.mktemp("weights") / "system.pth")


@pytest.fixture(scope="module")
def yolov8n_weights(tmp_path_factory) -> Path:
    """The same with a YOLOv8n, whose boxes lie further apart than those of few layers."""
    return save_small(tmp_path_factory.mktemp("yolov8n") / "system.pth", "yolov8n.yaml")


@pytest.fixture(scope="module")
def plain_weights(tmp_path_factory) -> Path:
    """A system without a masker."""
    return save_plain(tmp_path_factory.mktemp("plain") / "system.pth", SingleSR(build_sr("bicubic", 3)))


@pytest.fixture
def good(tmp_path) -> Path:
    """Folder of readable files of many kinds."""
    folder = tmp_path / "good"
    (folder / "sub").mkdir(parents=True)
    Image.fromarray(noise(17, 23, 3)).save(folder / "odd.png")
    Image.fromarray(noise(17, 23, 3, seed=1)).save(folder / "sub" / "odd.png")
    Image.fromarray(noise(16, 24)).save(folder / "grey.jpg")
    Image.fromarray(noise(9, 8, dtype=np.uint16)).save(folder / "deep.tif")
    Image.fromarray(noise(1, 1, 3)).save(folder / "dot.png")
    return folder
