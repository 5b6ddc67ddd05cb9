"""Pictures for people: boxes, masks, and several images side by side. Everything is RGB, drawn on copies."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np

KEPT_COLOUR = (255, 140, 0)
BACKGROUND = (24, 24, 24)
READABLE_HEIGHT = 384
FONT = cv2.FONT_HERSHEY_SIMPLEX


def class_colour(index: int) -> tuple[int, int, int]:
    """A bright RGB colour per class; neighbouring classes get very different ones."""
    hue = (0.33 + index * 0.618034) % 1.0  # golden ratio: no two of the first classes come close
    red, green, blue = (round(255 * value) for value in colorsys.hsv_to_rgb(hue, 0.75, 1.0))
    return red, green, blue


def enlarge(image: np.ndarray, height: int) -> tuple[np.ndarray, int]:
    """Repeat pixels by the smallest whole factor that reaches `height`; returns the image and the factor."""
    check_uint8(image)
    factor = max(1, -(-height // image.shape[0]))
    return image.repeat(factor, axis=0).repeat(factor, axis=1), factor


def draw_boxes(
    image: np.ndarray, boxes: np.ndarray, names: Sequence[str], colour: tuple[int, int, int] | None = None,
    line_width: int | None = None, labels: bool = True, scores: bool = True,
) -> np.ndarray:  # fmt: skip
    """Draw boxes with class name and score.

    Args:
        image: uint8 (H, W, 3).
        boxes: (n, 6) x1, y1, x2, y2 in pixels of the image, score, class; a NaN score (ground truth) is not written,
            boxes with non-finite corners are left out.
        names: class names.
        colour: RGB of all boxes; None gives each class its own.
        line_width: of the boxes in pixels; None: by the size of the image.
        labels, scores: whether class names and scores are written.

    Raises:
        ValueError: wrong shape or type of image or boxes.
    """
    check_uint8(image)
    boxes = np.asarray(boxes, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 6:
        raise ValueError(f"draw_boxes: boxes have shape {boxes.shape}; expected (n, 6): x1, y1, x2, y2, score, class")
    canvas = np.ascontiguousarray(image.copy())
    height, width = canvas.shape[:2]
    thickness = line_width or max(1, round(max(height, width) / 640))
    size = max(0.35, min(height, width) / 1400)
    # The best box is drawn last, so that it stays readable.
    order = np.argsort(np.nan_to_num(boxes[:, 4], nan=0.0), kind="stable")
    for x1, y1, x2, y2, score, label in boxes[order]:
        if not np.isfinite((x1, y1, x2, y2)).all():
            continue
        shade = class_colour(int(label)) if colour is None else colour
        left, right = (int(np.clip(round(x), 0, width - 1)) for x in (x1, x2))
        top, bottom = (int(np.clip(round(y), 0, height - 1)) for y in (y1, y2))
        cv2.rectangle(canvas, (left, top), (right, bottom), shade, thickness)
        name = names[int(label)] if 0 <= int(label) < len(names) else str(int(label))
        shown = [name] * labels + [f"{score:.2f}"] * (scores and not np.isnan(score))
        if shown:
            write_label(canvas, " ".join(shown), left, top, shade, size)
    return canvas


def write_label(canvas: np.ndarray, text: str, left: int, top: int, colour: tuple[int, int, int], size: float) -> None:
    """Write text on a filled ground above (left, top), moved where it would leave the canvas; draws into it."""
    # OpenCV's line font knows ASCII only; OpenCV 5 holds a font with other letters, Chinese ones too.
    outline = None if text.isascii() or not hasattr(cv2, "FontFace") else (cv2.FontFace("sans"), round(30 * size))
    if outline:
        _, above, width, tall = cv2.getTextSize(canvas.shape[1::-1], text, (0, 0), *outline)
        height, base = -above, tall + above
    else:
        text = text.encode("ascii", "replace").decode()
        (width, height), base = cv2.getTextSize(text, FONT, size, 1)
    left = max(0, min(left, canvas.shape[1] - width - 2))
    bottom = top if top >= height + base + 1 else min(top + height + base + 1, canvas.shape[0] - 1)
    cv2.rectangle(canvas, (left, bottom - height - base - 1), (left + width + 1, bottom), colour, -1)
    ink, place = (0, 0, 0) if np.dot((0.299, 0.587, 0.114), colour) > 127 else (255,) * 3, (left + 1, bottom - base)
    if outline:
        cv2.putText(canvas, text, place, ink, *outline)
    else:
        cv2.putText(canvas, text, place, FONT, size, ink, 1, cv2.LINE_AA)


def shade_mask(image: np.ndarray, mask: np.ndarray, patch_px: int) -> np.ndarray:
    """Tint the kept patches, outline their regions, darken the rest.

    Args:
        image: uint8 (H, W, 3).
        mask: (gh, gw), above 0.5 where a patch is kept.
        patch_px: side of a patch in pixels of this image.

    Raises:
        ValueError: wrong image, or a grid that is not ceil(H / patch_px) x ceil(W / patch_px).
    """
    check_uint8(image)
    height, width = image.shape[:2]
    mask = np.asarray(mask) > 0.5
    grid = (-(-height // patch_px), -(-width // patch_px))
    if mask.shape != grid:
        raise ValueError(
            f"shade_mask: a {height}x{width} image with patches of {patch_px} px has a {grid[0]}x{grid[1]} grid, "
            f"but the mask is {mask.shape}"
        )
    kept = mask.repeat(patch_px, axis=0).repeat(patch_px, axis=1)[:height, :width]
    inner = cv2.erode(kept.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0).astype(bool)
    tinted = 0.7 * image + 0.3 * np.array(KEPT_COLOUR)
    shaded = np.where(kept[..., None], tinted, 0.75 * image)
    shaded[kept & ~inner] = KEPT_COLOUR
    return shaded.round().clip(0, 255).astype(np.uint8)


def panel(images: Sequence[np.ndarray], titles: Sequence[str]) -> np.ndarray:
    """Images side by side, each under its title; smaller ones are enlarged (nearest) to the height of the tallest.

    Args:
        images: uint8 (H, W, 3) each, of any sizes.
        titles: one per image.

    Returns:
        uint8 (H + title bar, sum of widths + gaps, 3).

    Raises:
        ValueError: no images, wrong images, or not one title per image.
    """
    if not images or len(images) != len(titles):
        raise ValueError(f"panel: {len(images)} images and {len(titles)} titles; give one title per image")
    for image in images:
        check_uint8(image)
    height = max(image.shape[0] for image in images)
    bar, gap = max(16, height // 16), max(2, height // 128)
    columns = []
    for image, title in zip(images, titles, strict=True):
        width = max(1, round(image.shape[1] * height / image.shape[0]))
        column = np.full((height + bar, width, 3), BACKGROUND, np.uint8)
        column[bar:] = cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST)
        write_title(column, title, bar)
        columns += [np.full((height + bar, gap, 3), BACKGROUND, np.uint8), column]
    return np.concatenate(columns[1:], axis=1)


def detection_panel(
    lr: np.ndarray,
    sr: np.ndarray,
    detections: np.ndarray,
    names: Sequence[str],
    ground_truth: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    patch: int | None = None,
) -> np.ndarray:
    """What the system did with one image: LR, mask, SR, detections, ground truth side by side, readable at any size.

    Args:
        lr: uint8 (h, w, 3).
        sr: uint8 (H, W, 3).
        detections: (n, 6) x1, y1, x2, y2 in pixels of `sr`, score, class.
        names: class names.
        ground_truth: the same for the ground truth, with NaN scores; None leaves the picture out.
        mask: (gh, gw), above 0.5 where a patch is kept; None leaves the picture out.
        patch: side of a patch in pixels of `lr`, needed with a mask.

    Returns:
        uint8 (height, width, 3).

    Raises:
        ValueError: a mask without `patch`.
    """
    large, factor = enlarge(sr, READABLE_HEIGHT)
    grown = [factor] * 4 + [1, 1]
    pictures = {"LR": lr}
    if mask is not None:
        if patch is None:
            raise ValueError("patch is missing: the side of the mask's patches in pixels of `lr`")
        shown, times = enlarge(lr, large.shape[0])
        pictures[f"mask, kept {np.mean(np.asarray(mask) > 0.5):.2f}"] = shade_mask(shown, mask, patch * times)
    pictures |= {"SR": large, "detections": draw_boxes(large, np.asarray(detections) * grown, names)}
    if ground_truth is not None:
        pictures["ground truth"] = draw_boxes(large, np.asarray(ground_truth) * grown, names)
    return panel(list(pictures.values()), list(pictures))


def write_title(column: np.ndarray, title: str, bar: int) -> None:
    """Write a title into the top `bar` pixels, as large as fits; draws into the column."""
    title = title.encode("ascii", "replace").decode()
    (width, _), _ = cv2.getTextSize(title, FONT, 1.0, 1)
    (_, height), base = cv2.getTextSize("Ag", FONT, 1.0, 1)  # all titles stand on one line, whatever their letters
    size = min((bar - 2) / (height + base), (column.shape[1] - 4) / max(1, width))
    if size > 0.1:  # below, nothing could be read
        base = round(base * size)
        cv2.putText(column, title, (2, bar - 1 - base), FONT, size, (235, 235, 235), 1, cv2.LINE_AA)


def check_uint8(image: np.ndarray) -> None:
    """Raises ValueError unless the image is uint8 (H, W, 3) and not empty."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        kind = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"a picture must be uint8 (H, W, 3) RGB, not {kind}")
    if image.size == 0:
        raise ValueError(f"a picture must not be empty: {image.shape}")
