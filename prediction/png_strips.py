"""PNG files written strip by strip (W3C PNG, 3rd edition), for images that are never in memory as a whole.

Pillow and OpenCV take whole images only.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

UP = 2  # filter: every pixel as the difference to the one above


def save_png(path: Path, strips: Iterable[np.ndarray], shape: tuple[int, int]) -> None:
    """Write an image at zlib level 1; where that fails, nothing is left of it.

    Args:
        path: of the file.
        strips: uint8 (rows, width, 3) RGB, from top to bottom; one is held at a time.
        shape: height and width of the image.

    Raises:
        OSError: it cannot be written.
        ValueError: the strips do not make up an image of this shape.
    """
    try:
        with path.open("wb") as file:
            _write(file, strips, shape)
    except BaseException:  # of Ctrl-C too
        path.unlink(missing_ok=True)
        raise


def _write(file: BinaryIO, strips: Iterable[np.ndarray], shape: tuple[int, int]) -> None:
    height, width = shape
    packer, above, rows = zlib.compressobj(1), np.zeros((1, width, 3), np.uint8), 0
    file.write(b"\x89PNG\r\n\x1a\n")
    _chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))  # 8 bit, RGB, not interlaced
    for strip in strips:
        if strip.shape[1:] != (width, 3):
            raise ValueError(f"a strip of shape {strip.shape} in an image {width} wide")
        for first in range(0, len(strip), 64):  # few rows at once: what is filtered is a copy
            part = strip[first : first + 64]
            filtered = np.full((len(part), 1 + 3 * width), UP, np.uint8)
            difference = part - np.concatenate([above, part[:-1]])  # modulo 256, as the format wants it
            filtered[:, 1:] = difference.reshape(len(part), -1)
            above, rows = part[-1:].copy(), rows + len(part)
            _chunk(file, b"IDAT", packer.compress(filtered.tobytes()))
    if rows != height:
        raise ValueError(f"{rows} rows of an image of {height}")
    _chunk(file, b"IDAT", packer.flush())
    _chunk(file, b"IEND", b"")


def _chunk(file: BinaryIO, kind: bytes, content: bytes) -> None:
    """Write one part of a PNG file, unless it is an empty piece of the image."""
    if content or kind == b"IEND":
        checksum = zlib.crc32(content, zlib.crc32(kind))
        file.write(struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum))
