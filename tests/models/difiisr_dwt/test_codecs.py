"""Codecs V1 ... V5: shapes, what a perfect code gives, standardisation, no hidden state, gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from models.difiisr_dwt.codecs import CODECS, LearnedResize, build_codec
from models.difiisr_dwt.dwt import WAVELETS
from utils.errors import UserError
from utils.resize import resize

every_codec = pytest.mark.parametrize("name", CODECS)
CHANNELS = {"v1": (3, 3, 3), "v2": (12, 12, 12), "v3": (12, 21, 30), "v4": (12, 21, 30), "v5": (12, 48, 192)}


def scene(side: int = 128) -> torch.Tensor:
    """An image with the spectrum of photographs (1/f), discs and lines; (1, 3, side, side) in [-1, 1]."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij"))
    spectrum = np.fft.rfft2(rng.normal(size=(side, side))) / np.maximum(frequency, 1 / side)
    image = np.fft.irfft2(spectrum, (side, side))
    image /= 4 * image.std()
    rows, columns = np.mgrid[:side, :side]
    for _ in range(12):
        row, column, radius, value = (
            rng.uniform(0, side),
            rng.uniform(0, side),
            rng.uniform(3, 14),
            rng.uniform(-0.5, 0.5),
        )
        image[np.hypot(rows - row, columns - column) < radius] += value
    image[np.abs(rows - 0.7 * columns - 9) < 1.2] = 0.6
    return torch.from_numpy(image.clip(-1, 1)).float().expand(1, 3, side, side).contiguous()


def enlarged(image: torch.Tensor) -> torch.Tensor:
    """Shrunk by 4 and enlarged again, by bicubic interpolation."""
    planes, side = image[0].permute(1, 2, 0).numpy(), image.shape[-1]
    return torch.from_numpy(resize(resize(planes, side // 4, side // 4), side, side)).permute(2, 0, 1)[None]


def psnr(image: torch.Tensor, other: torch.Tensor) -> float:
    return -10 * math.log10(max(1e-20, ((image - other) / 2).square().mean().item()))


@every_codec
@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("wavelet", WAVELETS)
def test_codes_have_the_published_shapes(name, levels, wavelet):
    codec = build_codec(name, wavelet, levels)
    image = torch.rand(2, 3, 16, 24)
    z, aux = codec.encode(image)
    assert z.shape == (2, CHANNELS[name][levels - 1], 16 // 2**levels, 24 // 2**levels) and codec.channels == z.shape[1]
    assert codec.decode(z, aux).shape == image.shape
    assert len(aux) == {"v1": levels, "v2": levels - 1}.get(name, 0)


@every_codec
def test_bands_come_coarsest_first(name):
    z = build_codec(name).encode(torch.full((1, 3, 8, 8), 0.5))[0]
    assert torch.allclose(z[:, :3], torch.tensor(2.0)) and z[:, 3:].abs().sum() == 0


@pytest.mark.parametrize("wavelet", WAVELETS)
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_the_lossless_codec_is_exact_whatever_the_statistics(wavelet, levels):
    codec, image = build_codec("v5", wavelet, levels), torch.rand(2, 3, 24, 40) * 2 - 1
    codec.set_statistics(torch.randn(codec.channels), torch.rand(codec.channels) + 0.01)
    assert (codec.decode(*codec.encode(image)) - image).abs().max() < 2e-6
    assert codec.lossless and not any(True for _ in codec.parameters())


@pytest.mark.parametrize("wavelet", WAVELETS)
def test_ceilings_with_perfect_codes(wavelet):
    """V1 < V2 < V4 < V5 = exact: the code is HR's, the rest is that of the enlarged LR image."""
    image = scene()
    lr, reached = enlarged(image), {}
    for name in CODECS:
        codec = build_codec(name, wavelet)
        reached[name] = psnr(codec.decode(codec.encode(image)[0], codec.encode(lr)[1]), image)
    bicubic = psnr(lr, image)
    assert bicubic < reached["v1"] < reached["v2"] < reached["v4"] < reached["v5"] and reached["v5"] > 120
    assert reached["v2"] < reached["v3"] < reached["v5"]


def test_aux_is_given_and_never_remembered():
    """A code decoded after another image was encoded has its own detail, in batches of any size."""
    codec, image, other = build_codec("v1"), torch.rand(1, 3, 16, 16), torch.rand(3, 3, 16, 16)
    z, aux = codec.encode(image)
    codec.encode(other)
    assert (codec.decode(z, aux) - image).abs().max() < 1e-6


def test_statistics_standardise_every_channel():
    codec = build_codec("v5")
    images = torch.cat([scene(64), scene(64).flip(-1) * 0.7 + 0.1, enlarged(scene(64))])
    z = codec.encode(images)[0]
    codec.set_statistics(z.mean((0, 2, 3)), z.std((0, 2, 3), unbiased=False))
    z = codec.encode(images)[0]
    assert z.mean((0, 2, 3)).abs().max() < 1e-4
    assert (z.std((0, 2, 3), unbiased=False) - 1).abs().max() < 1e-3
    assert set(codec.state_dict()) == {"mean", "std"}


def test_learned_resizing_begins_as_area_and_bilinear_and_has_243_parameters():
    layers = LearnedResize(2)
    assert sum(p.numel() for p in layers.parameters()) == 243
    detail = torch.rand(1, 9, 8, 8)
    small = layers.shrink(detail, 1)
    assert torch.allclose(small, torch.nn.functional.avg_pool2d(detail, 2))
    large = torch.nn.functional.interpolate(small, scale_factor=2.0, mode="bilinear")
    assert torch.allclose(layers.enlarge(small, 1)[..., 1:-1, 1:-1], large[..., 1:-1, 1:-1], atol=1e-6)
    assert layers.up[0].weight[0].sum().item() == pytest.approx(4)
    assert sum(p.numel() for p in LearnedResize(3).parameters()) == 2 * 243
    assert not list(LearnedResize(1).parameters())


@every_codec
def test_gradients_reach_the_code_through_decode(name):
    codec = build_codec(name)
    z, aux = codec.encode(torch.rand(1, 3, 16, 16))
    z = z.detach().requires_grad_()
    codec.decode(z, [part.detach() for part in aux]).square().sum().backward()
    assert z.grad.flatten(2).abs().sum(-1).min() > 0
    if name == "v4":
        assert codec.resize.up[0].weight.grad.abs().min() > 0 and codec.resize.down[0].weight.grad is None


def test_reconstruction_trains_both_learned_layers():
    codec, image = build_codec("v4"), scene(32)
    (codec.decode(*codec.encode(image)) - image).square().mean().backward()
    assert codec.resize.down[0].weight.grad.abs().sum() > 0 and codec.resize.up[0].weight.grad.abs().sum() > 0


def test_what_is_unknown_is_refused():
    with pytest.raises(UserError, match="codec 'v6' is unknown; use one of v1, v2, v3, v4, v5"):
        build_codec("v6")
    with pytest.raises(UserError, match="wavelet 'db4' is unknown; use one of haar"):
        build_codec("v5", "db4")
    with pytest.raises(UserError, match="levels is 4"):
        build_codec("v5", "haar", 4)
