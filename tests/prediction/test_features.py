"""`.features(image)` of the Python API: of SR networks alone, and of the parts of a system."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from loading.systems import load_system
from models import build_sr
from models.feature_maps import feature_maps
from models.single_sr import SingleSR
from prediction.api import ConditionalYOLO
from prediction.super_resolver import SuperResolver
from tests.prediction.running import noise, save_plain
from utils.checkpoint import save_network
from utils.convert import to_tensor
from utils.errors import UserError


@pytest.fixture
def sr_weights(tmp_path: Path) -> Path:
    network = build_sr("lm_lte", 2, {"n_blocks": 1, "n_feats": 8})
    save_network(tmp_path / "sr.pth", "sr", "lm_lte", network.spec["args"], network.state_dict(), {})
    return tmp_path / "sr.pth"


def test_of_an_sr_network_alone(sr_weights: Path, tmp_path: Path):
    image = noise(17, 23, 3)
    Image.fromarray(image).save(tmp_path / "image.png")
    resolver = SuperResolver(sr_weights, device="cpu")
    found = ConditionalYOLO(sr_weights, device="cpu").features(tmp_path / "image.png")
    assert found.shape == (8, 17, 23) and found.dtype == torch.float32 and found.device.type == "cpu"
    assert torch.equal(found, resolver.features(image, channels="rgb"))
    assert torch.equal(found, feature_maps(resolver.network, to_tensor(image, "cpu"))[0])
    with pytest.raises(UserError, match="holds an SR network alone; leave out part 'sr_fast'"):
        ConditionalYOLO(sr_weights, device="cpu").features(image, part="sr_fast", channels="rgb")


def test_of_the_parts_of_a_system(weights: Path):
    model, image = ConditionalYOLO(weights, device="cpu"), noise(17, 23, 3)
    front, lr = load_system(weights).front, to_tensor(image, "cpu")
    quality, fast = (model.features(image, part, channels="rgb") for part in ("sr_quality", "sr_fast"))
    assert torch.equal(quality, feature_maps(front.sr_quality, lr)[0]) and quality.shape == (8, 17, 23)
    assert torch.equal(fast, feature_maps(front.sr_fast, lr)[0]) and fast.shape == (32, 17, 23)
    assert torch.equal(model.features(image, channels="rgb"), quality)
    with pytest.raises(UserError, match="this system has no 'masker'; use one of sr_fast, sr_quality"):
        model.features(image, "masker", channels="rgb")


def test_what_has_none(plain_weights: Path, tmp_path: Path):
    with pytest.raises(UserError, match="bicubic has no features of the LR image"):
        ConditionalYOLO(plain_weights, device="cpu").features(noise(9, 8, 3), channels="rgb")
    one = ConditionalYOLO(save_plain(tmp_path / "one.pth", SingleSR(build_sr("espcn", 2))), device="cpu")
    assert one.features(noise(9, 8, 3), channels="rgb").shape == (32, 9, 8)


def test_one_image_at_a_time(sr_weights: Path):
    image = noise(9, 8, 3)
    with pytest.raises(UserError, match="the source holds several images; give one at a time"):
        SuperResolver(sr_weights, device="cpu").features([image, image], channels="rgb")
