"""Reading image files of any kind as 8-bit RGB, with errors that name the file, the reason and the remedy."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from data.image_files import RAW_SUFFIXES, ImageError, list_images
from data.pages import page_numbers
from data.pillow_open import open_image
from data.tiff import MAGIC as TIFF_MAGIC
from data.tiff import TiffRefused, read_layout

__all__ = [
    "ImageError",
    "ImageInfo",
    "check_image",
    "inspect_image",
    "list_images",
    "pillow_to_rgb",
    "read_rgb",
    "to_8_bit",
]

# Formats that OpenCV, with which Ultralytics reads, decodes to the same pixels, and their suffixes there.
COMMON_FORMATS = {
    "BMP": (".bmp",), "JPEG": (".jpg", ".jpeg"), "MPO": (".jpg", ".jpeg"), "PNG": (".png",),
    "TIFF": (".tif", ".tiff"), "WEBP": (".webp",),
}  # fmt: skip
COMMON_TIFF = ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
CONVERT = "convert it to JPEG or PNG"
END_MARKERS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
TAIL_BYTES = 1024
ORIENTATION_TAG = 0x0112
ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
EXIF_ERRORS = (AttributeError, EOFError, LookupError, OSError, SyntaxError, TypeError, ValueError, struct.error)
# Orientation as one number of 16 bits, as a tag is stored: little- and big-endian.
SHORT_ORIENTATION = (b"\x12\x01\x03\x00\x01\x00\x00\x00", b"\x01\x12\x00\x03\x00\x00\x00\x01")
UNREAD_MARKS = {
    (b"<!doctype", b"<html"): "a web page and no image",
    (b"version https://git-lfs",): "a Git-LFS pointer and no image",
    (b"<svg", b"<?xml"): "a drawing (SVG) or other XML, not read here",
    (b"\xff\x0a", b"\x00\x00\x00\x0cjxl "): "JPEG XL, not read here",
}
REPLACE = "replace or remove the file"


@dataclass(frozen=True)
class ImageInfo:
    """What a file's header tells.

    Args:
        height, width: in pixels as `read_rgb` returns them, EXIF orientation included.
        common: suffix under which OpenCV and Ultralytics read the same pixels, empty: as it is named; None where only
            `read_rgb` does.
        pages: images that the file holds (data/pages.py), of which training takes the first.
    """

    height: int
    width: int
    common: str | None
    pages: int = 1


def check_image(path: str | os.PathLike, max_pixels: int) -> tuple[int, int]:
    """(height, width) of a file by `inspect_image`, with the same errors."""
    info = inspect_image(path, max_pixels)
    return info.height, info.width


def inspect_image(path: str | os.PathLike, max_pixels: int, decode: bool = False) -> ImageInfo:
    """Check a file by its header and its end, without decoding JPEG and PNG; other formats are decoded.

    Args:
        path: image file.
        max_pixels: largest height x width accepted.
        decode: JPEG and PNG too, so that damage in their middle is found.

    Raises:
        ImageError: missing, empty, not an image, truncated, of an unusual kind, or larger than `max_pixels`.
    """
    with _opened(path, max_pixels) as image:
        orientation = _orientation(image)
        common = _common_suffix(path, image, orientation)
        if _has_end(path, image):
            width, height = image.size[::-1] if orientation >= 5 else image.size
            if decode:
                image.draft(None, (1, 1))  # all of a JPEG's data is read for its smallest form, too
                _decode(path, image)
        else:
            height, width = _pixels(path, image, orientation).shape[:2]
        pages = 1 if image.format in ("JPEG", "MPO") else len(page_numbers(path))
        return ImageInfo(height, width, common, pages)


def read_rgb(path: str | os.PathLike, max_pixels: int, page: int = 0) -> np.ndarray:
    """Decode a file to RGB: grey repeated, 16 bit scaled to 8, palette and CMYK converted, alpha dropped, EXIF upright.

    Args:
        path: image file.
        max_pixels: largest height x width accepted.
        page: which image of a file that holds several (data/pages.py), from 0.

    Returns:
        uint8 (H, W, 3), writable and contiguous.

    Raises:
        ImageError: missing, empty, not an image, truncated, of an unusual kind, or larger than `max_pixels`.
    """
    with _opened(path, max_pixels, page) as image:
        _has_end(path, image)
        return _pixels(path, image, _orientation(image))


def pillow_to_rgb(image: Image.Image, name: str) -> np.ndarray:
    """RGB pixels of a Pillow image of any mode, as `read_rgb` reads them from its file; the image is not changed.

    Args:
        image: opened or decoded.
        name: for messages.

    Returns:
        uint8 (H, W, 3), a copy.

    Raises:
        ImageError: it cannot be decoded, or is of an unusual kind.
    """
    return _pixels(name, image, _orientation(image))


def to_8_bit(values: np.ndarray) -> np.ndarray:
    """16-bit pixels (0..65535) of any shape -> uint8, rounded to the nearest."""
    return ((values.astype(np.int64) * 255 + 32767) // 65535).astype(np.uint8)


@contextlib.contextmanager
def _opened(path: str | os.PathLike, max_pixels: int, page: int = 0) -> Iterator[Image.Image]:
    """Open a file up to its header and refuse what is missing, no image or too large; odd TIFF files are decoded."""
    path = Path(path)
    try:
        if os.path.getsize(path) == 0:
            raise ImageError(path, "the file is empty (0 bytes)", REPLACE)
        if path.suffix.lower() in RAW_SUFFIXES:
            raise ImageError(path, "a camera's raw file", "develop it to JPEG, PNG or TIFF")
        image = _opened_tiff(path, max_pixels, page) or open_image(path)
        if page and getattr(image, "n_frames", 1) > 1:  # a page that was decoded already has none beside it
            image.seek(page)
    except UnidentifiedImageError:
        raise ImageError(path, *_why_unknown(path)) from None
    except FileNotFoundError:
        windows = "\\" in str(path) and os.sep == "/"
        hint = "; its backslashes separate folders on Windows only" if windows else ""
        raise ImageError(path, "no such file", f"check the path{hint}") from None
    except ImageError:
        raise
    except Exception as error:  # Pillow's readers raise many kinds on damaged headers
        raise ImageError(path, f"cannot be opened ({error})", REPLACE) from error
    with image:
        _check_size(path, *image.size, max_pixels)
        yield image


def _opened_tiff(path: Path, max_pixels: int, page: int) -> Image.Image | None:
    """A TIFF file, decoded and upright where Pillow does not read it rightly; None for all other files."""
    with path.open("rb") as file:
        if file.read(4) not in TIFF_MAGIC:
            return None
    try:
        layout = read_layout(path, page)
        if layout is None:
            return None
        if not layout.is_odd:
            with contextlib.suppress(*(UnidentifiedImageError,) * layout.is_known):
                return open_image(path)
        _check_size(path, layout.width, layout.height, max_pixels)
        values = layout.pixels()
    except TiffRefused as refused:
        raise ImageError(path, refused.reason, refused.remedy) from refused
    values = to_8_bit(values) if values.dtype == np.uint16 else values
    return Image.fromarray(np.repeat(values, 3, -1) if values.shape[-1] == 1 else np.ascontiguousarray(values))


def _check_size(path: Path, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        reason = f"{width}x{height} = {width * height:,} pixels, more than the limit of {max_pixels:,}"
        raise ImageError(path, reason, "shrink or tile the image, or raise max_pixels")


def _why_unknown(path: Path) -> tuple[str, str]:
    """Reason and remedy for a file that Pillow does not know, by its first bytes."""
    with path.open("rb") as file:
        start = file.read(64)
    if start[:4] in TIFF_MAGIC:
        with contextlib.suppress(TiffRefused):
            layout = read_layout(path)
            if layout is not None:
                return f"{layout}, which no reader here decodes", "convert it to 8- or 16-bit RGB"
    if start[4:8] == b"ftyp":
        return f"of the kind {start[8:12].decode('latin-1')} (HEIC, AVIF or a video), not read here", CONVERT
    for marks, kind in UNREAD_MARKS.items():
        if start.lstrip().lower().startswith(marks):
            return kind, CONVERT if kind.endswith("not read here") else "download the image itself"
    return "not an image of a known format, or its header is damaged", REPLACE


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8 that is still to be applied; one of another value or type, or damaged EXIF, is upright."""
    value = _exif_orientation(image)
    return value if type(value) is int and value in ORIENTATIONS else 1


