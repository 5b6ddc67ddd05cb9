"""The run folder of `inference.py --sr-only`: super-resolved images as PNG, videos as MPEG-4."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from data.sources import Frame, SourceFile
from prediction.run_folder import output_names
from prediction.video import VideoFiles


class SRWriter:
    """Writes super-resolved images, uint8 (H, W, 3) RGB, as they come; one open video at most.

    Args:
        folder: existing, empty run folder.
        files: all files that will come, images first.
    """

    def __init__(self, folder: Path, files: Iterable[SourceFile]):
        self.folder, self.outputs, self._videos = folder, output_names(files), VideoFiles()

    def write(self, frame: Frame, result: np.ndarray) -> None:
        """Save an image, or the next frame of a video. Raises OSError where the run folder cannot be written."""
        path = self.folder / self.outputs[frame.file]
        path.parent.mkdir(parents=True, exist_ok=True)
        if not frame.file.is_video:
            page = "" if frame.index is None else f"_{frame.index}"
            Image.fromarray(result).save(path.with_name(f"{path.name}{page}.png"), compress_level=1)
        else:
            self._videos.write(path.with_name(f"{path.name}.mp4"), result, frame.fps, "take its frames as images")

    def line(self, result: np.ndarray) -> str:
        """`-> 640x480`."""
        return f"-> {result.shape[1]}x{result.shape[0]}"

    def summary(self) -> tuple[list[str], list[str]]:
        return [], []

    def close(self) -> None:
        self._videos.close()
