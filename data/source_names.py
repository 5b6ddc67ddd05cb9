"""Sources that are no file themselves: files that list others, cameras by their number, addresses of streams."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from utils.errors import UserError

LIST_SUFFIXES = (".txt", ".csv", ".streams")
SCHEMES = ("rtsp", "rtsps", "rtmp", "rtp", "http", "https", "tcp", "udp", "srt", "mms")
LONGEST_LIST = 64_000_000  # bytes; more is no list of files


class SourceError(UserError):
    """A source in which nothing can be read; the message says what to give instead."""


def is_stream(text: str) -> bool:
    """Whether a source is a camera (its number, or /dev/videoN) or an address, and no file.

    Raises:
        SourceError: an address of a kind that nothing here opens.
    """
    scheme, is_address, _ = text.partition("://")
    if is_address and scheme.isalpha() and scheme.lower() not in SCHEMES:
        raise SourceError(f"{without_password(text)}: {scheme}:// is not opened here; addresses are "
                          f"{', '.join(f'{known}://' for known in SCHEMES)}")  # fmt: skip
    if is_address and scheme.lower() in SCHEMES:
        return True
    return bool(re.fullmatch(r"/dev/video\d+", text)) or (text.isdecimal() and not Path(text).exists())


def camera_number(address: str) -> int | None:
    """Number of a camera; None for the address of a stream."""
    number = address.removeprefix("/dev/video")
    return int(number) if number.isdecimal() else None


def without_password(address: str) -> str:
    """An address as it may be printed and saved: without user, password and query, which hold secrets."""
    scheme, is_address, rest = address.partition("://")
    if not is_address:
        return address
    return f"{scheme}://{re.split('[?#]', rest, maxsplit=1)[0].rpartition('@')[2]}"


def stream_name(address: str) -> str:
    """What a stream's files are called: camera0, or host and path with `_` for what no file name should hold."""
    if camera_number(address) is not None:
        return f"camera{camera_number(address)}"
    return re.sub(r"[^\w.-]+", "_", without_password(address).partition("://")[2]).strip("_.") or "stream"


def url_suffix(address: str) -> str:
    """Suffix of the file that an address names, such as .jpg; empty for none."""
    return Path(urlsplit(address).path).suffix.lower()


def listed(path: Path) -> list[tuple[int, str]]:
    """Line numbers and entries of a list: one path, folder, glob or address a line, in .csv between commas too.

    A relative path counts from the list's own folder, else from the working directory.

    Raises:
        SourceError: no text, no entries, or another list among them.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(LONGEST_LIST + 1)
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise SourceError(f"{path}:{line}: not UTF-8 text, so no list of files; save it as UTF-8") from error
    if len(raw) > LONGEST_LIST or "\0" in text:
        raise SourceError(f"{path}: no list of files, one a line; name images, a folder, a glob or a video")
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        for entry in line.split(",") if path.suffix.lower() == ".csv" else [line]:
            entry = entry.strip().strip("\"'")
            if not entry or entry.startswith("#"):
                continue
            if Path(entry).suffix.lower() in LIST_SUFFIXES and not is_stream(entry):
                raise SourceError(f"{path}:{number}: {entry} is a list of its own; give both with --source")
            entries.append((number, _placed(entry, path.parent)))
    if not entries:
        raise SourceError(f"{path}: an empty list; write one image, video, folder or glob a line")
    return entries


def _placed(entry: str, folder: Path) -> str:
    """An entry of a list as it is found: below the list's folder, or as it stands."""
    if is_stream(entry):
        return entry
    forms = [entry, entry.replace("\\", "/")] if "\\" in entry else [entry]  # lists written on Windows
    for form in forms:
        for place in (folder / form, Path(form)):
            if place.exists() or next(iter(_matches(place)), None) is not None:
                return str(place)
    return str(folder / forms[-1])


def _matches(pattern: Path):
    import glob

    return glob.iglob(str(pattern), recursive=True) if glob.has_magic(str(pattern)) else ()
