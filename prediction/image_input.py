"""What the Python API takes as images: paths, Pillow images, arrays, tensors and lists of them, as RGB frames."""

from __future__ import annotations

import itertools
import math
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data.images import pillow_to_rgb, to_8_bit
from data.sources import Frame, Skipped, SourceFile, list_sources, read_frames
from utils.errors import UserError

Item = TypeVar("Item")
MAX_PIXELS = 100_000_000  # of a file, judged by its header; a larger one is a mistake or an attack more often than not
CHANNEL_ORDERS = ("rgb", "bgr")
KINDS = "a path, folder, glob or video, a Pillow image, a NumPy array, a tensor, or a list of these"
RANGE_REMEDY = "floating-point images have values in [0, 1]: divide by 255, or clamp"


def open_source(source, channels: str | None, max_pixels: int, vid_stride: int = 1) -> Iterator[Frame | Skipped]:
    """Frames of anything that the Python API takes; copies, so that no input is ever written to or kept.

    Types, shapes and paths are checked at once; files are read and values converted as the frames are asked for.

    Args:
        source: path of an image, folder, glob or video (str or PathLike); Pillow image of any mode; NumPy array (H, W),
            (H, W, 1), (H, W, 3) or (H, W, 4), uint8, uint16 or floating point in [0, 1]; tensor (3, H, W) or
            (B, 3, H, W) RGB, floating point in [0, 1] or uint8; list or tuple of these; or an iterator over these,
            which is taken item by item.
        channels: rgb or bgr, the order of colours in NumPy arrays, which do not tell; nothing else needs it.
        max_pixels: largest height x width accepted of files, judged before decoding.
        vid_stride: see `read_frames`.

    Raises:
        UserError: another type, shape or order of channels, an empty list, a path without images, or, as it is
            converted, values that are NaN or out of range.
    """
    if channels is not None and channels not in CHANNEL_ORDERS:
        raise UserError(f"channels is {channels!r}; give 'rgb' or 'bgr'")
    numbers = itertools.count()
    if isinstance(source, Iterator):
        return itertools.chain.from_iterable(
            _open_one(item, channels, max_pixels, numbers, vid_stride) for item in source
        )
    items = source if isinstance(source, list | tuple) else [source]
    if not items:
        raise UserError(f"the source is an empty list; give {KINDS}")
    return itertools.chain.from_iterable([_open_one(item, channels, max_pixels, numbers, vid_stride) for item in items])


def one_image(source, channels: str | None, max_pixels: int) -> np.ndarray:
    """The only image of a source, uint8 (H, W, 3) RGB; arguments as `open_source`.

    Raises:
        UserError: there are several, or it cannot be read; see also `open_source`.
    """
    frames = [*itertools.islice(without_skipped(open_source(source, channels, max_pixels), "error"), 2)]
    if len(frames) > 1:
        raise UserError("the source holds several images; give one at a time")
    return frames[0].image


def _open_one(
    item, channels: str | None, max_pixels: int, numbers: Iterator[int], vid_stride: int
) -> Iterator[Frame | Skipped]:
    """Frames of one path, image, array or tensor."""
    name = ""
    if isinstance(item, str | os.PathLike):
        return read_frames(list_sources(item), max_pixels, vid_stride)
    if isinstance(item, Image.Image):
        name = str(getattr(item, "filename", ""))
        images = map(pillow_to_rgb, [item], [name or "a Pillow image"])
    elif isinstance(item, np.ndarray):
        _check_array(item, channels)
        images = map(_array_to_rgb, [item], [channels])
    elif isinstance(item, Tensor):
        _check_tensor(item)
        images = map(_tensor_to_rgb, item if item.dim() == 4 else [item])
    else:
        raise UserError(f"a source is of type {type(item).__name__}; give {KINDS}")
    # What has no name gets that of Ultralytics.
    return (Frame(_no_file(name or f"image{number}.jpg", number), image) for image, number in zip(images, numbers))


def _no_file(name: str, number: int) -> SourceFile:
    """What stands for the file of an image that was given itself."""
    return SourceFile(Path(name), Path(name), number + 1, number + 1)


