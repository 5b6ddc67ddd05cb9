"""data/tiff.py: TIFF files that Pillow shows in wrong colours, or not at all."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data.image_files import ImageError
from data.images import check_image, inspect_image, read_rgb, to_8_bit

LIMIT = 10**8


def drawn(bits: int, bands: int, height: int = 21, width: int = 34) -> np.ndarray:
    """(H, W, bands) whose corners are red, green, blue and white in the first three bands."""
    values = np.full((height, width, bands), 90, np.uint16)
    corners = ((0, 0, (230, 30, 30)), (0, 1, (30, 200, 30)), (1, 0, (30, 30, 230)), (1, 1, (240, 240, 240)))
    for row, column, colour in corners:
        part = values[row * 12 : row * 12 + 9, column * 20 : column * 20 + 14]
        part[..., :3] = colour[: min(bands, 3)]
    return (values * 257).astype(np.uint16) if bits == 16 else values.astype(np.uint8)


def write(path: Path, values: np.ndarray, photometric: str, separate: bool = False, **options) -> Path:
    stored = np.moveaxis(values, -1, 0) if separate else values
    plain = values.shape[-1] == 1
    tifffile.imwrite(
        path, stored[..., 0] if plain else stored, photometric=photometric, metadata=None,
        planarconfig=None if plain else ("separate" if separate else "contig"), **options,
    )  # fmt: skip
    return path


def expected(values: np.ndarray, white_is_zero: bool = False) -> np.ndarray:
    shown = values[..., :3] if values.shape[-1] >= 3 else np.repeat(values[..., :1], 3, -1)
    shown = to_8_bit(shown) if shown.dtype == np.uint16 else shown
    return 255 - shown if white_is_zero else shown


def assert_reads(path: Path, wanted: np.ndarray) -> None:
    found = read_rgb(path, LIMIT)
    assert found.shape == wanted.shape == (*check_image(path, LIMIT), 3)
    assert np.abs(found.astype(int) - wanted).max() <= 1
    assert found.flags.writeable and found.flags.c_contiguous


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    bits=st.sampled_from((8, 16)), bands=st.integers(1, 4), separate=st.booleans(), order=st.sampled_from("<>"),
    photometric=st.sampled_from(("rgb", "minisblack", "miniswhite")), compression=st.sampled_from((None, "zlib")),
    predictor=st.booleans(), tile=st.sampled_from((None, (16, 16))), bigtiff=st.booleans(),
)  # fmt: skip
def test_every_layout_gives_its_colours(
    tmp_path, bits, bands, separate, order, photometric, compression, predictor, tile, bigtiff
):
    bands = max(bands, 3) if photometric == "rgb" else 1 if photometric == "miniswhite" else bands
    values = drawn(bits, bands)
    options = {"byteorder": order, "tile": tile, "bigtiff": bigtiff, "compression": compression}
    if compression:
        options["predictor"] = predictor
    path = write(tmp_path / "a.tif", values, photometric, separate and bands > 1, **options)
    assert_reads(path, expected(values, photometric == "miniswhite"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(tmp_path, orientation):
    """As for a TIFF file of a common kind, which Pillow turns by itself."""
    values = drawn(16, 3)
    tags = [(274, 3, 1, orientation, True)]
    odd = write(tmp_path / "odd.tif", values, "minisblack", separate=True, extratags=tags)
    common = write(tmp_path / "common.tif", to_8_bit(values), "rgb", extratags=tags)
    assert_reads(odd, read_rgb(common, LIMIT))


def lzw(content: bytes) -> bytes:
    """TIFF's LZW with nothing but codes of 9 bits: one for each byte, and a clear code before the table grows."""
    codes = []
    for start in range(0, len(content), 200):
        codes += [256, *content[start : start + 200]]
    bits = "".join(f"{code:09b}" for code in [*codes, 257])
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def lzw_tiff(path: Path, values: np.ndarray, photometric: int, separate: bool) -> Path:
    """A little-endian TIFF whose strips are compressed by LZW, which tifffile alone cannot undo."""
    height, width, bands = values.shape
    planes = [values[..., band] for band in range(bands)] if separate else [values]
    strips = [lzw(plane.tobytes()) for plane in planes]
    offsets, content = [], b"II*\0\0\0\0\0"
    for strip in strips:
        offsets.append(len(content))
        content += strip
    bits = 8 * values.itemsize
    lists = {258: (3, [bits] * bands), 273: (4, offsets), 279: (4, [len(strip) for strip in strips])}
    plain = {256: width, 257: height, 259: 5, 262: photometric, 277: bands, 278: height, 284: 2 if separate else 1}
    entries = lists | {tag: (3, [value]) for tag, value in plain.items()}
    packed = []
    for tag, (kind, numbers) in sorted(entries.items()):
        data = struct.pack(f"<{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
        if len(data) > 4:
            data, content = struct.pack("<I", len(content)), content + data
        packed.append(struct.pack("<HHI", tag, kind, len(numbers)) + data.ljust(4, b"\0"))
    start = len(content)
    content += struct.pack("<H", len(packed)) + b"".join(packed) + b"\0\0\0\0"
    path.write_bytes(content[:4] + struct.pack("<I", start) + content[8:])
    return path


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("bands", "photometric"), [(3, 2), (3, 1), (4, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("separate", [False, True])
def test_compressions_that_tifffile_alone_cannot_undo(tmp_path, bits, bands, photometric, separate):
    values = drawn(bits, bands)
    path = lzw_tiff(tmp_path / "a.tif", values, photometric, separate and bands > 1)
    with pytest.raises(ValueError, match="imagecodecs"):
        tifffile.imread(path)
    assert_reads(path, expected(values, photometric == 0))


def test_grey_of_12_bit_is_stretched(tmp_path):
    row = [0, 4095, 2048, 16]
    packed = bytes(np.packbits([int(bit) for value in row for bit in f"{value:012b}"]))
    content = b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed
    tags = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: len(packed)}
    content += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", t, 3, 1, v) for t, v in tags.items())
    (tmp_path / "a.tif").write_bytes(content + b"\0\0\0\0")
    assert read_rgb(tmp_path / "a.tif", LIMIT)[0, :, 0].tolist() == [0, 255, 128, 1]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (drawn(8, 5), "5 bands"),
        (drawn(16, 8), "8 bands"),
        (np.full((9, 9, 1), 7, np.int32), "signed 32-bit integer pixels of unknown range"),
        (np.full((9, 9, 1), 7, np.uint32), "32-bit integer pixels of unknown range"),
        (np.full((9, 9, 1), -7, np.int16), "signed 16-bit"),
        (np.full((9, 9, 3), 0.5, np.float32), "floating-point"),
        (np.full((9, 9, 1), 0.5, np.float16), "floating-point"),
    ],
)
@pytest.mark.parametrize("separate", [False, True])
def test_what_has_no_8_bit_form_is_refused_by_the_scan_already(tmp_path, values, words, separate):
    path = write(tmp_path / "a.tif", values, "minisblack", separate and values.shape[-1] > 1)
    for read in (check_image, read_rgb):
        with pytest.raises(ImageError, match=words):
            read(path, LIMIT)


