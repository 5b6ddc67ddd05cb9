"""SR alone on large images: in tiles, strip by strip, the same image and never the whole of it in floating point."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from inference import main
from models import build_sr
from models.tiling.whole import run_tiles
from prediction.stage_times import StageTimes
from prediction.super_resolver import SuperResolver
from tests.prediction.running import noise
from utils.checkpoint import save_network
from utils.convert import to_image, to_tensor

HEIGHT, WIDTH = 150, 170


class LargestTensor(TorchDispatchMode):
    """Notes the most numbers of a floating-point tensor that is made meanwhile."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                self.numbers = max(self.numbers, value.numel())
        return result


@pytest.fixture
def network(tmp_path: Path) -> torch.nn.Module:
    torch.manual_seed(0)
    network = build_sr("edsr", 2, {"n_blocks": 1, "n_feats": 16}).eval()
    with torch.no_grad():  # as built it is nearly interpolation
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    save_network(tmp_path / "sr.pth", "sr", network.spec["name"], network.spec["args"], network.state_dict(), {})
    return network


def resolver(folder: Path, memory_mb: int = 16, **options) -> SuperResolver:
    return SuperResolver(folder / "sr.pth", device="cpu", memory_mb=memory_mb, **options)


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (7, 6000), (6000, 7)])
def test_a_large_image_is_that_of_one_call(tmp_path, network, shape):
    image = noise(*shape, 3)
    whole, small = resolver(tmp_path, 4096), resolver(tmp_path)
    assert not whole.inference.tile and image.size / 3 > small._at_once
    expected, watch = whole.image(image), LargestTensor()
    with watch:
        found = small.image(image)
    assert found.shape == expected.shape and np.abs(found.astype(int) - expected).max() <= 1
    assert (found != expected).mean() < 1e-3  # rounding
    assert 0 < watch.numbers <= 4 * 16 * small._at_once  # the widest layer of one tile with its halo
    with LargestTensor() as watch:
        whole.image(image)
    assert watch.numbers >= 4 * 16 * image.size / 3


def test_tiles_are_set_together_bit_for_bit(tmp_path, network):
    image = noise(HEIGHT, WIDTH, 3)
    tiles = to_image(run_tiles(network, to_tensor(image, "cpu"), (2 * HEIGHT, 2 * WIDTH), 40).detach())
    np.testing.assert_array_equal(resolver(tmp_path, tile=40).image(image), tiles)
    average = resolver(tmp_path, 4096, self_ensemble=True).image(image).astype(int)
    assert np.abs(resolver(tmp_path, tile=40, self_ensemble=True).image(image) - average).max() <= 1
    assert np.abs(tiles - average).max() > 1


def test_stages_within_one_another_are_told_apart(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    times = StageTimes(torch.device("cpu"))
    with times.measure("saving"):  # 0
        assert list(times.over("SR", "ab")) == ["a", "b"]  # three times one second, of the end too: 1 to 6
    with times.measure("saving"):  # 8, 9
        pass
    assert times.seconds == {"SR": 3.0, "saving": (7 - 3) + 1}


def run(tmp_path: Path, *options: str) -> int:
    given = ["--weights", str(tmp_path / "sr.pth"), "--source", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    return main(["--sr-only", "--device=cpu", "--memory-mb=16", *given, *options])


def test_files_of_large_images(tmp_path, network, capsys):
    (tmp_path / "in").mkdir()
    image = noise(HEIGHT, WIDTH, 3)
    Image.fromarray(image).save(tmp_path / "in" / "a.png")
    assert run(tmp_path) == 0
    assert f"{WIDTH}x{HEIGHT} -> {2 * WIDTH}x{2 * HEIGHT}" in capsys.readouterr().out
    written = np.array(Image.open(tmp_path / "out" / "a.png"))
    np.testing.assert_array_equal(written, resolver(tmp_path).image(image))


def test_what_goes_wrong_in_the_middle_leaves_no_file(tmp_path, network, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    for name in "ab":
        Image.fromarray(noise(HEIGHT, WIDTH, 3)).save(tmp_path / "in" / f"{name}.png")
    calls, forward = [], type(network).forward

    def failing(self, lr):
        calls.append(lr.shape)
        if len(calls) == 6:
            return forward(self, lr) * float("nan")
        if len(calls) == 12:
            raise MemoryError
        return forward(self, lr)

    monkeypatch.setattr(type(network), "forward", failing)
    assert run(tmp_path, "--tile=40") == 1
    shown = capsys.readouterr()
    assert "a.png: skipped, the network gives NaN" in shown.out and "b.png: skipped, out of memory" in shown.out
    assert "2 files, 0 images, 2 files skipped" in shown.out
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".results"]
