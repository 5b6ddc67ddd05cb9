"""Feature, attention and mask pictures: what is written, and that they show what happens where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from models import build_sr
from models.attention_maps import attention_maps
from models.capabilities import Capabilities
from models.conditional_sr import ConditionalSR
from models.detector_yolo import YoloDetector
from models.masker import Masker
from models.system import ConditionalSRDetector
from tests.drawn import draw_photographs
from tools.network_pictures import heat_map, main
from utils.checkpoint import save_network
from utils.errors import UserError


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return draw_photographs(tmp_path / "images", images=1, size=(21, 18)) / "0.png"


def save_sr(path: Path, name: str, args: dict) -> Path:
    network = build_sr(name, 2, args)
    save_network(path, "sr", network.spec["name"], network.spec["args"], network.state_dict(), {})
    return path


def draw(weights: Path, image: Path, out: Path, *more: str) -> set[str]:
    assert main([f"--weights={weights}", f"--image={image}", f"--out={out}", "--device=cpu", *more]) == 0
    return {file.name for file in out.iterdir()}


def test_features_and_channel_attention(tmp_path: Path, image: Path):
    weights = save_sr(tmp_path / "a.pth", "rcan", {"n_groups": 1, "n_blocks": 3, "n_feats": 16})
    files = draw(weights, image, tmp_path / "out", "--most=2")
    assert files >= {"features_mean.png", "features_channels.png"} and len(files) == 4
    attention = [Image.open(tmp_path / "out" / name) for name in files if name.startswith("attention_channels_")]
    assert [picture.size for picture in attention] == [(16 * 8, 32)] * 2
    assert Image.open(tmp_path / "out/features_mean.png").size == (18 * 19, 21 * 19)


def test_attention_to_places(tmp_path: Path, image: Path):
    weights = save_sr(tmp_path / "a.pth", "swinir_light", {"dim": 12, "n_groups": 1, "n_blocks": 2})
    files = draw(weights, image, tmp_path / "out")
    found = sorted(name for name in files if name.startswith("attention_places_"))
    assert len(found) == 2 and "blocks.1" in found[1]
    assert {Image.open(tmp_path / "out" / name).size for name in found} == {(18 * 19, 21 * 19)}


def test_masks_of_a_system(tmp_path: Path, image: Path):
    front = ConditionalSR(Masker(4, 4), build_sr("espcn", 2), build_sr("edsr", 2, {"n_blocks": 1, "n_feats": 8}))
    system = ConditionalSRDetector(front, YoloDetector("yolov8n.yaml", ["a"]))
    path = tmp_path / "system.pth"
    save_network(path, "system", system.spec["name"], system.spec["args"], system.state_dict(), {})
    files = draw(path, image, tmp_path / "out", "--policy=budget=0.5")
    assert files == {"features_mean.png", "features_channels.png", "mask_probability.png", "mask_kept.png"}
    kept = np.asarray(Image.open(tmp_path / "out/mask_kept.png"))
    assert (kept == (255, 140, 0)).all(-1).any(), "no outline of the kept patches"
    assert draw(path, image, tmp_path / "fast", "--part=sr_fast") == files
    plain = save_sr(tmp_path / "b.pth", "bicubic", {})
    for weights, more, message in (
        (plain, [], "bicubic has neither features nor attention"),
        (plain, ["--part=sr_fast"], "holds an SR network alone; leave out --part"),
    ):
        with pytest.raises(UserError, match=message):
            draw(weights, image, tmp_path / "no", *more)
    with pytest.raises(SystemExit):
        draw(path, image, tmp_path / "out")


class LooksAtLight(nn.Module):
    """Attention in windows of an image that is shifted by two pixels; bright places get all the weight."""

    capabilities = Capabilities(None, 0, tiling="overlap", size_multiple=4)
    scale, shift_size, spec = 1, 2, {"name": "light", "args": {}}

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        x = lr.mean(1).roll((-2, -2), (1, 2))
        rows, columns = x.shape[1] // 4, x.shape[2] // 4
        windows = x.view(rows, 4, columns, 4).transpose(1, 2).reshape(-1, 1, 1, 16)
        self.weights = (50 * windows).softmax(-1)
        return lr


def test_windows_are_put_back_to_where_they_lie():
    lr = torch.zeros(1, 3, 8, 12)
    lr[0, :, 3, 7] = 1
    (attention,) = attention_maps(LooksAtLight(), lr)
    assert attention.kind == "places" and attention.weights.shape == (8, 12)
    assert divmod(int(attention.weights.argmax()), 12) == (3, 7) and attention.weights[3, 7] > 0.99


def test_scaled_dot_product_attention_is_seen_with_its_mask():
    class Attends(nn.Module):
        capabilities = Capabilities(None, 0, tiling="overlap")
        scale, spec = 1, {"name": "attends", "args": {}}

        def forward(self, lr: torch.Tensor) -> torch.Tensor:
            tokens = lr.flatten(2).transpose(1, 2)[:, None]  # (1, 1, N, 3)
            mask = torch.arange(tokens.shape[2]) == 9
            nn.functional.scaled_dot_product_attention(tokens, tokens, tokens, mask.expand(len(mask), -1))
            return lr

    (attention,) = attention_maps(Attends(), torch.rand(1, 3, 4, 6))
    expected = torch.zeros(4, 6)
    expected[1, 3] = 1
    assert torch.equal(attention.weights, expected)


def test_heat_maps():
    picture = heat_map(np.array([[0.0, 1.0], [0.5, 2.0]]))
    assert picture.dtype == np.uint8 and picture.shape == (2, 2, 3)
    assert picture[1, 1, 0] > 200 and picture[1, 1, 2] < 80 and picture[0, 0, 2] > picture[0, 0, 1], "yellow, dark blue"
    assert (heat_map(np.full((2, 2), 3.0)) == heat_map(np.zeros((1, 1)))).all(), "a constant map has one colour"
    assert (heat_map(np.array([[0.5]]), 0, 1) == heat_map(np.array([[0.0, 0.5, 1.0]]))[:, 1]).all()
