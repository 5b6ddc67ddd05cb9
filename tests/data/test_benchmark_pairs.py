"""Benchmark images of data/sr_pairs.py: whole pairs of every published layout, at any scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.degradation import degrade_bicubic
from data.images import ImageError, read_rgb
from data.sr_pairs import benchmark_pairs
from tests.data.drawn_pairs import LIMIT, make, save
from tests.drawn import BENCHMARK_SIZES, draw_sr_benchmark, photograph
from tests.imresize import imresize
from utils.resize import resize


def test_prepared_folder_counts_as_its_hr_part(tmp_path: Path) -> None:
    hr = save(tmp_path / "HR" / "a.png", 40, 40)
    save(tmp_path / "LR_bicubic" / "X2" / "ax2.png", 20, 20)
    assert [file.name for file, _ in make(tmp_path).files] == ["a.png"]
    ((name, lr, same),) = benchmark_pairs(tmp_path, 2)
    assert name == "a"
    np.testing.assert_array_equal(same, hr)
    np.testing.assert_array_equal(lr, read_rgb(tmp_path / "LR_bicubic" / "X2" / "ax2.png", LIMIT))
    with pytest.raises(ImageError, match=r"X4: no such folder; give .*HR to have LR made by bicubic"):
        benchmark_pairs(tmp_path, 4)


def test_benchmark_from_plain_folder(tmp_path: Path) -> None:
    grey = save(tmp_path / "a.png", 21, 30)[:, :, 0]
    Image.fromarray(grey).save(tmp_path / "a.png")
    ((_, lr, hr),) = benchmark_pairs(tmp_path, 4)
    assert hr.shape == (20, 28, 3) and lr.shape == (5, 7, 3)
    np.testing.assert_array_equal(lr, degrade_bicubic(hr, 4))
    save(tmp_path / "b.png", 3, 30)
    with pytest.raises(ImageError, match=r"b\.png: 30x3 pixels give no LR pixel at x4"):
        benchmark_pairs(tmp_path, 4)


@pytest.mark.parametrize(("name", "images"), [("Set5", 5), ("Set14", 14)])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_real_benchmarks(shared_data, name: str, images: int, scale: int) -> None:
    pairs = benchmark_pairs(shared_data("sr_bench") / name, scale)
    assert [pair[0] for pair in pairs] == [f"img_{k:03d}" for k in range(1, images + 1)]
    assert all(hr.shape == (lr.shape[0] * scale, lr.shape[1] * scale, 3) for _, lr, hr in pairs)


def test_lr_made_from_more_hr_rows_than_are_there(shared_data) -> None:
    """BSD100 x3: HR has 480x320 pixels, LR 160x107."""
    folder = shared_data("sr_bench") / "BSD100"
    for _, lr, hr in benchmark_pairs(folder, 3)[:3]:
        assert sorted(hr.shape[:2]) == [318, 480] and hr.shape[0] == 3 * lr.shape[0] and hr.shape[1] == 3 * lr.shape[1]
        assert np.mean(np.abs(degrade_bicubic(hr, 3).astype(int) - lr)[3:-3, 3:-3] > 1) < 5e-3


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_benchmark_laid_out_as_the_published_ones(tmp_path: Path, scale: int) -> None:
    pairs = benchmark_pairs(draw_sr_benchmark(tmp_path), scale)
    assert [pair[0] for pair in pairs] == ["img_001", "img_002", "img_003"]
    for (_, lr, hr), size in zip(pairs, BENCHMARK_SIZES, strict=True):
        assert hr.shape == (*size, 3) == (lr.shape[0] * scale, lr.shape[1] * scale, 3)
        np.testing.assert_array_equal(lr, imresize(hr, 1 / scale))


def test_lr_of_a_drawn_image_made_from_more_hr_rows_than_are_there(tmp_path: Path) -> None:
    """As in BSD100 x3: 32 HR rows give 11 LR rows, of which the last stands for more than there is."""
    hr = photograph(32, 48)
    for path, image in (("HR/a.png", hr), ("LR_bicubic/X3/ax3.png", imresize(hr, 1 / 3))):
        (tmp_path / path).parent.mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / path)
    ((_, lr, cropped),) = benchmark_pairs(tmp_path, 3)
    assert lr.shape == (10, 16, 3)
    np.testing.assert_array_equal(cropped, hr[:30])
    assert np.abs(degrade_bicubic(cropped, 3).astype(int) - lr)[:-2].max() <= 1


@pytest.mark.parametrize("scale", [1.5, 2.7, 6])
def test_benchmarks_at_any_scale(tmp_path: Path, scale: float) -> None:
    save(tmp_path / "HR" / "a.png", 61, 50)
    save(tmp_path / "LR_bicubic" / "X2" / "ax2.png", 30, 25)
    folder = tmp_path if scale != 6 else tmp_path / "HR"
    ((_, lr, hr),) = benchmark_pairs(folder, scale)
    assert lr.shape[:2] == (int(61 / scale), int(50 / scale))
    assert hr.shape[:2] == tuple(round(side * scale) for side in lr.shape[:2])
    np.testing.assert_array_equal(lr, resize(hr, *lr.shape[:2]))
    given = save(tmp_path / "lr" / "a.png", *lr.shape[:2])
    np.testing.assert_array_equal(benchmark_pairs(folder, scale, lr_folder=tmp_path / "lr")[0][1], given)
