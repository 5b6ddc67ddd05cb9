"""data/images.py: reading files of all kinds, refusing bad ones."""

from __future__ import annotations

import contextlib
import io
import pickle
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from data.image_files import (
    IMAGE_SUFFIXES,
    UNREAD_SUFFIXES,
    ImageError,
    list_images,
    unread_images,
    unread_note,
    warn_of_unread,
)
from data.images import check_image, inspect_image, read_rgb

LIMIT = 10**8

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


@pytest.fixture
def pixels() -> np.ndarray:
    """Smooth (20, 30, 3), so that JPEG keeps it nearly."""
    coarse = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((30, 20), Image.Resampling.BICUBIC))


def huge_png(side: int) -> bytes:
    """A valid PNG of side x side black pixels, 1 bit each: small on disk, huge in memory."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    row = b"\0" * (1 + (side + 7) // 8)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    body = zlib.compress(row * side, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def both_refuse(path: Path, *words: str, limit: int = LIMIT) -> None:
    """Both functions name the file and each of the words."""
    for read in (check_image, read_rgb):
        with pytest.raises(ImageError) as caught:
            read(path, limit)
        message = str(caught.value)
        assert message.startswith(f"{path}: ") and all(word in message for word in words), message
        assert caught.value.path == path and caught.value.remedy


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
def test_lossless_kinds_come_back(tmp_path: Path, pixels: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path, **({"lossless": True} if suffix == "webp" else {}))
    result = read_rgb(path, LIMIT)
    np.testing.assert_array_equal(result, pixels)
    assert result.flags.writeable and result.flags.c_contiguous
    assert check_image(path, LIMIT) == (20, 30)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "CMYK", "YCbCr"])
def test_colour_modes(tmp_path: Path, pixels: np.ndarray, mode: str) -> None:
    image = Image.fromarray(pixels).convert(mode)
    path = tmp_path / ("a.jpg" if mode in ("CMYK", "YCbCr") else "a.png")
    image.save(path, **({"quality": 100, "subsampling": 0} if path.suffix == ".jpg" else {}))
    result = read_rgb(path, LIMIT).astype(int)
    assert result.shape == (20, 30, 3)
    assert np.abs(result - np.asarray(image.convert("RGB"))).max() <= (8 if path.suffix == ".jpg" else 0)


def test_alpha_is_dropped_and_a_transparent_palette_keeps_its_colours(tmp_path: Path, pixels: np.ndarray) -> None:
    rgba = np.dstack([pixels, np.zeros((20, 30), np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png", LIMIT), pixels)
    palette = Image.fromarray(pixels).quantize(16)
    palette.save(tmp_path / "p.png", transparency=bytes(range(0, 160, 10)))
    np.testing.assert_array_equal(read_rgb(tmp_path / "p.png", LIMIT), np.asarray(palette.convert("RGB")))


def test_sixteen_bit_grey_is_scaled(tmp_path: Path) -> None:
    values = np.array([[0, 257, 128 * 257, 65535, 300]], np.uint16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(values).save(tmp_path / name)
        np.testing.assert_array_equal(read_rgb(tmp_path / name, LIMIT)[0, :, 1], [0, 1, 128, 255, 1])


def test_pixels_without_an_8_bit_form_are_refused(tmp_path: Path) -> None:
    for values, word in ((np.full((2, 2), 70000, np.int32), "32-bit"), (np.full((2, 2), 0.5, np.float32), "floating")):
        Image.fromarray(values).save(tmp_path / "a.tif")
        with pytest.raises(ImageError, match=word):
            read_rgb(tmp_path / "a.tif", LIMIT)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_exif_orientation(tmp_path: Path, pixels: np.ndarray, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path, exif=exif)
    result = read_rgb(path, LIMIT)
    with Image.open(path) as image:
        np.testing.assert_array_equal(result, np.asarray(ImageOps.exif_transpose(image).convert("RGB")))
    assert check_image(path, LIMIT) == result.shape[:2] == ((30, 20) if orientation >= 5 else (20, 30))


def test_damaged_exif_counts_as_upright(tmp_path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert read_rgb(tmp_path / "a.jpg", LIMIT).shape == (20, 30, 3)


def test_one_pixel(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.bmp"):
        Image.fromarray(np.full((1, 1, 3), 100, np.uint8)).save(tmp_path / name)
        assert check_image(tmp_path / name, LIMIT) == (1, 1)
        assert read_rgb(tmp_path / name, LIMIT).shape == (1, 1, 3)


def test_a_huge_image_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(huge_png(30_000))
    assert path.stat().st_size < 200_000
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        both_refuse(path, "30000x30000", "900,000,000", "100,000,000", "raise max_pixels")
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.1
    assert check_image(path, 10**9) == (30_000, 30_000)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_truncated(tmp_path: Path, pixels: np.ndarray, suffix: str, share: float) -> None:
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(pixels).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    both_refuse(path, "replace or remove")


@pytest.mark.parametrize(("suffix", "lost"), [("jpg", 1), ("jpg", 2), ("png", 12), ("png", 14)])
def test_only_the_end_marker_is_missing(tmp_path: Path, pixels: np.ndarray, suffix: str, lost: int) -> None:
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[:-lost])
    both_refuse(path, "truncated", "end marker")


def test_truncated_jpeg_with_a_whole_thumbnail(tmp_path: Path) -> None:
    """The thumbnail's end marker must not be taken for the image's."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise[:16, :16]).save(stream, "JPEG")
    path = tmp_path / "a.jpg"
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    segment = b"\xff\xec" + struct.pack(">H", len(stream.getvalue()) + 2) + stream.getvalue()
    path.write_bytes(data[:2] + segment + data[2:])
    assert check_image(path, LIMIT) == (64, 64)
    path.write_bytes((data[:2] + segment + data[2:])[:-1500])
    both_refuse(path, "truncated")


