"""Reading image files of any kind as 8-bit RGB, with errors that name the file, the reason and the remedy."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from utils.errors import UserError

# Pillow's own limit would hide the size of a huge image from the message; `max_pixels` takes its place.
Image.MAX_IMAGE_PIXELS = None

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
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
REPLACE = "replace or remove the file"


class ImageError(UserError):
    """An image file that cannot be used: which one, why, and what to do."""

    def __init__(self, path: str | os.PathLike, reason: str, remedy: str):
        super().__init__(f"{path}: {reason}; {remedy}")
        self.path, self.reason, self.remedy = Path(path), reason, remedy

    def __reduce__(self):
        """Errors travel from data-loading processes by pickle, which needs the three arguments."""
        return type(self), (self.path, self.reason, self.remedy)


def list_images(folder: str | os.PathLike) -> list[Path]:
    """Image files in `folder` and below, sorted by path; hidden files are left out, linked folders are followed.

    Raises:
        ImageError: the folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ImageError(folder, "no such folder", "check the path in the configuration")
    found, seen = [], set()
    for root, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        # A link to a folder above would be walked for ever.
        folders[:] = [] if real in seen else sorted(folders)
        if real not in seen:
            found += [Path(root, f) for f in files if f.lower().endswith(IMAGE_SUFFIXES) and not f.startswith(".")]
        seen.add(real)
    return sorted(found)


def check_image(path: str | os.PathLike, max_pixels: int) -> tuple[int, int]:
    """Check a file by its header and its end, without decoding JPEG and PNG; other formats are decoded.

    Args:
        path: image file.
        max_pixels: largest height x width accepted.

    Returns:
        (height, width) in pixels as `read_rgb` will return it, EXIF orientation included.

    Raises:
        ImageError: missing, empty, not an image, truncated, or larger than `max_pixels`.
    """
    with _opened(path, max_pixels) as image:
        turned = _orientation(image) >= 5
        _check_end(path, image)
        return image.size if turned else image.size[::-1]


def read_rgb(path: str | os.PathLike, max_pixels: int) -> np.ndarray:
    """Decode a file to RGB: grey repeated, 16 bit scaled to 8, palette and CMYK converted, alpha dropped, EXIF upright.

    Args:
        path: image file.
        max_pixels: largest height x width accepted.

    Returns:
        uint8 (H, W, 3), writable and contiguous.

    Raises:
        ImageError: missing, empty, not an image, truncated, of an unusual kind, or larger than `max_pixels`.
    """
    with _opened(path, max_pixels) as image:
        orientation = _orientation(image)
        _check_end(path, image)
        return _pixels(path, image, orientation)


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


@contextmanager
def _opened(path: str | os.PathLike, max_pixels: int) -> Iterator[Image.Image]:
    """Open a file up to its header and refuse what is missing, no image or too large."""
    try:
        if os.path.getsize(path) == 0:
            raise ImageError(path, "the file is empty (0 bytes)", REPLACE)
        image = Image.open(path)
    except UnidentifiedImageError:
        raise ImageError(path, "not an image of a known format, or its header is damaged", REPLACE) from None
    except FileNotFoundError:
        raise ImageError(path, "no such file", "check the path") from None
    except ImageError:
        raise
    except Exception as error:  # Pillow's readers raise many kinds on damaged headers
        raise ImageError(path, f"cannot be opened ({error})", REPLACE) from error
    with image:
        width, height = image.size
        if width * height > max_pixels:
            reason = f"{width}x{height} = {width * height:,} pixels, more than the limit of {max_pixels:,}"
            raise ImageError(path, reason, "shrink or tile the image, or raise max_pixels")
        yield image


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8 that is still to be applied; a damaged EXIF block counts as upright."""
    # Pillow turns TIFF by itself, and would decode a whole PNG to look for EXIF behind the pixels.
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1
    try:
        return image.getexif().get(ORIENTATION_TAG, 1)
    except EXIF_ERRORS:
        return 1


def _check_end(path: str | os.PathLike, image: Image.Image) -> None:
    """Refuse a truncated file: JPEG and PNG by their end marker, decoding only where that does not tell."""
    marker = END_MARKERS.get(image.format or "")
    if marker is not None:
        with open(path, "rb") as file:
            file.seek(max(os.path.getsize(path) - TAIL_BYTES, 0))
            if marker in file.read():
                return
            file.seek(0)
            if marker not in file.read():
                raise ImageError(path, f"truncated ({image.format} without its end marker)", REPLACE)
    # Other data may follow the image, or the marker found is that of a thumbnail.
    _decode(path, image)


def _pixels(path: str | os.PathLike, image: Image.Image, orientation: int) -> np.ndarray:
    """Decode, convert to RGB and turn upright -> uint8 (H, W, 3)."""
    _decode(path, image)
    rgb = _to_rgb(path, image)
    if orientation in ORIENTATIONS:
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
        if values.min() < 0 or values.max() > 65535:
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
