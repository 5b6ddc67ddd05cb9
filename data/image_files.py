"""Which files of a folder are images, and which of those nothing here reads."""

from __future__ import annotations

import functools
import os
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from PIL import features

from utils.errors import UserError

IMAGE_SUFFIXES = (
    ".apng", ".bmp", ".dib", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga",
    ".tif", ".tiff", ".webp",
    *((".avif",) if features.check("avif") else ()),
    *((".j2c", ".j2k", ".jp2", ".jpf", ".jpx") if features.check("jpg_2000") else ()),
)  # fmt: skip
# Images too, and named where a folder or a list has them, but nothing here reads them (.gif: as a video only).
RAW_SUFFIXES = (".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2")
UNREAD_SUFFIXES = tuple(
    suffix
    for suffix in (
        *RAW_SUFFIXES, ".avif", ".exr", ".gif", ".hdr", ".heic", ".heif", ".hif", ".j2c", ".j2k", ".jp2", ".jpf",
        ".jpx", ".jxl", ".jxr", ".pfm", ".psd", ".svg",
    )
    if suffix not in IMAGE_SUFFIXES
)  # fmt: skip


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
    return _walk(folder, IMAGE_SUFFIXES)


def unread_images(folder: str | os.PathLike) -> list[Path]:
    """Image files that nothing here reads (`UNREAD_SUFFIXES`), otherwise as `list_images`."""
    return _walk(folder, UNREAD_SUFFIXES)


def unread_note(files: Iterable[Path]) -> str:
    """ "3 files are left out, nothing here reads .heic (2), .dng (1): convert them to JPEG or PNG"; empty for none."""
    counts = Counter(file.suffix.lower() for file in files)
    if not counts:
        return ""
    kinds = ", ".join(f"{suffix} ({count})" for suffix, count in counts.most_common())
    left = "1 file is" if counts.total() == 1 else f"{counts.total()} files are"
    return f"{left} left out, nothing here reads {kinds}: convert to JPEG or PNG"


@functools.cache
def warn_of_unread(folder: str | os.PathLike) -> None:
    """Say on stderr, once, which images of a folder nothing here reads."""
    note = unread_note(unread_images(folder))
    if note:
        print(f"warning: {folder}: {note}", file=sys.stderr, flush=True)


def _walk(folder: str | os.PathLike, suffixes: tuple[str, ...]) -> list[Path]:
    folder = Path(folder)
    if not folder.is_dir():
        raise ImageError(folder, "no such folder", "check the path in the configuration")
    found, seen = [], set()
    for root, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        # A link to a folder above would be walked for ever.
        folders[:] = [] if real in seen else sorted(folders)
        if real not in seen:
            found += [Path(root, f) for f in files if f.lower().endswith(suffixes) and not f.startswith(".")]
        seen.add(real)
    return sorted(found)
