"""prediction/image_input.py: whatever people have as images becomes the same RGB frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data.images import read_rgb
from data.sources import Skipped
from prediction.image_input import MAX_PIXELS, open_source, without_skipped
from tests.prediction.running import draw_video, noise
from utils.errors import UserError


def images(source, channels: str | None = None) -> list[np.ndarray]:
    return [frame.image for frame in open_source(source, channels, MAX_PIXELS)]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
def test_one_image_in_all_forms(height: int, width: int, seed: int):
    rgb = noise(height, width, 3, seed=seed)
    tensor = torch.from_numpy(rgb).permute(2, 0, 1)
    rgba = np.concatenate([rgb, noise(height, width, 1, seed=seed + 1)], axis=2)
    forms = [
        (rgb, "rgb"),
        (rgb[..., ::-1], "bgr"),
        (rgba, "rgb"),
        (rgba[..., [2, 1, 0, 3]], "bgr"),
        (rgb.astype(np.uint16) * 257, "rgb"),
        (rgb.astype(">u2") * 257, "rgb"),
        (rgb.astype(np.float64) / 255, "rgb"),
        (np.asfortranarray(rgb[..., ::-1].astype(np.float32) / 255), "bgr"),
        (Image.fromarray(rgb), None),
        (Image.fromarray(rgba), None),
        (tensor, None),
        (tensor.float() / 255, None),
        (tensor.to(torch.float64)[None] / 255, None),
    ]
    for form, channels in forms:
        (image,) = images(form, channels)
        assert image.dtype == np.uint8 and image.flags.c_contiguous and image.flags.writeable
        np.testing.assert_array_equal(image, rgb)
        (again,) = images([form], channels)
        np.testing.assert_array_equal(again, rgb)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (1, 1), (5, 3), (5, 4)])
def test_grey_is_repeated_and_needs_no_order(shape):
    grey = noise(*shape)
    for array in (grey, grey.astype(np.float32) / 255):
        (image,) = images(array)
        np.testing.assert_array_equal(image, np.repeat(grey.reshape(*shape[:2], 1), 3, 2))
    deep = noise(*shape, dtype=np.uint16)
    (image,) = images(deep)
    np.testing.assert_array_equal(image[..., 0], np.rint(deep.reshape(shape[:2]) / 257).astype(np.uint8))


def test_inputs_are_copied():
    rgb, tensor = noise(5, 7, 3), torch.rand(3, 5, 7)
    for source, held in ((rgb, rgb), (tensor, tensor.numpy())):
        before = held.copy()
        (image,) = images(source, "rgb")
        assert not np.shares_memory(image, held)
        image[:] = 7
        np.testing.assert_array_equal(held, before)


def test_a_buffer_that_is_filled_again_gives_different_frames():
    def camera():
        buffer = np.empty((4, 5, 3), np.uint8)
        for shade in range(3):
            buffer[:] = shade
            yield buffer

    assert [image.max() for image in images(camera(), "bgr")] == [0, 1, 2]


def test_a_batch_is_several_images_with_names_of_their_own():
    batch = torch.rand(3, 3, 4, 5)
    found = list(open_source([batch, np.zeros((2, 2), np.uint8)], None, MAX_PIXELS))
    assert [str(frame.file.path) for frame in found] == [f"image{n}.jpg" for n in range(4)]
    for frame, tensor in zip(found, batch, strict=False):
        np.testing.assert_array_equal(frame.image, (tensor * 255).round().byte().permute(1, 2, 0).numpy())


def test_files_of_every_kind(good: Path, tmp_path: Path):
    paths = sorted(good.rglob("*.*"))
    by_folder = list(open_source(good, None, MAX_PIXELS))
    assert (
        [frame.file.path for frame in by_folder] == paths == [f.file.path for f in open_source(str(good), None, 99999)]
    )
    for frame, path in zip(by_folder, paths, strict=True):
        np.testing.assert_array_equal(frame.image, read_rgb(path, MAX_PIXELS))
        with Image.open(path) as opened:
            (by_pillow,) = open_source(opened, None, MAX_PIXELS)
        np.testing.assert_array_equal(by_pillow.image, frame.image)
        assert by_pillow.file.path == path
    mixed = [good / "odd.png", noise(3, 3), str(good / "sub" / "*.png")]
    assert [image.shape[:2] for image in images(mixed)] == [(17, 23), (3, 3), (17, 23)]


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_turned_files_are_turned_upright_in_both_forms(tmp_path: Path, suffix: str, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    Image.fromarray(noise(8, 16, 3)).save(path, exif=exif)
    (by_path,) = images(path)
    with Image.open(path) as opened:
        (by_pillow,) = images(opened)
    np.testing.assert_array_equal(by_pillow, by_path)
    assert by_path.shape == ((16, 8, 3) if orientation > 4 else (8, 16, 3))


def test_videos_give_frames(tmp_path: Path):
    draw_video(tmp_path / "clip.mp4", 4)
    assert [frame.index for frame in open_source(tmp_path / "clip.mp4", None, MAX_PIXELS)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("source", "channels", "message"),
    [
        ([], None, "empty list"),
        ((), None, "empty list"),
        (0, None, "of type int"),
        (None, None, "of type NoneType"),
        ({"a": 1}, None, "of type dict"),
        ([noise(4, 4), 3.5], None, "of type float"),
        ("", None, "no source given"),
        ("nowhere.png", None, "no such file"),
        (noise(4, 4, 3), None, r"add channels='bgr' .* or channels='rgb'"),
        (noise(4, 4, 4), None, "order of its colours"),
        (noise(4, 4, 3), "RGB", "channels is 'RGB'"),
        (noise(4, 4), "grey", "channels is 'grey'"),
        (noise(3, 4, 5), "rgb", r"\(3, 4, 5\).*transpose\(1, 2, 0\)"),
        (noise(4, 4, 2), "rgb", r"shape \(4, 4, 2\)"),
        (noise(2, 4, 4, 3), "rgb", "a list of arrays"),
        (noise(0, 4, 3), "rgb", r"shape \(0, 4, 3\)"),
        (np.zeros(5, np.uint8), None, r"shape \(5,\)"),
        (np.zeros((4, 4), np.int64), None, "type int64"),
        (np.zeros((4, 4), bool), None, "type bool"),
        (np.full((4, 4), np.nan), None, "an array holds NaN"),
        (np.full((4, 4), 255.0), None, r"values from 255 to 255; .* divide by 255"),
        (np.full((4, 4), -0.1), None, "values from -0.1"),
        (np.full((4, 4), np.inf, np.float32), None, "values from inf"),
        (torch.full((3, 4, 4), torch.nan), None, "a tensor holds NaN"),
        (torch.full((3, 4, 4), 1.5), None, "values from 1.5"),
        (torch.zeros(4, 4, 3), None, r"permute\(2, 0, 1\)"),
        (torch.zeros(1, 4, 4), None, r"shape \(1, 4, 4\)"),
        (torch.zeros(0, 3, 4, 4), None, r"shape \(0, 3, 4, 4\)"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), None, "type torch.int64"),
    ],
)
def test_refusals(source, channels, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        images(source, channels)


def test_types_are_judged_before_anything_is_computed():
    with pytest.raises(UserError, match="of type float"):
        open_source([noise(4, 4), 3.5], None, MAX_PIXELS)


def test_an_address_that_does_not_answer_is_named():
    with pytest.raises(UserError, match=r"a\.png: no answer"):
        list(without_skipped(open_source("http://127.0.0.1:9/a.png", None, MAX_PIXELS), "error"))


def test_unreadable_files_raise_or_are_left_out(good: Path):
    (good / "a.png").write_text("no image")
    with pytest.raises(UserError, match=r"a\.png: not an image.*on_bad_image='skip'"):
        list(without_skipped(open_source(good, None, MAX_PIXELS), "error"))
    with pytest.warns(UserWarning, match=r"a\.png: not an image .*; left out"):
        kept = list(without_skipped(open_source(good, None, MAX_PIXELS), "skip"))
    assert len(kept) == 5 and not any(isinstance(item, Skipped) for item in kept)
    with pytest.raises(UserError, match="give 'error' or 'skip'"):
        without_skipped(open_source(good, None, MAX_PIXELS), "ignore")
