"""A copy-free view of a detection data set that Ultralytics may write to.

Ultralytics puts label caches beside the labels and replaces JPEG files that it finds imperfect. The view holds links to
the images that passed the scan and freshly written labels, so the user's folders are only read. Images that Ultralytics
would read otherwise than this project, or not at all, are written as PNG.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from PIL import Image

from data.data_spec import Record
from data.images import read_rgb
from utils.errors import UserError


def build_view(folder: Path, names: Sequence[str], splits: Mapping[str, Sequence[Record]]) -> Path:
    """Write `images/{split}/` (links), `labels/{split}/` (YOLO text) and `data.yaml` under `folder`.

    Args:
        folder: emptied first if it is an earlier view; in the run folder.
        names: class names, index = class.
        splits: split name -> records of its good images.

    Returns:
        Path of data.yaml, in Ultralytics' format with absolute paths.

    Raises:
        ValueError: `folder` exists and is no view.
    """
    folder = Path(folder).absolute()
    if folder.exists():
        if not (folder / "data.yaml").is_file():
            raise UserError(f"{folder}: exists and is no data view; move it away or choose another run.out")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    config = {"path": str(folder), "names": dict(enumerate(names))}
    file = folder / "data.yaml"
    file.write_text("", encoding="utf-8")  # marks the folder as a view while it is being filled
    for split, records in splits.items():
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        shown = [
            Path(r.image).with_suffix(Path(r.image).suffix if r.common == "" else r.common or ".png") for r in records
        ]
        for name, record in zip(unique_names(shown), records, strict=True):
            if record.common is None:
                pixels = read_rgb(record.image, record.height * record.width)
                Image.fromarray(pixels).save(images / name, compress_level=1)
            else:
                _link(Path(record.image).absolute(), images / name)
            (labels / name).with_suffix(".txt").write_text(label_file_text(record), encoding="utf-8")
        config[split] = f"images/{split}"
    file.write_text(yaml.safe_dump(config, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return file


def unique_names(images: Sequence[Path]) -> list[str]:
    """One file name per image whose stem is unique (labels are found by stem): a number goes in front where needed."""
    used: set[str] = set()
    names = []
    for image in map(Path, images):
        name, n = image.name, 0
        while Path(name).stem.casefold() in used:
            n += 1
            name = f"{n}_{image.name}"
        used.add(Path(name).stem.casefold())
        names.append(name)
    return names


def label_file_text(record: Record) -> str:
    """YOLO lines `class cx cy w h`; empty for an image without objects."""
    return "".join(
        f"{int(c)} " + " ".join(f"{float(v):.8g}" for v in box) + "\n"
        for c, box in zip(record.classes, record.boxes, strict=True)
    )


def _link(source: Path, target: Path) -> None:
    try:
        os.symlink(source, target)
    except OSError:  # file systems without links
        shutil.copyfile(source, target)
