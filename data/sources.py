"""Images, videos and streams from files, folders, globs, lists and addresses, read one by one as RGB frames."""

from __future__ import annotations

import glob
import math
import os
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from data.capture import Capture
from data.image_files import IMAGE_SUFFIXES, UNREAD_SUFFIXES, ImageError, unread_note
from data.images import read_rgb
from data.pages import page_numbers
from data.source_names import (
    LIST_SUFFIXES,
    SourceError,
    is_stream,
    listed,
    stream_name,
    url_suffix,
    without_password,
)

VIDEO_SUFFIXES = (".asf", ".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")
# Stands in every folder of results; what lies in such a folder is no input where a folder above it is the source.
RESULTS_MARK = ".results"


@dataclass(frozen=True)
class SourceFile:
    """One image, video or stream.

    Args:
        path: the file; of a stream what may be shown of its address.
        relative: its path below the folder, or below the fixed part of the glob, that was given.
        number: position in the list, from 1.
        total: length of the list.
        stream: number of a camera, or address with its password; None for a file.
    """

    path: Path
    relative: Path
    number: int
    total: int
    stream: str | None = field(default=None, repr=False)

    @property
    def is_video(self) -> bool:
        """Whether its frames make one video."""
        if self.stream is not None:
            return url_suffix(self.stream) not in IMAGE_SUFFIXES
        return self.path.suffix.lower() in VIDEO_SUFFIXES

    @property
    def name(self) -> str:
        """Path, or address without its password."""
        return str(self.path) if self.stream is None else without_password(self.stream)

    @property
    def label(self) -> str:
        """`image 1/12 folder/name.png`, printable whatever bytes the name holds."""
        kind = "stream" if self.stream is not None else "video" if self.is_video else "image"
        return f"{kind} {self.number}/{self.total} {self.name.encode('utf-8', 'backslashreplace').decode()}"


@dataclass(frozen=True)
class Frame:
    """A decoded image, one page of an image file that holds several, or one frame of a video or stream.

    Args:
        file: where it comes from.
        image: uint8 (H, W, 3) RGB.
        index: number of the frame or page, from 1, frames that are left out counted; None for a single image.
        fps: frames per second that are read of the video; None for images.
        seconds: when it is shown, from the start of the video; of a stream when it came, from its first frame; None for
            images.
    """

    file: SourceFile
    image: np.ndarray
    index: int | None = None
    fps: float | None = None
    seconds: float | None = None

    @property
    def height(self) -> int:
        return self.image.shape[0]

    @property
    def width(self) -> int:
        return self.image.shape[1]

    @property
    def label(self) -> str:
        """Label of the file, with the number of a video's frame or of a page."""
        kind = "frame" if self.file.is_video else "page"
        return self.file.label if self.index is None else f"{self.file.label} ({kind} {self.index})"


@dataclass(frozen=True)
class Skipped:
    """A file that could not be read, or not to its end, and why."""

    file: SourceFile
    reason: str


class _Found(NamedTuple):
    """A file or stream before it has a number."""

    path: Path
    relative: Path
    stream: str | None = None

    @property
    def rank(self) -> int:
        """Images come first, then videos, then streams, which may never end."""
        return 2 if self.stream is not None else self.path.suffix.lower() in VIDEO_SUFFIXES


def list_sources(source: str | os.PathLike | Sequence[str | os.PathLike]) -> list[SourceFile]:
    """Files and streams that `source` stands for: images first, then videos, then streams; those of one folder or glob
    sorted by path, none twice.

    Args:
        source: image or video file, folder (searched with its sub-folders), glob (`**` matches any depth), list of
            these (.txt, .csv or .streams, one a line), number of a camera, address such as rtsp://...; or several.

    Raises:
        SourceError: nothing there, or nothing that is an image or a video by its suffix; several endless streams.
    """
    given = [os.fspath(item) for item in ([source] if isinstance(source, str | os.PathLike) else source)]
    if not given or not all(given):
        raise SourceError("no source given; name an image, a folder, a glob or a video with --source")
    found: dict[tuple, _Found] = {}
    for item in (item for text in given for item in _list_one(text)):
        found.setdefault((item.path, item.stream), item)
    files = sorted(found.values(), key=lambda item: item.rank)
    streams = [item for item in files if item.stream is not None and not item.stream.startswith("http")]
    if len(streams) > 1:
        raise SourceError(f"{len(streams)} streams: the first would not end; start one run for each")
    return [SourceFile(item.path, item.relative, n, len(files), item.stream) for n, item in enumerate(files, 1)]


