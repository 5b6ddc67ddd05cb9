"""Videos written frame by frame, one open at a time."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import cv2
import numpy as np

from data.capture import DEFAULT_FPS

LARGEST_SIDE = 8_190  # MPEG-4 stores sides in 13 bits
LEAST_FREE = 65_536  # bytes; OpenCV says nothing of a full disk


class VideoFiles:
    """Writes MPEG-4 files; another path closes the one before."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._writer: cv2.VideoWriter | None = None
        self._frames = 0

    def write(self, path: Path, picture: np.ndarray, fps: float | None, otherwise: str) -> None:
        """Add the next frame, uint8 (H, W, 3) RGB, shrunk to what MPEG-4 holds, to the video at `path`.

        Raises:
            OSError: OpenCV cannot write there (the message ends in `otherwise`), the disk is full, or the video before
                is not whole, see `close`.
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
            self._path, self._writer, self._frames = path, writer, 0
        if shutil.disk_usage(path.parent).free < LEAST_FREE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        self._writer.write(cv2.cvtColor(picture[:height, :width], cv2.COLOR_RGB2BGR))
        self._frames += 1

    def close(self) -> None:
        """End the open video.

        Raises:
            OSError: it cannot be read back with all of its frames, as after a full disk.
        """
        path, writer, self._path, self._writer = self._path, self._writer, None, None
        if path is None or writer is None:
            return
        writer.release()
        held = frames_in(path)
        if held < self._frames:
            reason = f"holds {held} of the {self._frames} frames that were written; is the disk full?"
            raise OSError(f"{path}: {reason} Free some space and run again")


def frames_in(path: Path) -> int:
    """Frames that a video file says it holds; 0 where it cannot be opened."""
    capture = cv2.VideoCapture(str(path))
    try:
        return int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    finally:
        capture.release()