def test_data_behind_the_image_do_no_harm(tmp_path: Path, pixels: np.ndarray) -> None:
    for suffix in ("jpg", "png"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(pixels).save(path)
        path.write_bytes(path.read_bytes() + b"trailer" * 1000)
        assert check_image(path, LIMIT) == (20, 30) and read_rgb(path, LIMIT).shape == (20, 30, 3)


def test_files_that_are_no_images(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    both_refuse(tmp_path / "empty.png", "empty", "0 bytes")
    (tmp_path / "text.jpg").write_text("not an image at all")
    both_refuse(tmp_path / "text.jpg", "not an image")
    both_refuse(tmp_path / "missing.jpg", "no such file")
    (tmp_path / "folder.png").mkdir()
    both_refuse(tmp_path / "folder.png")


def test_damaged_bytes_never_end_in_another_error(tmp_path: Path, pixels: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    for suffix in ("jpg", "png", "bmp", "tif", "webp"):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()))
        whole = np.frombuffer(stream.getvalue(), np.uint8)
        for _ in range(60):
            data = whole.copy()
            data[rng.integers(0, len(data), 4)] = rng.integers(0, 256, 4)
            path = tmp_path / f"a.{suffix}"
            path.write_bytes(data.tobytes())
            for read in (check_image, read_rgb):
                with contextlib.suppress(ImageError):
                    read(path, 10**6)


def test_files_are_not_written_to_and_truncated_loading_stays_off(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels).save(path)
    before = path.read_bytes(), path.stat().st_mtime_ns
    check_image(path, LIMIT), read_rgb(path, LIMIT)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(ImageError("a.png", "bad", "remove it")))
    assert str(error) == "a.png: bad; remove it" and error.path == Path("a.png")


