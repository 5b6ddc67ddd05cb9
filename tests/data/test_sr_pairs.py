"""data/sr_pairs.py: training patches and benchmark images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from configs.sr_schema import SRDataConfig
from data.degradation import degrade_bicubic
from data.image_cache import ImageCache
from data.images import ImageError, read_rgb
from data.sampler import EpochBatchSampler
from data.sr_batch import collate_pairs
from data.sr_pairs import SRPairDataset, _planes, benchmark_pairs
from tests.drawn import BENCHMARK_SIZES, draw_sr_benchmark, photograph
from tests.imresize import imresize
from utils.resize import resize

LIMIT = 10**8


def dihedral(image: np.ndarray, symmetry: int) -> np.ndarray:
    """One of the eight symmetries of the square, 0..7 (0 changes nothing), of a square image (n, n, C); a view."""
    if symmetry & 1:
        image = image[:, ::-1]
    if symmetry & 2:
        image = image[::-1]
    return image.transpose(1, 0, 2) if symmetry & 4 else image


def save(path: Path, height: int, width: int, seed: int = 0) -> np.ndarray:
    image = np.random.default_rng((seed, height, width)).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return image


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    for number, (height, width) in enumerate(((41, 50), (32, 32), (60, 39))):
        save(tmp_path / "hr" / f"sub{number % 2}" / f"{number}.png", height, width)
    return tmp_path / "hr"


def make(folder: Path, scale: int = 2, lr: Path | None = None, **more) -> SRPairDataset:
    own = {"seed": 1, "cache": ImageCache("memory"), "scales": None, "draw": None}
    own |= {key: more.pop(key) for key in own.keys() & more.keys()}
    data = {"patch": 8, "samples_per_epoch": 40, "max_pixels": LIMIT, "on_bad_image": "error"} | more
    return SRPairDataset(SRDataConfig([str(folder)], [str(lr)] if lr else [], **data), scale, **own)


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


def test_bad_images_are_found_before_training(photographs: Path) -> None:
    save(photographs / "bad.png", 50, 50)
    (photographs / "bad.png").write_bytes((photographs / "bad.png").read_bytes()[:100])
    with pytest.raises(ImageError, match=r"bad\.png: truncated"):
        make(photographs)


def break_header(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def break_pixels(file: Path) -> None:
    """Header and end stay as they are, so that only decoding finds out."""
    content = bytearray(file.read_bytes())
    start = content.index(b"IDAT") + 4
    content[start : start + 200] = bytes(200)
    file.write_bytes(content)


@pytest.mark.parametrize("breaks", [break_header, break_pixels])
@pytest.mark.parametrize("kind", ["none", "memory", "disk"])
def test_a_bad_image_is_named_and_skipped(photographs: Path, tmp_path: Path, capsys, breaks, kind: str) -> None:
    good = make(photographs)
    save(photographs / "zz_bad.png", 50, 50)
    breaks(photographs / "zz_bad.png")
    dataset = make(photographs, on_bad_image="skip", cache=ImageCache(kind, tmp_path / "cache"))
    dataset.preload()
    keys = [(0, index) for index in range(40)]
    files = {Path(dataset[key]["file"]).name for key in keys}
    assert files == {file.name for file, _ in good.files}
    (note,) = dataset.notes()
    assert note.startswith(f"1 bad image skipped: {photographs / 'zz_bad.png'}: ") and "replace or remove" in note
    warned = capsys.readouterr().err
    assert warned.count("warning: skipped") == int(kind == "none" and breaks is break_pixels)
    if breaks is break_header:  # as if it were not there
        assert all(torch.equal(dataset[key]["hr"], good[key]["hr"]) for key in keys)


@pytest.mark.parametrize("breaks", [break_header, break_pixels])
def test_samples_beside_a_bad_image_do_not_depend_on_the_cache(photographs: Path, tmp_path: Path, breaks) -> None:
    save(photographs / "bad.png", 50, 50)
    breaks(photographs / "bad.png")
    caches = (ImageCache(kind, tmp_path / "cache") for kind in ("none", "memory", "disk"))
    first, *others = (make(photographs, on_bad_image="skip", cache=cache) for cache in caches)
    others[0].preload()
    for key in ((0, index) for index in range(40)):
        for other in others:
            assert all(torch.equal(first[key][name], other[key][name]) for name in ("lr", "hr"))


def test_bad_pixels_stop_the_run_where_that_is_asked_for(photographs: Path) -> None:
    save(photographs / "bad.png", 50, 50)
    break_pixels(photographs / "bad.png")
    dataset = make(photographs)
    with pytest.raises(ImageError, match=r"bad\.png: damaged or truncated"):
        dataset.preload()
    lazy = make(photographs, cache=ImageCache("none"))
    with pytest.raises(ImageError, match=r"bad\.png: damaged or truncated"):
        [lazy[0, index] for index in range(40)]


def test_too_many_bad_images_stop_the_run(photographs: Path, tmp_path: Path) -> None:
    for name in "ab":
        save(photographs / f"{name}.png", 50, 50)
        break_header(photographs / f"{name}.png")
    with pytest.raises(ImageError, match=r"b\.png: truncated .*, and 2 of 5 images cannot be used, too many"):
        make(photographs, on_bad_image="skip")
    for breaks in (break_header, break_pixels):
        file = tmp_path / breaks.__name__ / "only.png"
        save(file, 50, 50)
        breaks(file)
        with pytest.raises(ImageError, match=r"only\.png: "):
            make(file.parent, on_bad_image="skip").preload()


def test_a_bad_lr_image_takes_its_pair_along(photographs: Path, tmp_path: Path) -> None:
    for file in photographs.rglob("*.png"):
        hr = read_rgb(file, LIMIT)
        save(tmp_path / "lr" / file.relative_to(photographs), hr.shape[0] // 2, hr.shape[1] // 2)
    bad = sorted((tmp_path / "lr").rglob("*.png"))[1]
    for breaks in (break_pixels, break_header):
        breaks(bad)
        dataset = make(photographs, lr=tmp_path / "lr", on_bad_image="skip", cache=ImageCache("none"))
        seen = {Path(dataset[0, index]["file"]).name for index in range(40)}
        assert len(seen) == 2 and bad.name not in seen and str(bad) in dataset.notes()[0]


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


def test_batches_do_not_depend_on_workers(photographs: Path) -> None:
    dataset = make(photographs)
    dataset.preload()
    runs = []
    for workers in (0, 2):
        sampler = EpochBatchSampler(len(dataset), 8, 4, 0, 2)
        loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=collate_pairs, num_workers=workers)
        runs.append(list(loader))
    assert len(runs[0]) == 10
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one.lr, other.lr) and torch.equal(one.hr, other.hr) and one.files == other.files


def test_batch_moves_and_converts(photographs: Path) -> None:
    dataset = make(photographs)
    batch = collate_pairs([dataset[0, 0], dataset[0, 1]])
    assert batch.lr.dtype == torch.uint8 and batch.lr.shape == (2, 3, 8, 8) and len(batch.files) == 2
    moved = batch.to("cpu")
    assert moved.hr.dtype == torch.float32 and moved.hr.min() >= 0 and moved.hr.max() <= 1
    assert torch.equal((moved.hr * 255).round().byte(), batch.hr)
    assert torch.equal(moved.to("cpu").lr, moved.lr)


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


# ------------------------------------------------------------------------------------ scales and degradation on the way


def scaled(folder: Path, scales: tuple[float, float] = (1.0, 4.0), **more) -> SRPairDataset:
    return make(folder, scales=scales, patch=6, **more)


def test_a_micro_batch_shares_a_scale_that_its_first_sample_decides(tmp_path: Path) -> None:
    save(tmp_path / "hr" / "a.png", 60, 50)
    save(tmp_path / "hr" / "b.png", 41, 47)
    dataset, sides = scaled(tmp_path / "hr"), set()
    for first in range(0, 40, 4):
        batch = collate_pairs(dataset.__getitems__([(1, first + k) for k in range(4)]))
        scale = dataset.batch_scale((1, first))
        side = round(6 * scale)
        assert batch.lr.shape == (4, 3, 6, 6) and batch.hr.shape == (4, 3, side, side) and 1 <= scale <= 4
        assert batch.keys == [(1, first + k) for k in range(4)] and batch.indices[2] == first + 2 and batch.epoch == 1
        sides.add(side)
        for lr, hr in zip(batch.lr, batch.hr, strict=True):
            # A patch that was turned had its columns resized first.
            ways = [resize(hr.permute(1, 2, 0).numpy(), 6, 6), resize(hr.permute(2, 1, 0).numpy(), 6, 6).swapaxes(0, 1)]
            assert min(np.abs(way.astype(int) - lr.permute(1, 2, 0).numpy()).max() for way in ways) <= 1
    assert len(sides) > 4
    again = scaled(tmp_path / "hr", cache=ImageCache("none"))
    one, other = (d.__getitems__([(3, 5), (3, 2)]) for d in (dataset, again))
    assert all(torch.equal(one[k][name], other[k][name]) for k in (0, 1) for name in ("lr", "hr"))


def test_hr_patches_of_one_size(tmp_path: Path) -> None:
    """LR has as many pixels as fit, the factor is then a little larger than the one drawn."""
    save(tmp_path / "hr" / "a.png", 60, 50)
    save(tmp_path / "hr" / "small.png", 39, 60)
    dataset, sides = scaled(tmp_path / "hr", (1.0, 8.0), hr_patch=40), set()
    assert [file.name for file, _ in dataset.files] == ["a.png"]
    for first in range(30):
        batch = collate_pairs(dataset.__getitems__([(0, first), (0, first + 1)]))
        side = int(40 / dataset.batch_scale((0, first)))
        assert batch.hr.shape == (2, 3, 40, 40) and batch.lr.shape == (2, 3, side, side)
        ways = [resize(hr.numpy(), side, side) for hr in (batch.hr[0].permute(1, 2, 0), batch.hr[0].permute(2, 1, 0))]
        lr = batch.lr[0].permute(1, 2, 0).numpy().astype(int)
        assert min(np.abs(way - lr).max() for way in (ways[0], ways[1].swapaxes(0, 1))) <= 1
        sides.add(side)
    assert len(sides) > 5


@pytest.mark.parametrize("more", [{}, {"scales": (1.0, 41.0)}, {"scales": (1.0, 4.0), "draw": lambda *key: {}}])
def test_hr_patches_of_one_size_need_scales_and_bicubic_lr(photographs: Path, more: dict) -> None:
    with pytest.raises(ValueError, match=r"data\.hr_patch is 40: it needs data\.scales up to it"):
        make(photographs, hr_patch=40, **more)


def test_scales_through_worker_processes(tmp_path: Path) -> None:
    save(tmp_path / "hr" / "a.png", 60, 50)
    dataset, runs = scaled(tmp_path / "hr"), []
    for workers in (0, 2):
        loader = DataLoader(dataset, batch_sampler=EpochBatchSampler(40, 8, 4, 0, 2), collate_fn=collate_pairs,
                            num_workers=workers)  # fmt: skip
        runs.append(list(loader))
    assert len({batch.hr.shape[-1] for batch in runs[0]}) > 3
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one.lr, other.lr) and torch.equal(one.hr, other.hr)


def test_drawn_numbers_travel_with_their_samples(photographs: Path) -> None:
    def draw(epoch: int, index: int) -> dict[str, torch.Tensor]:
        return {"kernels": torch.full((2, 2), float(index)), "numbers": torch.tensor([epoch], dtype=torch.float64)}

    dataset = make(photographs, draw=draw)
    batch = collate_pairs(dataset.__getitems__([(7, 3), (7, 1)]))
    assert batch.lr is None and batch.hr.shape == (2, 3, 16, 16)
    moved = batch.to("cpu")
    assert moved.lr is None and moved.hr.dtype == torch.float32 and moved.draws["numbers"].dtype == torch.float64
    assert moved.draws["kernels"][:, 0, 0].tolist() == [3, 1] and moved.draws["numbers"].flatten().tolist() == [7, 7]


def test_lr_folders_fit_neither_scales_nor_degradation(photographs: Path, tmp_path: Path) -> None:
    for more, what in (({"scales": (1.0, 4.0)}, "data.scales"), ({"draw": lambda *key: {}}, "kind realesrgan")):
        with pytest.raises(ValueError, match=f"data.lr_train holds the LR images of one scale, but .*{what} makes"):
            make(photographs, lr=photographs, **more)


def test_images_must_hold_the_patch_of_the_largest_scale(photographs: Path) -> None:
    assert len(make(photographs, scales=(1.0, 4.0)).files) == 3
    dataset = make(photographs, scales=(1.0, 5.0))  # 40 pixels, and one image is 32, another 39 pixels narrow
    assert [file.name for file, _ in dataset.files] == ["0.png"] and len(dataset.too_small) == 2
    assert {dataset[0, k]["hr"].shape[-1] for k in range(40)} <= set(range(8, 41))


@pytest.mark.parametrize("kind", ["none", "memory", "disk"])
def test_the_cache_changes_nothing(photographs: Path, tmp_path: Path, kind: str) -> None:
    plain, cached = make(photographs), make(photographs, cache=ImageCache(kind, tmp_path / "cache"))
    cached.preload()
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == (6 if kind == "disk" else 0)
    for key in ((0, 0), (2, 9)):
        assert all(torch.equal(plain[key][name], cached[key][name]) for name in ("lr", "hr"))


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
