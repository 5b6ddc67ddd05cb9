"""data/sr_pairs.py: training patches, cut and turned alike, a pure function of seed, epoch and index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from configs.sr_schema import SRDataConfig
from data.degradation import degrade_bicubic
from data.image_cache import ImageCache
from data.images import ImageError, read_rgb
from data.sr_pairs import SRPairDataset, _planes
from tests.data.drawn_pairs import LIMIT, make, save


def dihedral(image: np.ndarray, symmetry: int) -> np.ndarray:
    """One of the eight symmetries of the square, 0..7 (0 changes nothing), of a square image (n, n, C); a view."""
    if symmetry & 1:
        image = image[:, ::-1]
    if symmetry & 2:
        image = image[::-1]
    return image.transpose(1, 0, 2) if symmetry & 4 else image


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_patches_are_cut_from_whole_images(photographs: Path, scale: int) -> None:
    """Some symmetry of the sample is found in the HR image, and at the same place of the LR image."""
    dataset = make(photographs, scale)
    for index in range(20):
        sample = dataset[0, index]
        lr, hr = (sample[key].permute(1, 2, 0).numpy() for key in ("lr", "hr"))
        assert lr.shape == (8, 8, 3) and hr.shape == (8 * scale, 8 * scale, 3) and hr.dtype == np.uint8
        whole = read_rgb(sample["file"], LIMIT)
        height, width = (size // scale * scale for size in whole.shape[:2])
        small = degrade_bicubic(whole[:height, :width], scale)
        assert any(
            np.array_equal(dihedral(small[y : y + 8, x : x + 8], k), lr)
            and np.array_equal(dihedral(whole[scale * y : scale * (y + 8), scale * x : scale * (x + 8)], k), hr)
            for y in range(small.shape[0] - 7)
            for x in range(small.shape[1] - 7)
            for k in range(8)
        )


def test_samples_are_a_pure_function_of_seed_epoch_and_index(photographs: Path) -> None:
    first, second = make(photographs), make(photographs, cache=ImageCache("none"))
    second[3, 5]
    for key in ((0, 0), (0, 1), (1, 0), (7, 39)):
        for name in ("lr", "hr"):
            assert torch.equal(first[key][name], second[key][name])
    assert not torch.equal(first[0, 0]["hr"], first[1, 0]["hr"])
    assert not torch.equal(first[0, 0]["hr"], make(photographs, seed=2)[0, 0]["hr"])


def test_all_images_positions_and_symmetries_occur(tmp_path: Path) -> None:
    image = save(tmp_path / "hr" / "a.png", 18, 18)
    dataset = make(tmp_path / "hr", samples_per_epoch=400)
    seen = {dataset[0, k]["hr"].permute(1, 2, 0).numpy().tobytes() for k in range(400)}
    cuts = [image[y : y + 16, x : x + 16] for y in (0, 2) for x in (0, 2)]
    assert seen == {np.ascontiguousarray(dihedral(cut, k)).tobytes() for cut in cuts for k in range(8)}


def test_patches_can_be_mirrored_alone(tmp_path: Path) -> None:
    image = save(tmp_path / "hr" / "a.png", 16, 16)
    dataset = make(tmp_path / "hr", symmetries="mirror")
    seen = {dataset[0, k]["hr"].permute(1, 2, 0).numpy().tobytes() for k in range(40)}
    assert seen == {image.tobytes(), np.ascontiguousarray(image[:, ::-1]).tobytes()}


def test_eight_symmetries() -> None:
    square = np.arange(27).reshape(3, 3, 3)
    expected = [np.rot90(x, k) for x in (square, square[:, ::-1]) for k in range(4)]
    assert {dihedral(square, k).tobytes() for k in range(8)} == {x.tobytes() for x in expected}
    np.testing.assert_array_equal(dihedral(square, 0), square)


@pytest.mark.parametrize("ending", ["", "x2"])
def test_lr_folder(photographs: Path, tmp_path: Path, ending: str) -> None:
    for file in photographs.rglob("*.png"):
        hr = read_rgb(file, LIMIT)
        lr = 255 - hr[1 : hr.shape[0] // 2 * 2 : 2, 1 : hr.shape[1] // 2 * 2 : 2]
        target = tmp_path / "lr" / file.parent.name / f"{file.stem}{ending}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(lr).save(target)
    dataset = make(photographs, lr=tmp_path / "lr")
    lr, hr = dataset.pair(0)
    np.testing.assert_array_equal(lr, 255 - hr[1::2, 1::2])
    assert dataset[0, 0]["lr"].shape == (3, 8, 8)
    next((tmp_path / "lr").rglob("*.png")).unlink()
    with pytest.raises(ImageError, match=r"no LR image for .*png; add .*\.png"):
        make(photographs, lr=tmp_path / "lr")


def test_lr_of_another_scale(tmp_path: Path) -> None:
    save(tmp_path / "hr" / "a.png", 64, 64)
    save(tmp_path / "lr" / "a.png", 16, 16)
    with pytest.raises(ImageError, match=r"lr.a\.png: 16x16 pixels, but HR has 64x64, which is not x2; wrong scale"):
        make(tmp_path / "hr", lr=tmp_path / "lr")
    make(tmp_path / "hr", 4, lr=tmp_path / "lr")


def test_too_small_images_are_left_out_and_listed(photographs: Path, tmp_path: Path) -> None:
    before = make(photographs).files
    save(photographs / "small.png", 100, 15)
    dataset = make(photographs)
    assert dataset.files == before and dataset.too_small == [photographs / "small.png"]
    save(tmp_path / "tiny" / "a.png", 15, 100)
    with pytest.raises(ImageError, match=r"a\.png: this and all other .* 16x16; lower data\.patch"):
        make(tmp_path / "tiny")


def test_folders_that_do_not_fit(photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="no images"):
        make(tmp_path / "empty")
    with pytest.raises(ImageError, match="no such folder"):
        make(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"data\.train"):
        SRPairDataset(SRDataConfig(), 2, 0, ImageCache("none"))
    with pytest.raises(ValueError, match=r"data\.lr_train names 1 folders, but data\.train 2"):
        folder = str(photographs)
        SRPairDataset(SRDataConfig([folder, folder], [folder]), 2, 0, ImageCache("none"))


def test_cache(photographs: Path) -> None:
    dataset = make(photographs)
    before = dataset[0, 0]
    dataset.preload()
    for file in photographs.rglob("*.png"):
        file.unlink()
    assert torch.equal(dataset[0, 0]["hr"], before["hr"])
    with pytest.raises(ImageError, match="no such file"):
        lazy = make(save_one(photographs), cache=ImageCache("none"))
        next(photographs.rglob("*.png")).unlink()
        lazy[0, 0]


def save_one(folder: Path) -> Path:
    save(folder / "one.png", 40, 40)
    return folder


@pytest.mark.parametrize("kind", ["none", "memory", "disk"])
def test_the_cache_changes_nothing(photographs: Path, tmp_path: Path, kind: str) -> None:
    plain, cached = make(photographs), make(photographs, cache=ImageCache(kind, tmp_path / "cache"))
    cached.preload()
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == (6 if kind == "disk" else 0)
    for key in ((0, 0), (2, 9)):
        assert all(torch.equal(plain[key][name], cached[key][name]) for name in ("lr", "hr"))


@given(side=st.integers(1, 40), symmetry=st.integers(0, 7), top=st.integers(0, 3), seed=st.integers(0, 99))
def test_planes_are_the_symmetry_with_channels_first(side: int, symmetry: int, top: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (side + 4, side + 5, 3), dtype=np.uint8)
    image.setflags(write=False)
    patch = image[top : top + side, 2 : 2 + side]
    planes = _planes(patch, symmetry)
    assert planes.dtype == torch.uint8 and planes.is_contiguous()
    np.testing.assert_array_equal(planes.permute(1, 2, 0).numpy(), dihedral(patch, symmetry))


def test_planes_of_a_memory_mapped_patch(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    np.save(tmp_path / "a.npy", image)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    for symmetry in range(8):
        found = _planes(mapped[1:7, 2:8], symmetry).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(found, dihedral(image[1:7, 2:8], symmetry))
