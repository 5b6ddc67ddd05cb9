"""Images and videos from a file, a folder or a glob, read one after the other as RGB frames."""

from __future__ import annotations

import glob
import math
import os
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from data.image_files import IMAGE_SUFFIXES, UNREAD_SUFFIXES, ImageError, unread_note
from data.images import read_rgb
from utils.errors import UserError

VIDEO_SUFFIXES = (".asf", ".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")
DEFAULT_FPS = 30.0
# Containers without an index only estimate their number of frames.
COMPLETE_SHARE = 0.98
# Stands in every folder of results; what lies in such a folder is no input where a folder above it is the source.
RESULTS_MARK = ".results"


class SourceError(UserError):
    """A source in which nothing can be read; the message says what to give instead."""


@dataclass(frozen=True)
class SourceFile:
    """One image or video.

    Args:
        path: the file.
        relative: its path below the folder, or below the fixed part of the glob, that was given.
        number: position in the list, from 1.
        total: length of the list.
    """

    path: Path
    relative: Path
    number: int
    total: int

    @property
    def is_video(self) -> bool:
        return self.path.suffix.lower() in VIDEO_SUFFIXES

    @property
    def label(self) -> str:
        """`image 1/12 folder/name.png`, printable whatever bytes the name holds."""
        path = str(self.path).encode("utf-8", "backslashreplace").decode()
        return f"{'video' if self.is_video else 'image'} {self.number}/{self.total} {path}"


@dataclass(frozen=True)
class Frame:
    """A decoded image, or one frame of a video.

    Args:
        file: where it comes from.
        image: uint8 (H, W, 3) RGB.
        index: number of the video frame, from 1; None for an image.
        fps: frames per second of the video; None for an image.
    """

    file: SourceFile
    image: np.ndarray
    index: int | None = None
    fps: float | None = None

    @property
    def height(self) -> int:
        return self.image.shape[0]

    @property
    def width(self) -> int:
        return self.image.shape[1]

    @property
    def label(self) -> str:
        """Label of the file, with the number of a video's frame."""
        return self.file.label if self.index is None else f"{self.file.label} (frame {self.index})"


@dataclass(frozen=True)
class Skipped:
    """A file that could not be read, or not to its end, and why."""

    file: SourceFile
    reason: str


def list_sources(source: str | os.PathLike) -> list[SourceFile]:
    """Files that `source` stands for: images first, then videos, both sorted by path.

    Args:
        source: image or video file, folder (searched with its sub-folders) or glob; `**` matches any depth.

    Raises:
        SourceError: nothing there, or nothing that is an image or a video by its suffix.
    """
    text = os.fspath(source)
    if not text:
        raise SourceError("no source given; name an image, a folder, a glob or a video with --source")
    known = f"known suffixes are {' '.join(IMAGE_SUFFIXES + VIDEO_SUFFIXES)}"
    path = Path(text)
    if path.is_dir():
        root, found = path, _walk(path)
    elif os.path.lexists(path):
        root, found = path.parent, [path]
    elif glob.has_magic(text):
        root, found = _fixed_part(path), [Path(p) for p in glob.glob(text, recursive=True)]
    else:
        raise SourceError(f"{text}: no such file or folder; check the path given as source")
    found = _without_results(found, root, text)
    found = [p for p in found if p.is_file() or not p.exists()]  # a broken link is named later, a pipe is left alone
    images, videos = (sorted(p for p in found if p.suffix.lower() in s) for s in (IMAGE_SUFFIXES, VIDEO_SUFFIXES))
    files = images + videos
    unread = unread_note(p for p in found if p.suffix.lower() in UNREAD_SUFFIXES and p not in videos)
    if not files:
        raise SourceError(f"{text}: no image or video found; {unread or known}")
    if unread:
        print(f"warning: {text}: {unread}", file=sys.stderr, flush=True)
    return [SourceFile(p, p.relative_to(root), number, len(files)) for number, p in enumerate(files, 1)]


def read_frames(files: Iterable[SourceFile], max_pixels: int) -> Iterator[Frame | Skipped]:
    """Decode file after file, videos frame by frame; an unreadable file gives a `Skipped` in its place.

    Args:
        files: what to read.
        max_pixels: largest height x width accepted, judged before decoding.
    """
    for file in files:
        if file.is_video:
            yield from _read_video(file, max_pixels)
            continue
        try:
            frame = Frame(file, read_rgb(file.path, max_pixels))
        except ImageError as error:
            yield Skipped(file, f"{error.reason}; {error.remedy}")
            continue
        yield frame


def group_frames(
    items: Iterable[Frame | Skipped], batch: int, key: Callable[[int, int], Hashable]
) -> Iterator[list[Frame] | Skipped]:
    """Group neighbours of equal key into lists of at most `batch` frames, in order; holds one list at a time.

    Args:
        items: what `read_frames` yields.
        batch: longest list.
        key: of height and width, for instance the padded size; only equal ones share a list.
    """
    group, shared = [], None
    for item in items:
        own = None if isinstance(item, Skipped) else key(item.height, item.width)
        if group and (own != shared or len(group) == batch):
            yield group
            group = []
        if isinstance(item, Skipped):
            yield item
        else:
            group.append(item)
            shared = own
    if group:
        yield group


def _read_video(file: SourceFile, max_pixels: int) -> Iterator[Frame | Skipped]:
    """Frames of a video, and a `Skipped` where it cannot be opened or ends before its time."""
    capture = cv2.VideoCapture(str(file.path))
    try:
        if not capture.isOpened():
            yield Skipped(file, "not a video that OpenCV can open, or damaged; replace or remove the file")
            return
        width, height = (int(capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > max_pixels:
            yield Skipped(file, f"{width}x{height} = {width * height:,} pixels, more than the limit of {max_pixels:,}; "
                                "shrink the video or raise max_pixels")  # fmt: skip
            return
        fps = capture.get(cv2.CAP_PROP_FPS)
        fps = fps if math.isfinite(fps) and fps > 0 else DEFAULT_FPS
        expected, index = capture.get(cv2.CAP_PROP_FRAME_COUNT), 0
        while True:
            good, image = capture.read()
            if not good:
                break
            index += 1
            yield Frame(file, cv2.cvtColor(image, cv2.COLOR_BGR2RGB), index, fps)
        if index == 0 or index < COMPLETE_SHARE * expected:
            yield Skipped(file, f"ends after {index} of {expected:.0f} frames; the file is damaged or truncated")
    finally:
        capture.release()


def _without_results(files: list[Path], root: Path, source: str) -> list[Path]:
    """Files but those in folders of results below `root`; says on stderr which folders are left out."""
    parents = {parent for file in files for parent in file.parents if root in parent.parents}
    results = {folder for folder in parents if (folder / RESULTS_MARK).is_file()}
    if results:
        names = ", ".join(sorted(str(folder.relative_to(root)) for folder in results))
        print(f"warning: {source}: results of earlier runs are no input: {names}", file=sys.stderr, flush=True)
    return [file for file in files if not results.intersection(file.parents)]


def _walk(folder: Path) -> list[Path]:
    """Files in `folder` and below without hidden ones; linked folders are followed, a circle of links only once."""
    found, seen = [], set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        # A link to a folder above would be walked for ever.
        folders[:] = [] if real in seen else [name for name in folders if not name.startswith(".")]
        if real not in seen:
            found += [Path(root, name) for name in names if not name.startswith(".")]
        seen.add(real)
    return found


def _fixed_part(pattern: Path) -> Path:
    """The folder of a glob in front of its first wildcard."""
    parts = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts)
