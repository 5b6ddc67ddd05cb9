"""Kernels, JPEG and the second-order degradation as a whole."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from configs.sr_schema import DegradationConfig, DegradationStageConfig
from data.blur_kernels import embed, gaussian_kernel, identity, odd_size, random_kernel, random_sinc, sinc_kernel
from data.jpeg import jpeg, quantisation
from data.real_degradation import RealDegradation, add_noise, blur, draw_size, draw_stage
from data.sharpen import sharpen

CONFIG = DegradationConfig(kind="realesrgan")
SMALL = replace(CONFIG, first=replace(CONFIG.first, kernel=[3, 7]), second=replace(CONFIG.second, kernel=[3, 7]))


def picture(height: int = 48, width: int = 64) -> np.ndarray:
    """Smooth colours with an edge, uint8."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([4 * x, 5 * y, 2 * (x + y)], 2) % 256
    image[height // 3 : height // 2, width // 4 : width // 2] = (250, 30, 60)
    return image.astype(np.uint8)


def as_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255


def stacked(degradation: RealDegradation, keys: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
    draws = [degradation.draw(*key) for key in keys]
    return {name: torch.stack([draw[name] for draw in draws]) for name in draws[0]}


# ------------------------------------------------------------------------------------------------------------- kernels


def test_gaussian_kernel_has_its_standard_deviations_along_its_axes():
    kernel, axis = gaussian_kernel(41, (3.0, 1.5), math.pi / 6, "gaussian", 1.0).astype(float), np.arange(41) - 20
    y, x = np.meshgrid(axis, axis, indexing="ij")
    covariance = np.array([[(kernel * a * b).sum() for a in (x, y)] for b in (x, y)])
    turn = np.array([[math.cos(math.pi / 6), math.sin(math.pi / 6)], [-math.sin(math.pi / 6), math.cos(math.pi / 6)]])
    np.testing.assert_allclose(turn @ covariance @ turn.T, np.diag([9.0, 2.25]), atol=0.02)


def test_relatives_of_the_gaussian():
    plain = gaussian_kernel(15, (2.0, 2.0), 0.0, "gaussian", 1.0)
    np.testing.assert_allclose(gaussian_kernel(15, (2.0, 2.0), 0.0, "generalised", 1.0), plain, rtol=1e-6)
    plateau = gaussian_kernel(15, (2.0, 2.0), 0.0, "plateau", 2.0)
    q = (np.arange(15) - 7.0) ** 2 / 4
    np.testing.assert_allclose(plateau[7] / plateau[7, 7], 1 / (1 + q**2), rtol=1e-5)


def test_sinc_kernel_passes_low_and_stops_high_frequencies():
    cutoff, axis = math.pi / 3, np.arange(51) - 25
    kernel = sinc_kernel(51, cutoff).astype(float)
    response = {w: abs((kernel * np.cos(w * axis)).sum()) for w in (0.4 * cutoff, 2.0 * cutoff)}
    assert response[0.4 * cutoff] > 0.85 and response[2.0 * cutoff] < 0.1
    assert kernel.min() < 0, "it must ring"


def test_random_kernels_are_odd_sized_and_sum_to_one():
    rng, stage = np.random.default_rng(0), DegradationStageConfig()
    kernels = [random_kernel(rng, stage) for _ in range(200)]
    assert {kernel.shape[0] for kernel in kernels} == set(range(7, 22, 2))
    assert all(kernel.sum() == pytest.approx(1, abs=1e-4) for kernel in kernels)
    assert any(kernel.min() < -1e-4 for kernel in kernels), "no sinc kernel"
    assert any(not np.allclose(kernel, kernel.T, atol=1e-5) for kernel in kernels), "no anisotropic kernel"
    assert {odd_size(rng, [4, 8]) for _ in range(50)} == {5, 7, 9}


def test_blur_filters_each_image_with_its_own_kernel():
    images, box = torch.rand(2, 3, 9, 11), np.full((3, 3), 1 / 9, np.float32)
    out = blur(images, torch.from_numpy(np.stack([identity(5), embed(box, 5)])))
    torch.testing.assert_close(out[0], images[0])
    expected = torch.nn.functional.avg_pool2d(images[1], 3, 1)
    torch.testing.assert_close(out[1][:, 1:-1, 1:-1], expected)
    torch.testing.assert_close(blur(torch.ones(1, 3, 4, 5), torch.full((1, 21, 21), 1 / 441)), torch.ones(1, 3, 4, 5))


# ---------------------------------------------------------------------------------------------------------------- JPEG


@pytest.mark.parametrize("quality", [10, 30, 50, 75, 95])
def test_jpeg_agrees_with_pillow(quality: int):
    image, file = picture(), io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    expected = np.array(Image.open(file)).astype(int)
    found = (jpeg(as_tensor(image), torch.tensor([quality]))[0].permute(1, 2, 0) * 255).round().numpy()
    loss = np.abs(expected - image).mean()
    assert np.abs(found - expected).mean() < 0.25 * loss + 0.6
    assert np.abs(found - image).mean() == pytest.approx(loss, rel=0.1, abs=0.3)


def test_jpeg_takes_any_size_and_one_quality_per_image():
    images = as_tensor(picture(21, 13)).repeat(2, 1, 1, 1)
    found = jpeg(images, torch.tensor([20, 90]))
    assert found.shape == images.shape
    errors = (found - images).abs().mean((1, 2, 3))
    assert errors[0] > 1.5 * errors[1] > 0
    for row, quality in enumerate((20, 90)):
        torch.testing.assert_close(found[row], jpeg(images[row:][:1], torch.tensor([quality]))[0])


def test_quantisation_tables_are_those_of_libjpeg():
    file = io.BytesIO()
    for quality in (1, 25, 50, 80, 100):
        Image.fromarray(picture()).save(file := io.BytesIO(), "JPEG", quality=quality)
        tables = Image.open(file).quantization
        ours = quantisation(torch.tensor([quality]), torch.device("cpu"))[0]
        for number in (0, 1):
            assert sorted(tables[number]) == sorted(ours[number].flatten().int().tolist())


# -------------------------------------------------------------------------------------------------------- second order


def test_output_is_8_bit_of_the_size_asked_for():
    degradation, keys = RealDegradation(SMALL, 0), [(0, k) for k in range(4)]
    hr = as_tensor(picture()).repeat(4, 1, 1, 1)
    for epoch in range(6):  # other sizes, methods and orders
        lr = degradation(hr, stacked(degradation, keys), (epoch, 0), (12, 16))
        assert lr.shape == (4, 3, 12, 16) and lr.dtype == torch.float32
        torch.testing.assert_close(lr * 255, (lr * 255).round(), atol=1e-4, rtol=0)
        assert lr.min() >= 0 and lr.max() <= 1 and lr.std() > 0.02


def test_is_a_pure_function_of_seed_epoch_and_indices():
    hr, keys = as_tensor(picture()).repeat(3, 1, 1, 1), [(2, 5), (2, 9), (2, 1)]
    first, again, other = RealDegradation(SMALL, 1), RealDegradation(SMALL, 1), RealDegradation(SMALL, 2)
    first(hr, stacked(first, keys), (7, 7), (12, 16))
    torch.rand(5), np.random.rand(5)
    results = [d(hr, stacked(d, keys), keys[0], (12, 16)) for d in (first, again, other)]
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])
    whole, alone = stacked(first, keys), stacked(first, keys[1:2])
    assert all(torch.equal(whole[name][1:2], alone[name]) for name in whole), "draws depend on the batch"