def test_list_images(tmp_path: Path) -> None:
    for name in ("b.PNG", "sub/a.jpg", "a.jpeg", "notes.txt", "._a.jpg", "sub/deep/c.tiff"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    names = [str(path.relative_to(tmp_path)) for path in list_images(tmp_path)]
    assert names == ["a.jpeg", "b.PNG", "sub/a.jpg", "sub/deep/c.tiff"]
    with pytest.raises(ImageError, match="no such folder"):
        list_images(tmp_path / "missing")


# Suffixes and formats


def exif_block(kind: int, value: bytes, count: int = 1, order: str = "<") -> bytes:
    """EXIF with nothing but the orientation, in a type of one's own."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(order + "HHI", 0x0112, kind, count) + value.ljust(4, b"\0")
    return b"Exif\0\0" + head + struct.pack(order + "IH", 8, 1) + entry + b"\0\0\0\0"


@pytest.mark.parametrize("value", [0, 9, 10, 255, 65535])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_an_orientation_outside_1_to_8_is_ignored(tmp_path, pixels, value, suffix) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path, exif=exif)
    assert check_image(path, LIMIT) == read_rgb(path, LIMIT).shape[:2] == (20, 30)


@pytest.mark.parametrize("kind", [1, 2, 5, 7, 10, 11, 12])
@pytest.mark.parametrize("order", "<>")
def test_an_orientation_of_another_type_is_ignored(tmp_path, pixels, kind, order) -> None:
    """BYTE, ASCII, RATIONAL, UNDEFINED, ...; and stage 1 gets the pixels instead of the file."""
    for value, count in ((b"\6", 1), (b"6\0", 2), (b"\6\0\6\0", 4)):
        Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif_block(kind, value, count, order))
        info = inspect_image(tmp_path / "a.jpg", LIMIT)
        assert (info.height, info.width) == read_rgb(tmp_path / "a.jpg", LIMIT).shape[:2] == (20, 30)


def test_common_images_are_read_alike_by_ultralytics(tmp_path, pixels) -> None:
    """`common` is a promise: the named suffix, and the same height, width and (nearly) pixels by its reader."""
    from ultralytics.utils.patches import imread

    blocks = [exif_block(3, struct.pack(o + "H", n), 1, o) for o in "<>" for n in (1, 3, 6, 8, 9)]
    blocks += [exif_block(kind, b"\6", 1, o) for kind in (1, 2, 4, 7) for o in "<>"]
    found = []
    for number, exif in enumerate(blocks):
        path = tmp_path / f"{number}.jpg"
        Image.fromarray(pixels).save(path, exif=exif, quality=100, subsampling=0)
        if inspect_image(path, LIMIT).common is None:
            continue
        found.append(number)
        ours, theirs = read_rgb(path, LIMIT), imread(path)[..., ::-1]
        assert ours.shape == theirs.shape and np.abs(ours.astype(int) - theirs).max() <= 8
    assert found[:10] == list(range(10))


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "mpo", "avif", "jp2", "ppm", "pnm", "apng", "dib", "tga"])
def test_other_suffixes_are_images_too(tmp_path, pixels, suffix) -> None:
    path = tmp_path / f"a.{suffix}"
    kind = {"jfif": "JPEG", "jpe": "JPEG", "jp2": "JPEG2000", "pnm": "PPM", "apng": "PNG"}.get(suffix, suffix.upper())
    Image.fromarray(pixels).save(path, kind)
    if f".{suffix}" in UNREAD_SUFFIXES:
        pytest.skip(f"this Pillow does not read {suffix}")
    assert list_images(tmp_path) == [path] and unread_images(tmp_path) == []
    result = read_rgb(path, LIMIT)
    assert result.shape == (20, 30, 3) == (*check_image(path, LIMIT), 3)
    assert np.abs(result.astype(int) - pixels).mean() < 6


@pytest.mark.parametrize("suffix", ["avif", "jp2", "ppm", "tga", "mpo"])
def test_other_formats_are_refused_where_truncated(tmp_path, suffix) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise).save(path, {"jp2": "JPEG2000"}.get(suffix, suffix.upper()))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    both_refuse(path)


def test_what_nothing_reads_is_named_and_counted(tmp_path, capsys) -> None:
    for name in ("a.HEIC", "b.heic", "deep/c.dng", "d.exr", "e.png", "f.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    unread = unread_images(tmp_path)
    assert [path.name for path in unread] == ["a.HEIC", "b.heic", "d.exr", "c.dng"]
    note = unread_note(unread)
    assert note.startswith("4 files are left out, nothing here reads .heic (2)") and ".dng (1)" in note
    assert unread_note([]) == "" and not set(IMAGE_SUFFIXES) & set(UNREAD_SUFFIXES)
    warn_of_unread(tmp_path), warn_of_unread(tmp_path)
    assert capsys.readouterr().err.count("4 files are left out") == 1


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "heic"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git-LFS pointer"),
        (b"\xff\x0a" + bytes(50), "JPEG XL"),
        (b'<svg xmlns="http://www.w3.org/2000/svg">', "SVG"),
    ],
)
def test_what_a_foreign_file_is_is_said(tmp_path, content, word) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    both_refuse(tmp_path / "a.jpg", word)


def test_a_pfm_has_no_known_range(tmp_path) -> None:
    (tmp_path / "a.pfm").write_bytes(b"Pf\n4 3\n-1.0\n" + np.ones(12, "<f4").tobytes())
    both_refuse(tmp_path / "a.pfm", "floating-point")


def test_a_backslash_in_a_path_gets_a_hint(tmp_path) -> None:
    both_refuse(tmp_path / "images\\a.jpg", "no such file", "backslash")
