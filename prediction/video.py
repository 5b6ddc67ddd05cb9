"""Videos written frame by frame, one open at a time."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from data.sources import DEFAULT_FPS

LARGEST_SIDE = 8_190  # MPEG-4 stores sides in 13 bits


class VideoFiles:
    """Writes MPEG-4 files; another path closes the one before."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._writer: cv2.VideoWriter | None = None

    def write(self, path: Path, picture: np.ndarray, fps: float | None, otherwise: str) -> None:
        """Add the next frame, uint8 (H, W, 3) RGB, shrunk to what MPEG-4 holds, to the video at `path`.

        Raises:
            OSError: OpenCV cannot write there; the message ends in `otherwise`.
        """
        shrink = min(1.0, LARGEST_SIDE / max(picture.shape[:2]))
        if shrink < 1:
            picture = cv2.resize(picture, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        height, width = (side // 2 * 2 for side in picture.shape[:2])  # MPEG-4 takes even sides only
        if self._writer is None or path != self._path:
            self.close()
            path.parent.mkdir(parents=True, exist_ok=True)
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps or DEFAULT_FPS, (width, height))
            if not writer.isOpened():
                raise OSError(f"{path}: OpenCV cannot write this video ({width}x{height}); {otherwise}")
            self._path, self._writer = path, writer
        self._writer.write(cv2.cvtColor(picture[:height, :width], cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()
        self._path, self._writer = None, None