def test_a_raw_file_is_not_taken_for_its_thumbnail(tmp_path):
    for name, tags in (("a.tif", [(50706, 1, 4, b"\1\4\0\0", True)]), ("a.dng", []), ("a.NEF", [])):
        path = write(tmp_path / name, drawn(8, 3), "rgb", extratags=tags)
        with pytest.raises(ImageError, match="raw file; develop it"):
            check_image(path, LIMIT)


def test_a_large_odd_tiff_is_refused_before_it_is_decoded(tmp_path):
    path = write(tmp_path / "a.tif", drawn(16, 3), "minisblack")
    with pytest.raises(ImageError, match="raise max_pixels"):
        check_image(path, 34 * 21 - 1)
    assert check_image(path, 34 * 21) == (21, 34)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("separate", [False, True])
def test_a_truncated_odd_tiff_is_refused(tmp_path, share, separate):
    path = write(tmp_path / "a.tif", drawn(16, 3), "minisblack", separate)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    for read in (check_image, read_rgb):
        with pytest.raises(ImageError, match="replace or remove"):
            read(path, LIMIT)


def test_damaged_bytes_never_end_in_another_error(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "a.tif"
    for separate in (False, True):
        whole = np.frombuffer(write(path, drawn(16, 3), "minisblack", separate).read_bytes(), np.uint8)
        for _ in range(150):
            damaged = whole.copy()
            damaged[rng.integers(0, 400, 3)] = rng.integers(0, 256, 3)
            path.write_bytes(damaged.tobytes())
            for read in (check_image, read_rgb):
                try:
                    read(path, 10**6)
                except ImageError as error:
                    assert str(error).startswith(str(path))


def test_only_common_kinds_are_left_to_opencv(tmp_path):
    """`common` tells stage 1 what Ultralytics, by OpenCV, reads to the same pixels."""
    values = drawn(16, 3)
    for photometric, separate, common in (("rgb", True, None), ("minisblack", False, None)):
        assert inspect_image(write(tmp_path / "a.tif", values, photometric, separate), LIMIT).common is common
    assert inspect_image(write(tmp_path / "a.tif", drawn(8, 3), "rgb"), LIMIT).common == ""
    assert inspect_image(write(tmp_path / "a.tif", drawn(8, 4), "rgb"), LIMIT).common is None
    Image.fromarray(drawn(8, 3)).save(tmp_path / "jpeg.tif", "JPEG")
    assert inspect_image(tmp_path / "jpeg.tif", LIMIT).common == ".jpg"