def _exif_orientation(image: Image.Image) -> object:
    """The tag as it is stored, 1 where there is none."""
    # Pillow turns TIFF by itself, and would decode a whole PNG to look for EXIF behind the pixels.
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1
    try:
        return image.getexif().get(ORIENTATION_TAG, 1)
    except EXIF_ERRORS:
        return 1


def _common_suffix(path: str | os.PathLike, image: Image.Image, orientation: int) -> str | None:
    """See `ImageInfo.common`; `image` is not decoded yet."""
    suffixes = COMMON_FORMATS.get(image.format or "")
    if suffixes is None:
        return None
    if image.format == "TIFF" and (image.mode not in ("L", "RGB") or image.info.get("compression") not in COMMON_TIFF):
        return None
    # OpenCV takes the first two bytes of the value whatever its type, and for a big-endian number of 32 bits that is 0.
    stored, exif = _exif_orientation(image), image.info.get("exif", b"")
    if type(stored) is not int or (orientation != 1 and not any(entry in exif for entry in SHORT_ORIENTATION)):
        return None
    return "" if Path(path).suffix.lower() in suffixes else suffixes[0]


def _has_end(path: str | os.PathLike, image: Image.Image) -> bool:
    """Whether a JPEG or PNG has its end marker, so that it is whole; False where only decoding can tell.

    Raises:
        ImageError: a JPEG or PNG without one.
    """
    marker = END_MARKERS.get(image.format or "")
    if marker is None:
        return False
    with open(path, "rb") as file:
        file.seek(max(os.path.getsize(path) - TAIL_BYTES, 0))
        if marker in file.read():
            return True
        file.seek(0)
        if marker not in file.read():
            raise ImageError(path, f"truncated ({image.format} without its end marker)", REPLACE)
    return False  # Other data may follow the image, or the marker found is that of a thumbnail.


def _pixels(path: str | os.PathLike, image: Image.Image, orientation: int) -> np.ndarray:
    """Decode, convert to RGB and turn upright -> uint8 (H, W, 3)."""
    _decode(path, image)
    rgb = _to_rgb(path, image)
    if orientation != 1:
        rgb = rgb.transpose(ORIENTATIONS[orientation])
    return np.array(rgb)


def _decode(path: str | os.PathLike, image: Image.Image) -> None:
    try:
        image.load()
    except Exception as error:  # Pillow's decoders raise many kinds on damaged data
        raise ImageError(path, f"damaged or truncated ({error})", REPLACE) from error


def _to_rgb(path: str | os.PathLike, image: Image.Image) -> Image.Image:
    """Convert any decoded mode to 8-bit RGB."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise ImageError(path, f"pixel values {values.min()}..{values.max()} exceed 16 bit", "convert it to 8 bit")
        image = Image.fromarray(to_8_bit(values))
    if image.mode == "F":
        raise ImageError(path, "floating-point pixels of unknown range", "convert it to 8 bit")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise ImageError(path, f"colour mode {image.mode} has no RGB form ({error})", "convert it to RGB") from error