def test_degrades_more_than_bicubic_and_keeps_the_picture():
    degradation, keys = RealDegradation(CONFIG, 0), [(0, k) for k in range(8)]
    hr = as_tensor(picture(96, 96)).repeat(8, 1, 1, 1)
    clean = torch.nn.functional.interpolate(hr, scale_factor=0.25, mode="area")
    lr = degradation(hr, stacked(degradation, keys), keys[0], (24, 24))
    errors = (lr - clean).abs().mean((1, 2, 3))
    assert errors.min() > 0.01 and errors.median() < 0.25
    correlation = np.corrcoef(lr.mean(0).flatten(), clean[0].flatten())[0, 1]
    assert correlation > 0.6


def test_without_any_of_its_parts_it_only_resizes():
    still = {"blur": 0.0, "resize": [0.0, 0.0, 1.0], "noise": [0.0, 0.0], "gaussian": 1.0, "jpeg": [100.0, 100.0]}
    config = replace(SMALL, first=replace(SMALL.first, **still), second=replace(SMALL.second, **still), final_sinc=0.0)
    degradation, flat = RealDegradation(config, 0), torch.full((1, 3, 32, 32), 100 / 255)
    lr = degradation(flat, stacked(degradation, [(0, 0)]), (0, 0), (8, 8))
    torch.testing.assert_close(lr, torch.full((1, 3, 8, 8), 100 / 255), atol=1.01 / 255, rtol=0)


