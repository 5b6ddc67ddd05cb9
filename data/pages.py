"""Images that hold several: pages of a TIFF file, frames of an animated WebP or PNG."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from data.pillow_open import open_image
from data.tiff import MAGIC as TIFF_MAGIC

REDUCED, TRANSPARENCY_MASK = 1, 4  # bits of TIFF's NewSubfileType: a thumbnail or overview, a mask
ANIMATED = (b"\x89PNG", b"RIFF")


def page_numbers(path: str | os.PathLike) -> Sequence[int]:
    """Numbers (from 0) of the images in a file, [0] for all other kinds, and for a file that cannot be read.

    Overviews, thumbnails and masks of a TIFF file are no pages. The second picture of an MPO file, a phone's depth or
    gain map as often as the other eye, is none either, as with OpenCV and Ultralytics.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(4)
        if start in TIFF_MAGIC:
            return _tiff_pages(path)
        if start in ANIMATED:
            with open_image(path) as image:
                return range(getattr(image, "n_frames", 1))  # no list: a file may say that it has billions
    except Exception:  # damaged: reading the first image then says what is wrong
        return [0]
    return [0]


def first_page_note(files: Sequence[Path]) -> str:
    """ "only the first image is taken of 3 files that hold several (a.tif, ...): ...", for training, which takes no
    pages; empty for no files."""
    files = sorted(set(files))
    if not files:
        return ""
    names = ", ".join(map(str, files[:3])) + (", ..." if len(files) > 3 else "")
    which = "a file that holds" if len(files) == 1 else f"{len(files)} files that hold"
    return f"only the first image is taken of {which} several ({names}): save the others as files of their own"


def _tiff_pages(path: str | os.PathLike) -> Sequence[int]:
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    kinds: dict[int, int] = {}  # by the place in the file, where a chain that comes back to itself ends
    with tifffile.TiffFile(path) as file:
        for page in file.pages:
            if page.offset in kinds:
                break
            kinds[page.offset] = int(page.subfiletype)
    return [number for number, kind in enumerate(kinds.values()) if not kind & (REDUCED | TRANSPARENCY_MASK)] or [0]
