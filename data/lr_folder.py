"""Finding the LR copy of an image in a folder that mirrors the image folders."""

from __future__ import annotations

import os
from pathlib import Path

from data.data_spec import DataSetError
from data.image_files import IMAGE_SUFFIXES, list_images, warn_of_unread


def find_lr_images(images: list[Path], folder: Path, scale: int) -> list[Path]:
    """LR image of each image, in order.

    `.../images/train/a.jpg` belongs to `folder/train/a.*`; an image whose path has no `images/` part belongs to the
    file in `folder` that shares its folder's name and its own, else its own name alone. The suffix may differ.

    Args:
        images: HR images.
        folder: LR images.
        scale: for the message.

    Raises:
        DataSetError: no such folder, or an image has no LR copy or several.
    """
    make = f"make the copies with `python -m data.prepare_detection_data lr --scale {scale}`, or correct data.lr_folder"
    if not folder.is_dir():
        raise DataSetError(f"data.lr_folder: {folder}: no such folder; {make}")
    warn_of_unread(folder)
    by_stem: dict[str, list[Path]] = {}
    for path in list_images(folder):
        by_stem.setdefault(str(path.relative_to(folder).with_suffix("")), []).append(path)
    found = []
    for image in images:
        stems = _stems(image)
        matches = next((by_stem[stem] for stem in stems if stem in by_stem), [])
        if len(matches) > 1:
            raise DataSetError(f"{image}: several LR copies: {', '.join(map(str, matches))}; keep one of them")
        if not matches:
            raise DataSetError(
                f"{image}: no LR copy {folder / stems[0]}.* ({', '.join(IMAGE_SUFFIXES)}) for scale {scale}; {make}"
            )
        found += matches
    return found


def _stems(image: Path) -> list[str]:
    """Paths without suffix, relative to the LR folder, under which the copy may lie; the best first."""
    _, marker, tail = str(image).rpartition(f"{os.sep}images{os.sep}")
    if marker:
        return [str(Path(tail).with_suffix(""))]
    return [str(Path(image.parent.name, image.stem)), image.stem]
