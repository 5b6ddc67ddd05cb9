"""Frames of video files, cameras and addresses by OpenCV. A stream that breaks off is opened again."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator

import cv2
import numpy as np

from data.source_names import camera_number

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # what FFmpeg would print itself, a line here says
DEFAULT_FPS = 30.0
# Containers without an index only estimate their number of frames.
COMPLETE_SHARE = 0.98
OPEN_MS, READ_MS = 5_000, 10_000  # how long a stream is waited for, to open and for every further frame
TRIES, PAUSE = 3, 1.0  # to open a stream again that broke off, and seconds before each


class Capture:
    """An open video; whether it opened, `is_open` says.

    Args:
        place: path of a file, number of a camera, or address.
        is_stream: it is a camera or an address.
        name: what may be printed of it.
        endless: where it ends, it broke off; not so where it says how many frames it has.

    Attributes:
        size: height and width.
        fps: frames per second.
        expected: frames that it says it has; 0 for none, as of a camera.
        read: frames that came, those that were left out counted.
    """

    def __init__(self, place: str, is_stream: bool, name: str, endless: bool):
        self.place, self.is_stream, self.name, self.endless = place, is_stream, name, endless
        self._video = self._opened()
        self.is_open, self.read, self.lost = self._video.isOpened(), 0, False
        ask = self._video.get
        self.size = int(ask(cv2.CAP_PROP_FRAME_HEIGHT)), int(ask(cv2.CAP_PROP_FRAME_WIDTH))
        self.expected, fps = max(0, int(ask(cv2.CAP_PROP_FRAME_COUNT))), ask(cv2.CAP_PROP_FPS)
        self.fps = fps if math.isfinite(fps) and fps > 0 else DEFAULT_FPS

    def frames(self, stride: int) -> Iterator[tuple[int, np.ndarray, float]]:
        """Number from 1, image uint8 (H, W, 3) BGR, and seconds from the start (of a stream: since its first frame) of
        every `stride`-th frame."""
        seconds, start = -1.0, math.nan
        while self._grab():
            self.read += 1
            if (self.read - 1) % stride:
                continue
            good, image = self._video.retrieve()
            if not good:
                self.read -= 1
                return
            now = time.monotonic()
            start = now if self.read == 1 else start
            told = now - start if self.is_stream else self._video.get(cv2.CAP_PROP_POS_MSEC) / 1000
            seconds = told if told > seconds else max(seconds, (self.read - 1) / self.fps)  # some tell no times
            yield self.read, image, seconds

    def why_closed(self) -> str:
        """Why it did not open."""
        if not self.is_stream:
            return "not a video that OpenCV can open, or damaged; replace or remove the file"
        if camera_number(self.place) is not None:
            return "no such camera, or another program uses it; `ls /dev/video*` lists them"
        return f"no answer within {OPEN_MS // 1000} s, or no video or image there; check address, network and password"

    def why_short(self) -> str:
        """Why its frames ended before their time; "" where they did not."""
        if self.lost:
            return f"broke off after {self.read} frames and did not come back; what came until then is complete"
        if self.is_stream and self.read == 0:
            return "it was opened, but no frame came; try another player"
        if not self.is_stream and (self.read == 0 or self.read < COMPLETE_SHARE * self.expected):
            return f"ends after {self.read} of {self.expected} frames; the file is damaged or truncated"
        return ""

    def release(self) -> None:
        self._video.release()

    def _grab(self) -> bool:
        """Take the next frame, of a stream without an end also after it broke off."""
        if self._video.grab():
            return True
        if not self.endless or self.expected or not self.read:
            return False
        print(
            f"warning: {self.name}: broke off after {self.read} frames, opening it again", file=sys.stderr, flush=True
        )
        for _ in range(TRIES):
            time.sleep(PAUSE)
            self._video.release()
            self._video = self._opened()
            if self._video.isOpened() and self._video.grab():
                return True
        self.lost = True
        return False

    def _opened(self) -> cv2.VideoCapture:
        if not self.is_stream:
            return cv2.VideoCapture(self.place)
        number, level = camera_number(self.place), cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(0)  # what fails is told by `why_closed`
        try:
            if number is not None:
                return cv2.VideoCapture(number)
            waits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_MS]
            return cv2.VideoCapture(self.place, cv2.CAP_FFMPEG, waits)
        finally:
            cv2.utils.logging.setLogLevel(level)
