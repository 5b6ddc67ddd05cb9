"""A run of inference: its folder, the names of its files, and the loop that saves, prints and counts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Protocol

from data.sources import RESULTS_MARK, Frame, Skipped, SourceFile
from prediction.stage_times import StageTimes

SUBFOLDERS = ("sr", "masks", "labels")


class Writer(Protocol):
    """Saves results of one kind as they come."""

    def write(self, frame: Frame, result: Any) -> None:
        """Save what was made of one frame. Raises OSError where the run folder cannot be written."""

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
                with self.times.measure("saving"):
                    self.writer.write(frame, result)
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


def new_run_folder(out: str | Path) -> Path:
    """Create `out`, or `out2`, `out3`, ... where it exists; another run's folder is never used again.

    Raises:
        OSError: it cannot be created.
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


def output_names(files: Iterable[SourceFile]) -> dict[SourceFile, PurePath]:
    """Path of every file's results below the run folder, without suffix: sub-folders mirrored, no name used twice.

    Two files of one stem become `name` and `name-2`, as with Ultralytics. Images must stand before videos.
    """
    names, taken, frames = {}, set(), set()
    for file in files:
        parts = [part for part in file.relative.parts if part != ".."]
        if len(parts) > 1 and parts[0].casefold() in SUBFOLDERS:
            parts[0] += "_"
        name, number = PurePath(*parts[:-1], file.relative.stem), 1
        # A video's label name_7.txt must not be that of an image name_7.png either.
        while _folded(name) in taken or (file.is_video and _folded(name) in frames):
            number += 1
            name = PurePath(*parts[:-1], f"{file.relative.stem}-{number}")
        names[file] = name
        taken.add(_folded(name))
        if not file.is_video and (match := re.fullmatch(r"(.*)_\d+", _folded(name), re.DOTALL)):
            frames.add(match[1])
    return names


def _folded(name: PurePath) -> str:
    """Names that differ in case only are one file on some systems."""
    return str(name).casefold()
