"""data/pair_files.py: HR and LR files find each other, and LR files are never taken for HR files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs.sr_schema import SRDataConfig
from data.image_cache import ImageCache
from data.image_files import ImageError
from data.pair_files import find_pairs
from data.sr_pairs import SRPairDataset, benchmark_pairs


def draw(folder: Path, names: str, side: int = 24) -> None:
    for name in names.split():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((side, side, 3), 80, np.uint8)).save(folder / name)


def found(folder: Path, scale: float = 4) -> list[tuple[str, str | None]]:
    pairs = find_pairs(folder, None, scale)
    return [tuple(path and path.relative_to(folder).as_posix() for path in pair) for pair in pairs]


@pytest.mark.parametrize(
    ("hr", "lr"),
    [
        ("img_001_SRF_4_HR.png img_002_SRF_4_HR.png", "img_001_SRF_4_LR.png img_002_SRF_4_LR.png"),
        ("a_hr.png b_hr.png", "a_lr.jpg b_lr.jpg"),
        ("HR/a.png HR/b.png", "LR/a.png LR/b.png"),
        ("gt/a.png gt/b.png", "lr/a.png lr/b.png"),
        ("HR/a.png HR/b.png", "LRx4/a.png LRx4/b.png"),
        ("HR/a.png HR/b.png", "LR/ax4.png LR/bx4.png"),
        ("a.png b.png", "a_LR.png b_LR.png"),
        ("a.png b.png", "LR/a.png LR/b.png"),
        ("0001.png 0002.png", "0001x4.png 0002x4.png"),
        ("a-HR.png b-HR.png", "a-LRx4.png b-LRx4.png"),
    ],
)
def test_both_in_one_folder_are_pairs(tmp_path, hr, lr):
    draw(tmp_path, hr)
    draw(tmp_path, lr.replace(".jpg", ".png"), 6)
    assert found(tmp_path) == list(zip(sorted(hr.split()), sorted(lr.replace(".jpg", ".png").split())))
    pairs = benchmark_pairs(tmp_path, 4)
    assert [(lr.shape[0], hr.shape[0]) for _, lr, hr in pairs] == [(6, 24), (6, 24)]
    with pytest.raises(ImageError, match=r"not x2|not for x2"):
        benchmark_pairs(tmp_path, 2)


def test_results_of_others_beside_the_pairs_are_not_taken(tmp_path):
    draw(tmp_path, "img_1_HR.png img_1_bicubic.png img_1_SRCNN.png")
    draw(tmp_path, "img_1_LR.png", 6)
    assert found(tmp_path) == [("img_1_HR.png", "img_1_LR.png")]


@pytest.mark.parametrize(
    "names",
    ["a_HR.png b_HR.png a_LR.png", "a_HR.png a_LR.png b_LR.png", "HR/a.png LR/b.png", "a.png LR/b.png"],
)
def test_a_missing_partner_is_an_error(tmp_path, names):
    draw(tmp_path, names)
    with pytest.raises(ImageError, match=r"has no partner|holds HR and LR"):
        find_pairs(tmp_path, None, 4)


@pytest.mark.parametrize(
    "names", ["a.png b.png", "colr.png hrx.png", "a_LR.png b_LR.png", "x4.png a_x4.png", "LR/a.png"]
)
def test_other_names_mean_nothing(tmp_path, names):
    draw(tmp_path, names)
    assert found(tmp_path) == [(name, None) for name in sorted(names.split())]


def test_training_takes_the_pairs(tmp_path):
    draw(tmp_path, "a_HR.png b_HR.png", 48)
    draw(tmp_path, "a_LR.png b_LR.png", 12)
    data = SRDataConfig(train=[str(tmp_path)], patch=8)
    assert len(SRPairDataset(data, 4, 0, ImageCache("none")).files) == 2
    free = SRPairDataset(data, 4, 0, ImageCache("none"), scales=(1.0, 4.0))
    assert [pair[0].name for pair in free.files] == ["a_HR.png", "b_HR.png"]