def _check_array(array: np.ndarray, channels: str | None) -> None:
    """Refuse arrays that are no image by their shape or type, and colours of unsaid order."""
    shape, kind = array.shape, array.dtype
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in (1, 3, 4)) or 0 in shape:
        hint = ""
        if array.ndim == 4:
            hint = "; give a batch as a list of arrays, or as a tensor (B, 3, H, W)"
        elif array.ndim == 3 and shape[0] in (1, 3, 4):
            hint = "; it seems to have its channels first: use array.transpose(1, 2, 0)"
        raise UserError(f"an array has shape {shape}; an image is (H, W), (H, W, 1), (H, W, 3) or (H, W, 4){hint}")
    if kind.type not in (np.uint8, np.uint16) and not np.issubdtype(kind, np.floating):
        raise UserError(f"an array has type {kind}; convert it to uint8, uint16, or floating point in [0, 1]")
    if array.ndim == 3 and shape[2] > 1 and channels is None:
        raise UserError(
            "an array does not tell the order of its colours; add channels='bgr' (OpenCV, and what Ultralytics takes "
            "arrays for) or channels='rgb' (Pillow, scikit-image, imageio)"
        )


def _array_to_rgb(array: np.ndarray, channels: str | None) -> np.ndarray:
    """Checked array -> uint8 (H, W, 3) RGB, a copy; alpha is dropped."""
    if array.dtype.type == np.uint16:
        array = to_8_bit(array)
    elif array.dtype != np.uint8:
        array = _from_unit_range(array, "an array")
    if array.ndim == 2 or array.shape[2] == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    colours = array[..., 2::-1] if channels == "bgr" else array[..., :3]
    return np.array(colours, order="C")


def _check_tensor(tensor: Tensor) -> None:
    """Refuse tensors that are no images by their shape or type."""
    shape = tuple(tensor.shape)
    if tensor.dim() not in (3, 4) or shape[-3] != 3 or 0 in shape:
        hint = "; permute(2, 0, 1) moves channels to the front" if shape[-1:] == (3,) else ""
        raise UserError(f"a tensor has shape {shape}; images are (3, H, W) or (B, 3, H, W), RGB{hint}")
    if not tensor.is_floating_point() and tensor.dtype != torch.uint8:
        raise UserError(f"a tensor has type {tensor.dtype}; give floating point in [0, 1], or uint8")


def _tensor_to_rgb(tensor: Tensor) -> np.ndarray:
    """Checked tensor (3, H, W) on any device -> uint8 (H, W, 3) RGB, a copy."""
    image = tensor.detach().permute(1, 2, 0)
    if tensor.dtype == torch.uint8:
        return np.array(image.cpu().numpy(), order="C")
    return np.ascontiguousarray(_from_unit_range(image.float().cpu().numpy(), "a tensor"))


def _from_unit_range(values: np.ndarray, what: str) -> np.ndarray:
    """Floats in [0, 1] -> uint8, rounded to the nearest. Raises UserError for NaN and values outside."""
    values = values.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if math.isnan(low):
        raise UserError(f"{what} holds NaN; {RANGE_REMEDY}")
    if low < 0 or high > 1:
        raise UserError(f"{what} has values from {low:g} to {high:g}; {RANGE_REMEDY}")
    return np.rint(values * 255).astype(np.uint8)


def without_skipped(items: Iterable[Item | Skipped], on_bad_image: str) -> Iterator[Item]:
    """Items without what was skipped, which ends the stream (error) or is left out with a warning (skip).

    Raises:
        UserError: something was skipped, where that is an error; or `on_bad_image` is neither.
    """
    if on_bad_image not in ("error", "skip"):
        raise UserError(f"on_bad_image is {on_bad_image!r}; give 'error' or 'skip'")
    return _without_skipped(items, on_bad_image == "skip")


def _without_skipped(items: Iterable[Item | Skipped], warn: bool) -> Iterator[Item]:
    for item in items:
        if not isinstance(item, Skipped):
            yield item
            continue
        message = f"{item.file.path}: {item.reason}"
        if not warn:
            raise UserError(f"{message}; or leave it out with on_bad_image='skip'")
        warnings.warn(f"{message}; left out", stacklevel=2)
