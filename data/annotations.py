"""Reading Pascal VOC XML and COCO JSON as boxes in pixels (`prepare_detection_data.py` writes them as YOLO)."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from utils.errors import UserError

Box = tuple[float, float, float, float]


class AnnotationError(UserError):
    """An annotation that cannot be converted: file, reason, remedy."""


@dataclass(frozen=True)
class Annotated:
    """One annotated image.

    Args:
        source: annotation file, for messages.
        split: train, val, test, ...
        stem: path of the image below its split's folder, without suffix.
        names: file names under which the image may be found, the best first.
        size: (height, width) in pixels as annotated, None where it is not stated.
        objects: (class name, (x1, y1, x2, y2) edges in pixels from the top left corner).
    """

    source: Path
    split: str
    stem: str
    names: tuple[str, ...]
    size: tuple[int, int] | None
    objects: tuple[tuple[str, Box], ...] = field(default=())


# ---------------------------------------------------------------------- Pascal VOC


def voc_files(annotations: Path, lists: Path | None, splits: list[str] | None) -> dict[str, list[Path]]:
    """XML files of each split.

    Args:
        annotations: folder of XML files; without `lists`, its sub-folders are the splits, else all is `train`.
        lists: folder of split lists (ImageSets/Main): `train.txt` with one name in each line.
        splits: which of them; None takes train, val and test where they exist (all sub-folders without lists).

    Raises:
        AnnotationError: a folder, a list or a split is missing, or holds no annotation.
    """
    if not annotations.is_dir():
        raise AnnotationError(f"{annotations}: no such folder; check --annotations")
    if lists is not None:
        if not lists.is_dir():
            raise AnnotationError(f"{lists}: no such folder; check --lists")
        files = {}
        for split in splits or [name for name in ("train", "val", "test") if (lists / f"{name}.txt").is_file()]:
            if not (lists / f"{split}.txt").is_file():
                raise AnnotationError(f"{lists / split}.txt: no such list; check --splits")
            lines = (lists / f"{split}.txt").read_text(encoding="utf-8-sig").splitlines()
            # Lists of one class say after the name whether the class occurs (1, 0, -1).
            files[split] = [annotations / f"{line.split()[0]}.xml" for line in lines if line.strip()]
    elif any(annotations.glob("*.xml")):
        if splits and len(splits) > 1:
            raise AnnotationError(f"{annotations}: has no sub-folders to split by; use --lists, or one of --splits")
        files = {(splits or ["train"])[0]: sorted(annotations.rglob("*.xml"))}
    else:
        folders = splits or sorted(path.name for path in annotations.iterdir() if path.is_dir())
        files = {split: sorted((annotations / split).rglob("*.xml")) for split in folders}
    for split in splits or ():
        if not files[split]:
            raise AnnotationError(f"{lists or annotations}: no annotations for split {split}; check --splits")
    if not any(files.values()):
        raise AnnotationError(f"{lists or annotations}: no annotations found; check --annotations and --lists")
    return {split: found for split, found in files.items() if found}


def read_voc(file: Path, split: str, annotations: Path, one_based: bool, keep_difficult: bool) -> Annotated:
    """One Pascal VOC file.

    `xmin, ymin, xmax, ymax` are taken as the edges of the box, which is what LabelImg and most data sets mean. The
    original VOC means the first and the last pixel, counted from 1: `one_based` (--one-based) takes xmin - 1 and xmax
    as edges, and the same for y.

    Raises:
        AnnotationError: not readable as such.
    """
    try:
        root = ElementTree.parse(file).getroot()
        size = root.find("size")
        height, width = (int(float(size.findtext(k, "0"))) if size is not None else 0 for k in ("height", "width"))
        objects = []
        for number, item in enumerate(root.iter("object"), start=1):
            if not keep_difficult and item.findtext("difficult", "0").strip() == "1":
                continue
            box = item.find("bndbox")
            if box is None or not item.findtext("name", "").strip():
                raise AnnotationError(f"{file}: object {number} has no name or no bndbox; correct the file")
            x1, y1, x2, y2 = (float(box.findtext(key, "nan")) for key in ("xmin", "ymin", "xmax", "ymax"))
            edges = (x1 - 1, y1 - 1, x2, y2) if one_based else (x1, y1, x2, y2)
            objects.append((item.findtext("name").strip(), edges))
    except FileNotFoundError:
        raise AnnotationError(f"{file}: no such annotation; correct the list or add the file") from None
    except (ElementTree.ParseError, ValueError, OverflowError, OSError) as error:
        if isinstance(error, AnnotationError):
            raise
        raise AnnotationError(f"{file}: not a Pascal VOC annotation ({error}); correct the file") from None
    below = file.relative_to(annotations).with_suffix("")
    stem = below.relative_to(split) if below.parts[0] == split and len(below.parts) > 1 else below
    names = (below.as_posix(), PurePosixPath(root.findtext("filename", "").strip()).stem)
    size = (height, width) if height > 0 and width > 0 else None
    return Annotated(file, split, stem.as_posix(), names, size, tuple(objects))


# ---------------------------------------------------------------------- COCO


def read_coco(file: Path, split: str) -> tuple[list[str], Iterator[Annotated | AnnotationError], int]:
    """One COCO detection JSON.

    Returns:
        Class names in the order of the category ids, one Annotated (or what is wrong with it) for each image, and the
        number of crowd regions that were left out.

    Raises:
        AnnotationError: the file as a whole cannot be used.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
        categories = {c["id"]: str(c["name"]) for c in sorted(content["categories"], key=lambda c: c["id"])}
        if len(set(categories.values())) < len(categories):
            raise UserError("two categories have the same name")
        images = {image["id"]: image for image in content["images"]}
        crowds = [a for a in content["annotations"] if a.get("iscrowd")]
        boxes = {number: [] for number in images}
        for annotation in content["annotations"]:
            if not annotation.get("iscrowd"):
                boxes[annotation["image_id"]].append(annotation)
    except FileNotFoundError:
        raise AnnotationError(f"{file}: no such file; check --split") from None
    except KeyError as error:
        raise AnnotationError(f"{file}: key or image id {error} is missing; not a complete COCO file") from None
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise AnnotationError(f"{file}: not a COCO detection file ({error}); correct it") from None

    def one(image: dict) -> Annotated | AnnotationError:
        try:
            name = PurePosixPath(image["file_name"])
            if name.is_absolute() or ".." in name.parts or not name.name:
                raise UserError(f"file_name {name} leaves the image folder")
            objects = []
            for annotation in boxes[image["id"]]:
                x, y, width, height = (float(value) for value in annotation["bbox"])
                objects.append((categories[annotation["category_id"]], (x, y, x + width, y + height)))
            size = (int(image["height"]), int(image["width"])) if image.get("height") and image.get("width") else None
            stem = name.with_suffix("").as_posix()
            return Annotated(file, split, stem, (stem, name.stem), size, tuple(objects))
        except (KeyError, ValueError, TypeError, OverflowError) as error:
            where = f"{file}: image {image.get('id')} ({image.get('file_name')})"
            return AnnotationError(f"{where}: {type(error).__name__} {error}; correct the entry")

    return list(categories.values()), map(one, images.values()), len(crowds)


# ---------------------------------------------------------------------- boxes


def normalise(box: Box, height: int, width: int) -> Box:
    """Edges in pixels -> cx, cy, w, h in shares of the image size; cut at the image border.

    Raises:
        ValueError: not finite, or nothing of the box lies inside the image.
    """
    if not all(map(math.isfinite, box)):
        raise UserError(f"box {box} is not complete")
    x1, x2 = (min(max(value, 0.0), width) / width for value in (box[0], box[2]))
    y1, y2 = (min(max(value, 0.0), height) / height for value in (box[1], box[3]))
    if x2 <= x1 or y2 <= y1:
        raise UserError(f"box x {box[0]:g}..{box[2]:g}, y {box[1]:g}..{box[3]:g} is empty or outside {width}x{height}")
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
