"""The run folder of `inference.py --sr-only`: super-resolved images as PNG, videos as MPEG-4."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from data.sources import Frame, SourceFile
from prediction.png_strips import save_png
from prediction.run_folder import output_names
from prediction.super_resolver import Upscaled
from prediction.video import VideoFiles


class SRWriter:
    """Writes super-resolved images as they come; holds one strip of a large image, and one open video at most.

    Args:
        folder: existing, empty run folder.
        files: all files that will come, images first.
    """

    def __init__(self, folder: Path, files: Iterable[SourceFile]):
        self.folder, self.outputs, self._videos = folder, output_names(files), VideoFiles()

    def write(self, frame: Frame, result: Upscaled) -> None:
        """Save an image, or the next frame of a video.

        Raises:
            OSError: the run folder cannot be written.
            UserError: a large image cannot be made; nothing of it is left.
        """
        path = self.folder / self.outputs[frame.file]
        path.parent.mkdir(parents=True, exist_ok=True)
        if not frame.file.is_video:
            page = "" if frame.index is None else f"_{frame.index}"
            save_png(path.with_name(f"{path.name}{page}.png"), result.strips, result.shape)
        else:
            self._videos.write(
                path.with_name(f"{path.name}.mp4"), result.whole(), frame.fps, "take its frames as images"
            )

    def line(self, result: Upscaled) -> str:
        """`-> 640x480`."""
        return f"-> {result.shape[1]}x{result.shape[0]}"

    def summary(self) -> tuple[list[str], list[str]]:
        return [], []

    def close(self) -> None:
        self._videos.close()