def _list_one(text: str) -> list[_Found]:
    """What one source, as it was given, stands for; see `list_sources`."""
    if is_stream(text):
        return [_Found(Path(stream_name(text)), Path(stream_name(text)), text)]
    path = Path(text)
    if path.suffix.lower() in LIST_SUFFIXES and path.is_file():
        return _of_list(path)
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
    unread = unread_note(p for p in found if p.suffix.lower() in UNREAD_SUFFIXES and p not in videos)
    if not images and not videos:
        known = f"known suffixes are {' '.join(IMAGE_SUFFIXES + VIDEO_SUFFIXES)}"
        raise SourceError(f"{text}: no image or video found; {unread or known}")
    if unread:
        print(f"warning: {text}: {unread}", file=sys.stderr, flush=True)
    return [_Found(p, p.relative_to(root)) for p in images + videos]


def _of_list(path: Path) -> list[_Found]:
    """Entries of a list in its order. What a line names and is not there is skipped by name later.

    Raises:
        SourceError: none of them is there, or an entry is a folder or glob without images.
    """
    found: list[_Found] = []
    singles, missing, entries = [], [], listed(path)
    for line, entry in entries:
        if is_stream(entry) or Path(entry).is_dir() or (glob.has_magic(entry) and not os.path.lexists(entry)):
            try:
                found += _list_one(entry)
            except SourceError as error:
                raise SourceError(f"{path}:{line}: {error}") from None
            continue
        missing += [] if os.path.lexists(entry) else [f"{path}:{line}: {entry}"]
        singles.append(Path(entry))
    if len(missing) == len(entries):
        raise SourceError(
            f"{missing[0]}: no such file (none of the {len(entries)} is there); paths in a list count from its folder, "
            "or from where the program is started"
        )
    root = os.path.commonpath([single.absolute().parent for single in singles]) if singles else ""
    return [_Found(single, single.absolute().relative_to(root)) for single in singles] + found


def has_frames(file: SourceFile) -> bool:
    """Whether results of it carry numbers: a video, a stream, an image of several pages."""
    return file.is_video or (file.stream is None and len(page_numbers(file.path)) > 1)


def read_frames(files: Iterable[SourceFile], max_pixels: int, stride: int = 1) -> Iterator[Frame | Skipped]:
    """Decode file after file, videos frame by frame, images page by page; what cannot be read gives a `Skipped`.

    Args:
        files: what to read.
        max_pixels: largest height x width accepted, judged before decoding.
        stride: of videos and streams only every so many frames, from the first on.
    """
    for file in files:
        if file.stream is not None or file.is_video:
            yield from _read_video(file, max_pixels, stride)
            continue
        pages = page_numbers(file.path)
        for page in pages:
            try:
                frame = Frame(file, read_rgb(file.path, max_pixels, page), page + 1 if len(pages) > 1 else None)
            except ImageError as error:
                yield Skipped(file, f"{'' if len(pages) == 1 else f'page {page + 1}: '}{error.reason}; {error.remedy}")
                break
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


def _read_video(file: SourceFile, max_pixels: int, stride: int) -> Iterator[Frame | Skipped]:
    """Frames of a video or stream, and a `Skipped` where it cannot be opened or ends before its time."""
    endless = file.stream is not None and url_suffix(file.stream) not in VIDEO_SUFFIXES
    capture = Capture(file.stream or str(file.path), file.stream is not None, file.name, endless)
    try:
        if not capture.is_open:
            yield Skipped(file, capture.why_closed())
            return
        if math.prod(capture.size) > max_pixels:  # before anything is decoded
            yield Skipped(file, _too_large(capture.size, max_pixels))
            return
        for index, image, seconds in capture.frames(stride):
            if image.shape[0] * image.shape[1] > max_pixels:  # a stream may come back larger
                yield Skipped(file, _too_large(image.shape, max_pixels))
                return
            image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            if not file.is_video:  # an image behind an address
                yield Frame(file, image)
                return
            yield Frame(file, image, index, capture.fps / stride, seconds)
        if capture.why_short():
            yield Skipped(file, capture.why_short())
    finally:
        capture.release()


def _too_large(size: Sequence[int], max_pixels: int) -> str:
    height, width = size[:2]
    count = f"{width}x{height} = {width * height:,} pixels"
    return f"{count}, more than the limit of {max_pixels:,}; shrink the video or raise max_pixels"


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
