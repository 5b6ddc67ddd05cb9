"""data/prepare_sr_data.py: sub-images for SR training."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs.sr_schema import SRDataConfig
from data.degradation import degrade_bicubic
from data.image_cache import ImageCache
from data.images import read_rgb
from data.prepare_sr_data import main, starts
from data.sr_pairs import SRPairDataset

LIMIT = 10**8


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, (height, width) in {"a.png": (61, 100), "sub/b.png": (30, 25)}.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(tmp_path / "in" / name)
    return tmp_path / "in"


def prepare(source: Path, out: Path, *more: str) -> int:
    return main(["--source", str(source), "--out", str(out), "--size", "48", "--step", "24", *more])


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_starts() -> None:
    assert starts(100, 48, 24) == [0, 24, 48, 52]
    assert starts(96, 48, 24) == [0, 24, 48]
    assert starts(48, 48, 24) == starts(10, 48, 24) == [0]


def test_sub_images_cover_the_image_and_fit_their_lr(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = tree(source)
    assert prepare(source, out) == 0
    assert tree(source) == before
    whole = read_rgb(source / "a.png", LIMIT)[:60, :96]  # multiples of 12
    places = [(y, x) for y in (0, 12) for x in (0, 24, 48)]
    assert len(list((out / "HR").glob("*.png"))) == len(places)
    for number, (y, x) in enumerate(places, start=1):
        hr = read_rgb(out / "HR" / f"a_s{number:03d}.png", LIMIT)
        np.testing.assert_array_equal(hr, whole[y : y + 48, x : x + 48])
        for scale in (2, 3, 4):
            lr = read_rgb(out / "LR_bicubic" / f"X{scale}" / f"a_s{number:03d}x{scale}.png", LIMIT)
            expected = degrade_bicubic(whole, scale)[y // scale : (y + 48) // scale, x // scale : (x + 48) // scale]
            np.testing.assert_array_equal(lr, expected)
    assert read_rgb(out / "HR" / "sub" / "b_s001.png", LIMIT).shape == (24, 24, 3)
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]


def test_result_serves_training(source: Path, tmp_path: Path) -> None:
    prepare(source, tmp_path / "out", "--scales", "4")
    hr_folder, lr_folder = tmp_path / "out" / "HR", tmp_path / "out" / "LR_bicubic" / "X4"
    data = SRDataConfig([str(hr_folder)], [str(lr_folder)], patch=6, samples_per_epoch=10)
    dataset = SRPairDataset(data, 4, 0, ImageCache("none"))
    # Cropped to multiples of 4 only, a.png (60x100) takes one more column of sub-images than 60x96 does.
    assert len(dataset.files) == 9 and dataset[0, 0]["hr"].shape == (3, 24, 24)
    assert not (tmp_path / "out" / "LR_bicubic" / "X2").exists()


def test_bad_images_are_named_and_counted(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (source / "broken.png").write_bytes((source / "a.png").read_bytes()[:500])
    Image.fromarray(np.zeros((5, 80, 3), np.uint8)).save(source / "flat.png")
    assert prepare(source, tmp_path / "out") == 1
    captured = capsys.readouterr()
    assert "broken.png: truncated" in captured.err and "flat.png: 80x5 pixels" in captured.err
    assert "7 sub-images of 2 images" in captured.out and "2 skipped" in captured.out
    assert len(tree(tmp_path / "out")) == 7 * 4


def test_nothing_is_overwritten(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit) as caught:
        prepare(source, out)
    assert caught.value.code == 2 and "not empty" in capsys.readouterr().err and tree(out) == {"mine.txt": b"mine"}
    assert prepare(source, out, "--overwrite") == 0
    first = tree(out)
    assert first["mine.txt"] == b"mine" and len(first) == 29
    assert prepare(source, out, "--overwrite") == 0 and tree(out) == first


def test_same_stem_twice_keeps_both(source: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((24, 24, 3), np.uint8)).save(source / "a.bmp")
    assert prepare(source, tmp_path / "out") == 0
    assert len(list((tmp_path / "out" / "HR").glob("a_s*.png"))) == 1
    assert len(list((tmp_path / "out" / "HR").glob("a__s*.png"))) == 6


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--size", "50"], "--size 50 must be a multiple of 12"),
        (["--step", "0"], "--step 0 must be a multiple"),
        (["--scales", "5"], "invalid choice"),
        (["--source", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_bad_arguments(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture, more: list, message: str) -> None:
    with pytest.raises(SystemExit) as caught:
        prepare(source, tmp_path / "out", *more)
    assert caught.value.code == 2 and message in capsys.readouterr().err


def test_folders_in_each_other_and_without_images(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for out in (source, source / "out", source.parent):
        with pytest.raises(SystemExit):
            prepare(source, out, "--overwrite")
        assert "lie in each other" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert prepare(tmp_path / "empty", tmp_path / "out") == 1
    assert "no images" in capsys.readouterr().err


def test_runs_as_a_script_from_anywhere(source: Path, tmp_path: Path) -> None:
    script = Path(__file__).resolve().parents[2] / "data" / "prepare_sr_data.py"
    command = [sys.executable, str(script), "--source", "in", "--out", "out", "--size", "48", "--step", "24"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(tree(tmp_path / "out")) == 7 * 4
    light = subprocess.run(
        [sys.executable, "-X", "importtime", str(script), "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert light.returncode == 0 and "--step" in light.stdout and "numpy" not in light.stderr
