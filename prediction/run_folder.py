"""A run of inference: its folder, the names of its files, and the loop that saves, prints and counts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Protocol

from data.sources import RESULTS_MARK, Frame, Skipped, SourceFile, has_frames
from prediction.stage_times import StageTimes
from utils.errors import UserError

SUBFOLDERS = ("sr", "masks", "labels", "crops")


class Writer(Protocol):
    """Saves results of one kind as they come."""

    def write(self, frame: Frame, result: Any) -> None:
        """Save what was made of one frame.

        Raises:
            OSError: the run folder cannot be written.
            UserError: what is made as it is saved cannot be made.
        """

    def line(self, result: Any) -> str:
        """What to print of it, behind the label and size of the frame."""

    def summary(self) -> tuple[list[str], list[str]]:
        """What was counted (12 objects), and what else was saved ((9 label files))."""

    def close(self) -> None:
        """End what is still open, also after an error."""


@dataclass(frozen=True)
class Run:
    """One run of inference, ready to start.

    Args:
        files: all files of the run, images first.
        items: results in order, made as they are asked for, and what was skipped.
        writer: where the results go.
        folder: the run folder.
        times: stages and their seconds.
    """

    files: list[SourceFile]
    items: Iterable[tuple[Frame, Any] | Skipped]
    writer: Writer
    folder: Path
    times: StageTimes

    def save(self) -> dict[SourceFile, str]:
        """Save all results with a printed line each, then print a summary.

        Returns:
            Skipped file -> reason.

        Raises:
            OSError: results cannot be saved.
        """
        skipped, images = {}, 0
        try:
            for item in self.items:
                if isinstance(item, Skipped):
                    print(f"{item.file.label}: skipped, {item.reason}", flush=True)
                    skipped[item.file] = item.reason
                    continue
                frame, result = item
                try:
                    with self.times.measure("saving"):
                        self.writer.write(frame, result)
                except UserError as error:  # what is made as it is saved, an image in parts, cannot be made
                    print(f"{frame.label}: skipped, {error}", flush=True)
                    skipped[frame.file] = str(error)
                    continue
                print(f"{frame.label}: {frame.width}x{frame.height} {self.writer.line(result)}", flush=True)
                images += 1
        finally:
            self.writer.close()
        counts, saved = self.writer.summary()
        counts = [f"{len(self.files)} files", f"{images} images", *counts, f"{len(skipped)} files skipped"]
        print(f"\n{', '.join(counts)}")
        print(f"Speed per image: {self.times.per_image(images)}")
        print(f"Results saved to {self.folder}", *saved)
        return skipped


def check_folder(folder: Path, key: str) -> None:
    """Raises UserError where a folder cannot be made, because a file stands in its place or above it."""
    there = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if there.exists() and not there.is_dir():
        raise UserError(f"{key}: {there} is a file, so {folder} can be no folder; name another one")


def new_run_folder(out: str | Path) -> Path:
    """Create `out`, or `out2`, `out3`, ... where it exists; another run's folder is never used again.

    Raises:
        UserError: it cannot be created.
    """
    out, number = Path(out).absolute(), 1
    while True:
        folder = out if number == 1 else out.with_name(f"{out.name}{number}")
        try:
            folder.mkdir(parents=True)
            (folder / RESULTS_MARK).touch()
            return folder
        except FileExistsError:
            number += 1
        except OSError as error:
            raise UserError(f"{folder}: cannot be created ({error.strerror or error}); name another --out") from error


def output_names(files: Iterable[SourceFile]) -> dict[SourceFile, PurePath]:
    """Path of every file's results below the run folder, without suffix: sub-folders mirrored, no name used twice.

    Two files of one stem become `name` and `name-2`, as with Ultralytics. Images must stand before videos.
    """
    files = list(files)
    own = {file: _own_name(file) for file in files}
    matches = (re.fullmatch(r"(.*)_\d+", _folded(own[file]), re.DOTALL) for file in files if not file.is_video)
    numbered = {match[1] for match in matches if match}
    names, taken = {}, set()
    for file in files:
        name, number = own[file], 1
        # The label name_7.txt of a video's frame, or of a page, must not be that of an image name_7.png either.
        avoided = numbered if _folded(name) in numbered and has_frames(file) else ()
        while _folded(name) in taken or _folded(name) in avoided:
            number += 1
            name = own[file].with_name(f"{own[file].name}-{number}")
        names[file] = name
        taken.add(_folded(name))
    return names


def _own_name(file: SourceFile) -> PurePath:
    """Path below the run folder without suffix, where no other file takes it."""
    parts = [part for part in file.relative.parts if part != ".."]
    if len(parts) > 1 and parts[0].casefold() in SUBFOLDERS:
        parts[0] += "_"
    return PurePath(*parts[:-1], file.relative.name if file.stream else file.relative.stem)


def _folded(name: PurePath) -> str:
    """Names that differ in case only are one file on some systems."""
    return str(name).casefold()
