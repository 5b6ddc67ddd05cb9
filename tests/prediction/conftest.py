"""A system with a masker, one without, and a folder of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models import build_sr
from models.conditional_sr import ConditionalSR
from models.detector_yolo import YoloDetector
from models.execution import Execution
from models.masker import Masker
from models.single_sr import SingleSR
from models.system import ConditionalSRDetector
from tests.prediction.running import NAMES, liven_up, noise, save_plain
from utils.checkpoint import save_network


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    quality = build_sr("edsr", 4, {"n_blocks": 1, "n_feats": 8})
    front = ConditionalSR(Masker(4, 4), build_sr("espcn", 4), quality, Execution(halo=1))
    system = ConditionalSRDetector(front, YoloDetector("yolov8n.yaml", NAMES))
    liven_up(system)
    path = tmp_path_factory.mktemp("weights") / "system.pth"
    save_network(path, "system", system.spec["name"], system.spec["args"], system.state_dict(), {})
    return path


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