@pytest.mark.parametrize("round_", [0, 1, 2])
def test_every_kernel_has_its_own_place(round_):
    """A wide blur is seen whichever of the three kernels it is, and each of them but once."""
    still = {"blur": 0.0, "resize": [0.0, 0.0, 1.0], "noise": [0.0, 0.0], "gaussian": 1.0, "jpeg": [100.0, 100.0]}
    config = replace(SMALL, first=replace(SMALL.first, **still), second=replace(SMALL.second, **still), final_sinc=0.0)
    degradation, hr = RealDegradation(config, 0), torch.full((1, 3, 32, 32), 0.5)
    hr[..., 16:] = 0.9
    draws = stacked(degradation, [(0, 0)])
    plain = degradation(hr, draws, (0, 0), (32, 32))
    draws["kernels"][:, round_] = 1 / 49
    blurred = degradation(hr, draws, (0, 0), (32, 32))
    expected = blur(hr, torch.full((1, 7, 7), 1 / 49))
    assert (plain - hr).abs().max() < 0.04
    assert (blurred - expected).abs().mean() < 0.01 < (plain - expected).abs().mean()
    assert (blurred - blur(expected, torch.full((1, 7, 7), 1 / 49))).abs().mean() > 0.005


def test_the_final_sinc_filter_stops_at_least_what_a_third_of_the_band_leaves(monkeypatch):
    cutoffs = []
    monkeypatch.setattr("data.blur_kernels.sinc_kernel", lambda size, cutoff: cutoffs.append(cutoff) or identity(size))
    rng = np.random.default_rng(0)
    for size in (7, 13, 21):
        for _ in range(200):
            random_sinc(rng, size, final=True)
    assert min(cutoffs) == pytest.approx(math.pi / 3, abs=0.05) and min(cutoffs) >= math.pi / 3
    assert max(cutoffs) <= math.pi
    cutoffs.clear()
    for _ in range(200):
        random_sinc(rng, 21)
    assert min(cutoffs) < math.pi / 3 - 0.2, "inside the rounds large kernels reach further down"


def test_it_shrinks_first_and_enlarges_to_the_size_of_lr_by_bicubic():
    keys, hr = [(0, k) for k in range(3)], as_tensor(picture(64, 64)).repeat(3, 1, 1, 1)
    plain, shrunk = RealDegradation(SMALL, 0), RealDegradation(replace(SMALL, shrink=4.0), 0)
    draws = stacked(plain, keys)
    small = plain(hr, draws, keys[0], (16, 16))
    large = shrunk(hr, draws, keys[0], (64, 64))
    expected = torch.nn.functional.interpolate(small, size=(64, 64), mode="bicubic").clamp(0, 1)
    # The quarter is rounded to 8 bit in one of them only.
    torch.testing.assert_close(large, expected, atol=2.1 / 255, rtol=0)
    torch.testing.assert_close(large * 255, (large * 255).round(), atol=1e-4, rtol=0)
    assert torch.equal(shrunk(hr, draws, keys[0], (16, 16)), small)


def test_what_is_learnt_is_sharpened_only_where_that_is_configured():
    hr = as_tensor(picture(64, 64))
    assert torch.equal(RealDegradation(SMALL, 0).target(hr), hr)
    target = RealDegradation(replace(SMALL, sharpen=True), 0).target(hr)
    assert torch.equal(target, sharpen(hr)) and not torch.equal(target, hr)


