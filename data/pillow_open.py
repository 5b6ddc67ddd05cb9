"""Pillow's own `Image.open`, whatever other libraries have put in its place."""

from __future__ import annotations

import sys
from typing import IO

from PIL import Image

# Pillow's own limit would hide the size of a huge image from the message; `max_pixels` takes its place.
Image.MAX_IMAGE_PIXELS = None


def open_image(file: str | IO[bytes]) -> Image.Image:
    """Open an image up to its header; the errors are Pillow's.

    Ultralytics replaces `Image.open` by a function that tries to install a reader of HEIF for every file that Pillow
    does not know, and keeps Pillow's own as `_image_open`.
    """
    module = sys.modules.get(Image.open.__module__)
    return getattr(module, "_image_open", Image.open)(file)
