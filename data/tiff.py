"""TIFF files of which Pillow gives wrong colours, or none: what is in them by their tags, and their pixels by tifffile.

Pillow reads 16-bit bands that lie uncompressed one after the other as if they were interleaved, does not invert 16-bit
grey whose zero is white, and takes several bands without a colour meaning (BlackIsZero, as satellite images have) for
one, or for no image.
"""

from __future__ import annotations

import io
import logging
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data.pillow_open import open_image

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
RAW_TAGS = (50706, 33421)  # DNGVersion, CFARepeatPatternDim
ORIENTATION_TAG = 274
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, SEPARATED = 0, 1, 2, 5
LIBTIFF = (5, 8, 32773, 32946, 34925, 50000)  # compressions of bytes: LZW, Deflate, PackBits, LZMA, Zstandard
UNSIGNED = (1, 4)  # sample formats: unsigned integer, undefined
CONVERT = "convert it to 8- or 16-bit RGB"
# EXIF orientation -> what shows the stored rows upright.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


class TiffRefused(Exception):
    """No reader gives the right colours of this file: `reason` and `remedy`, for a message."""

    def __init__(self, reason: str, remedy: str = CONVERT):
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


@dataclass(frozen=True)
class TiffLayout:
    """How one image of a TIFF file is stored.

    Args:
        path: the file.
        width, height: in pixels, as stored.
        bands: samples per pixel.
        bits: per sample.
        photometric: what the samples mean, tag 262.
        separate: whether the bands lie one after the other.
        orientation: 1..8.
        number: of the image in the file, from 0.
    """

    path: Path
    width: int
    height: int
    bands: int
    bits: int
    photometric: int
    separate: bool
    orientation: int
    number: int = 0

    @property
    def is_odd(self) -> bool:
        """Whether Pillow is not to be trusted with it."""
        if self.bits not in (8, 16):
            return 8 < self.bits < 16
        if self.bits == 16 and (self.separate or self.photometric == WHITE_IS_ZERO):
            return True
        return self.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO) and self.bands > 1

    @property
    def is_known(self) -> bool:
        """Whether `pixels` knows what its samples mean."""
        return self.bits in (8, 16) and self.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, SEPARATED)

    def __str__(self) -> str:
        order = ", bands one after the other" if self.separate else ""
        return f"TIFF of {self.bands} x {self.bits} bit, photometric {self.photometric}{order}"

    def pixels(self) -> np.ndarray:
        """Decoded and upright, grey or the three bands that are shown; (H, W, 1 or 3), uint8 or uint16.

        Three or four bands without a colour meaning are taken as red, green and blue, and one more.

        Raises:
            TiffRefused: damaged, or no reader here can decode it.
        """
        if 8 < self.bits < 16:
            return self._few_bits()
        try:
            values = self._by_tifffile()
        except TiffRefused:
            raise
        except Exception as error:  # tifffile fails in any way on damaged data
            if "imagecodecs" not in str(error):
                raise TiffRefused(f"damaged or truncated ({error})", "replace or remove the file") from error
            try:
                values = self._by_libtiff()
            except (ValueError, IndexError, OSError, SyntaxError, MemoryError) as error:
                raise TiffRefused(f"damaged or truncated ({error})", "replace or remove the file") from error
        if self.photometric == SEPARATED:
            values = (values >> 8).astype(np.uint8) if values.dtype == np.uint16 else values
            return np.asarray(Image.fromarray(values, "CMYK").convert("RGB"))
        values = values[..., :3] if self.bands >= 3 else values[..., :1]
        return np.iinfo(values.dtype).max - values if self.photometric == WHITE_IS_ZERO else values

    def _by_tifffile(self) -> np.ndarray:
        import tifffile

        with tifffile.TiffFile(self.path) as file:
            page, size = file.pages[self.number], self.path.stat().st_size
            if any(at + count > size for at, count in zip(page.dataoffsets, page.databytecounts, strict=True)):
                raise TiffRefused("truncated (its pixels lie behind its end)", "replace or remove the file")
            values = page.asarray()
        values = np.moveaxis(values, 0, -1) if self.separate and self.bands > 1 else values
        values = values.reshape(self.height, self.width, self.bands)
        return UPRIGHT[self.orientation](values.astype(values.dtype.newbyteorder("=")))

    def _by_libtiff(self) -> np.ndarray:
        """Compressions that tifffile alone cannot undo: libtiff in Pillow can, strip by strip or tile by tile."""
        import tifffile

        with tifffile.TiffFile(self.path) as file:
            page = file.pages[self.number]
            if page.compression not in LIBTIFF or page.predictor not in (1, 2):
                kind = f"compression {int(page.compression)}, predictor {int(page.predictor)}"
                raise TiffRefused(f"{self} with {kind}, which no reader here decodes", "store it uncompressed")
            dtype = np.dtype(f"{file.byteorder}u{self.bits // 8}")
            high, wide = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, self.width)
            planes, samples = (self.bands, 1) if self.separate else (1, self.bands)
            rows, columns = -(-self.height // high), -(-self.width // wide)
            values = np.zeros((planes, rows * high, columns * wide, samples), dtype.newbyteorder("="))
            for number, (at, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
                plane, place = divmod(number, rows * columns)
                row, column = place // columns * high, place % columns * wide
                taller = high if page.is_tiled else min(high, self.height - row)
                file.filehandle.seek(at)
                content = undo(file.filehandle.read(count), page.compression, taller * wide * samples * dtype.itemsize)
                part = np.frombuffer(content, dtype).astype(values.dtype).reshape(taller, wide, samples)
                part = np.cumsum(part, axis=1, dtype=part.dtype) if page.predictor == 2 else part
                values[plane, row : row + taller, column : column + wide] = part
        values = values[:, : self.height, : self.width]
        return UPRIGHT[self.orientation](np.moveaxis(values, 0, -1)[..., 0, :] if self.separate else values[0])

    def _few_bits(self) -> np.ndarray:
        """Grey of 9..15 bit, stretched to 16."""
        try:
            with open_image(self.path) as image:
                image.seek(self.number)
                values = np.asarray(image).astype(np.uint32)
        except Exception as error:  # Pillow knows some of these only
            raise TiffRefused(f"{self.bits}-bit pixels, which no reader here decodes") from error
        if values.ndim != 2:
            raise TiffRefused(f"{self.bits}-bit pixels, which no reader here decodes")
        values = (values * 65535 // (2**self.bits - 1)).clip(0, 65535).astype(np.uint16)[..., None]
        return 65535 - values if self.photometric == WHITE_IS_ZERO else values


def undo(content: bytes, compression: int, size: int) -> bytes:
    """Decompress one strip or tile to `size` bytes, as the only row of a grey TIFF file that Pillow decodes.

    Raises:
        OSError, ValueError: damaged, or shorter than `size`.
    """
    tags = {256: size, 257: 1, 258: 8, 259: int(compression), 262: 1, 273: 8, 277: 1, 278: 1, 279: len(content)}
    content += b"\0" * (len(content) % 2)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    whole = (
        b"II*\0" + struct.pack("<I", 8 + len(content)) + content + struct.pack("<H", len(tags)) + entries + b"\0" * 4
    )
    with open_image(io.BytesIO(whole)) as image:
        return image.tobytes()


def read_layout(path: Path, number: int = 0) -> TiffLayout | None:
    """Layout of an image (from 0) of a TIFF file; None where its tags cannot be read, which Pillow then explains.

    Raises:
        TiffRefused: a camera's raw file, too many bands, or pixels of unknown range.
    """
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # a damaged file is refused, that is enough
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages[number]
            turned = page.tags.get(ORIENTATION_TAG)
            turned = turned.value if turned and turned.value in UPRIGHT else 1
            raw = any(number in page.tags for number in RAW_TAGS)
            bits = page.bitspersample if isinstance(page.bitspersample, int) else 8
            layout = TiffLayout(
                Path(path), page.imagewidth, page.imagelength, page.samplesperpixel, bits, int(page.photometric),
                page.planarconfig == 2, int(turned), number,
            )  # fmt: skip
            kind = int(page.sampleformat)
    except Exception:
        return None
    if raw:
        raise TiffRefused("a camera's raw file", "develop it to JPEG, PNG or TIFF")
    if kind == 3:
        raise TiffRefused("floating-point pixels of unknown range")
    if kind not in UNSIGNED or bits > 16:
        sign = "" if kind in UNSIGNED else "signed "
        raise TiffRefused(f"{sign}{bits}-bit integer pixels of unknown range")
    if layout.bands > 4:
        raise TiffRefused(
            f"{layout.bands} bands, of which red, green and blue are not known", "write these three as an RGB file"
        )
    return layout