@pytest.mark.parametrize("gaussian", [True, False])
@pytest.mark.parametrize("grey", [True, False])
def test_noise_has_its_strength_and_colour(gaussian: bool, grey: bool):
    level, strength = 100 / 255, 0.05 if gaussian else 2.0
    numbers = torch.tensor([[float(gaussian), strength, float(grey)]], dtype=torch.float64)
    images = torch.full((1, 3, 64, 64), level)
    noise = add_noise(images, numbers, torch.Generator().manual_seed(0)) - images
    expected = strength if gaussian else strength * math.sqrt(100) / 255
    assert noise.std().item() == pytest.approx(expected, rel=0.05) and abs(noise.mean().item()) < 0.1 * expected
    assert torch.equal(noise[:, 0], noise[:, 1]) == grey


def test_draws_follow_their_probabilities():
    rng = np.random.default_rng(0)
    stage = replace(DegradationStageConfig(), kernel=[3, 5], blur=0.3, gaussian=0.8, grey=0.1, jpeg=[40.0, 50.0])
    drawn = [draw_stage(rng, stage) for _ in range(400)]
    kernels, numbers = [kernel for kernel, _ in drawn], np.array([values for _, values in drawn])
    assert np.mean([kernel.shape[0] > 1 for kernel in kernels]) == pytest.approx(0.3, abs=0.08)
    assert numbers[:, 0].mean() == pytest.approx(0.8, abs=0.08) and numbers[:, 2].mean() == pytest.approx(0.1, abs=0.06)
    assert numbers[:, 3].min() >= 40 and numbers[:, 3].max() <= 50
    sizes = np.array([draw_size(rng, DegradationStageConfig(), (100, 200)) for _ in range(400)])
    assert np.mean(sizes[:, 0] > 100) == pytest.approx(0.2, abs=0.07)
    assert np.mean(sizes[:, 0] == 100) == pytest.approx(0.1, abs=0.06)
    assert sizes[:, 0].min() < 20 and sizes[:, 0].max() <= 150


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"jpeg": [95.0, 30.0]}, r"data\.degradation\.second\.jpeg must be \[lowest, highest\], found \[95"),
        ({"sigma": [1.0]}, r"second\.sigma must be \[lowest, highest\]"),
        ({"kinds": [1.0, 2.0]}, r"second\.kinds must be 6 weights"),
        ({"resize": [0.0, 0.0, 0.0]}, r"second\.resize must be 3 weights, not all zero"),
    ],
)
def test_ranges_that_make_no_sense_are_refused(stage: dict, message: str):
    with pytest.raises(ValueError, match=message):
        RealDegradation(replace(CONFIG, second=replace(CONFIG.second, **stage)), 0)


@pytest.mark.gpu
def test_runs_on_the_gpu():
    degradation, keys = RealDegradation(SMALL, 0), [(0, k) for k in range(4)]
    draws = stacked(degradation, keys)
    draws["kernels"] = draws["kernels"].cuda()
    hr = as_tensor(picture()).repeat(4, 1, 1, 1).cuda()
    runs = [degradation(hr, draws, keys[0], (12, 16)) for _ in range(2)]
    assert runs[0].is_cuda and torch.equal(*runs)


def test_a_part_of_the_batches_has_one_round_only():
    hr, keys = as_tensor(picture(64, 64)), [(0, index) for index in range(200)]
    always, half, never = (RealDegradation(replace(SMALL, second_order=p), 3) for p in (1.0, 0.5, 0.0))
    share = sum(half.has_second_round(key) for key in keys) / len(keys)
    assert 0.4 < share < 0.6 and all(always.has_second_round(key) for key in keys)
    for key in keys[:6]:
        draws = stacked(half, [key])
        expected = (always if half.has_second_round(key) else never)(hr, draws, key, (16, 16))
        assert torch.equal(half(hr, draws, key, (16, 16)), expected)
        assert not torch.equal(always(hr, draws, key, (16, 16)), never(hr, draws, key, (16, 16)))
