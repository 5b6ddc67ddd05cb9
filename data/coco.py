"""Reading COCO detection JSON."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data.annotations import NO_BOX, Annotated, AnnotationError, Box, around
from utils.errors import UserError

CROWD = "crowd region, which is no single object"


@dataclass(frozen=True)
class Category:
    """A class of a COCO file: its id as text, name, and the name of the group that it belongs to."""

    number: str
    name: str
    group: str


@dataclass(frozen=True)
class CocoFile:
    """One COCO detection JSON.

    Args:
        path: the file.
        split: train, val, ...
        categories: in the order of their ids.
        images: entries of `images`.
        annotations: entries of `annotations` by image id, as text.
        used: number of annotations by category id.
        prefix: folders that all file names begin with.
    """

    path: Path
    split: str
    categories: tuple[Category, ...]
    images: tuple[dict, ...]
    annotations: dict[str, list[dict]]
    used: Counter[str]
    prefix: PurePosixPath

    def project(self) -> Category | None:
        """The category that is no class: Roboflow's exports name the project as category of its own, the group of all
        others, and give no object to it."""
        for category in self.categories:
            others = [other for other in self.categories if other is not category]
            alone = not self.used[category.number] and category.group in ("", "none", category.name)
            if alone and others and all(other.group == category.name for other in others):
                return category
        return None


def load_coco(file: Path, split: str) -> CocoFile:
    """Read a COCO detection JSON. Ids may be numbers or text, also both for one another.

    Raises:
        AnnotationError: the file as a whole cannot be used.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
        entries = [(_number(c["id"]), str(c["name"]), str(c.get("supercategory") or "")) for c in content["categories"]]
        numbers = [number for number, _, _ in entries]
        if len(set(numbers)) < len(numbers):
            raise UserError("two categories have the same id")
        entries.sort(key=lambda entry: (0, int(entry[0]), "") if entry[0].isdecimal() else (1, 0, entry[0]))
        images = {_number(image["id"]): image for image in content["images"]}
        if len(images) < len(content["images"]):
            raise UserError("two images have the same id")
        annotations: dict[str, list[dict]] = {number: [] for number in images}
        for annotation in content["annotations"]:
            annotations[_number(annotation["image_id"])].append(annotation)
        used = Counter(_number(a.get("category_id")) for a in content["annotations"])
        parents = {PurePosixPath(_slashes(image.get("file_name"))).parent for image in images.values()}
        relative = [parent for parent in parents if not parent.is_absolute()]
        prefix = PurePosixPath(os.path.commonpath(relative) if relative and len(relative) == len(parents) else "")
    except FileNotFoundError:
        raise AnnotationError(f"{file}: no such file; check --split") from None
    except KeyError as error:
        raise AnnotationError(f"{file}: key or image id {error} is missing; not a complete COCO file") from None
    except (ValueError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise AnnotationError(f"{file}: not a COCO detection file ({error}); correct it") from None
    categories = tuple(Category(*entry) for entry in entries)
    return CocoFile(file, split, categories, tuple(images.values()), annotations, used, prefix)


def class_names(file: CocoFile, project: Category | None) -> list[str]:
    """Class names in the order of the category ids.

    Raises:
        AnnotationError: two classes of one name.
    """
    names = [category.name for category in file.categories if category != project]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise AnnotationError(f"{file.path}: two categories have the same name {twice[0]!r}; rename or merge them")
    return names


def read_images(file: CocoFile, images: Path, keep_crowd: bool) -> Iterator[Annotated | AnnotationError]:
    """Each image with its boxes, or what is wrong with it.

    Objects without `bbox` get the box around their segmentation; those with neither are left out and counted, as are
    crowd regions without `keep_crowd`.

    Args:
        file: as `load_coco` gives it.
        images: the folder that its file names are relative to.
        keep_crowd: take crowd regions as objects.
    """
    names = {category.number: category.name for category in file.categories}
    for image in file.images:
        try:
            where = PurePosixPath(_slashes(image["file_name"]))
            if where.is_absolute() or ".." in where.parts or not where.name:
                raise UserError(f"file_name {image['file_name']} leaves the image folder")
            objects, dropped = [], []
            for annotation in file.annotations[_number(image["id"])]:
                box = _edges(annotation)
                if annotation.get("iscrowd") and not keep_crowd:
                    dropped.append(CROWD)
                elif box is None:
                    dropped.append(NO_BOX)
                else:
                    objects.append((names[_number(annotation["category_id"])], box))
            size = (int(image["height"]), int(image["width"])) if image.get("height") and image.get("width") else None
            stem = where.with_suffix("").as_posix()
            found = _names(image["file_name"], where, file.prefix, images)
            yield Annotated(file.path, file.split, stem, found, size, tuple(objects), tuple(dropped))
        except (KeyError, ValueError, TypeError, OverflowError, AttributeError) as error:
            place = f"{file.path}: image {image.get('id')} ({image.get('file_name')})"
            yield AnnotationError(f"{place}: {type(error).__name__} {error}; correct the entry")


def _number(value: object) -> str:
    """An id as text, so that 1 and "1" are the same."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def _slashes(name: object) -> str:
    return str(name).replace("\\", "/")


def _edges(annotation: dict) -> Box | None:
    """Edges of `bbox`, or of the box around `segmentation`; None where there is neither."""
    if annotation.get("bbox"):
        x, y, width, height = (float(value) for value in annotation["bbox"])
        return x, y, x + width, y + height
    shape = annotation.get("segmentation")
    if isinstance(shape, dict):
        from pycocotools import mask

        whole = isinstance(shape["counts"], list)
        x, y, width, height = mask.toBbox(mask.frPyObjects(shape, *shape["size"]) if whole else shape).tolist()
        return x, y, x + width, y + height
    if not shape:
        return None
    polygons = shape if isinstance(shape[0], list) else [shape]
    boxes = [around([float(value) for value in polygon]) for polygon in polygons if len(polygon) >= 6]
    if not boxes:
        return None
    lows, highs = [min(box[k] for box in boxes) for k in (0, 1)], [max(box[k] for box in boxes) for k in (2, 3)]
    return lows[0], lows[1], highs[0], highs[1]


def _names(written: str, where: PurePosixPath, prefix: PurePosixPath, images: Path) -> tuple[tuple[str, bool], ...]:
    """Names under which an image may lie in the folder `images`: as it is written, and without the leading folders that
    all images of the file share, unless these lie beside `images`, which is then the wrong folder."""
    names = [str(written), where.as_posix()]
    parts = prefix.parts
    if parts and (parts[-1] == images.name or not (images.parent / parts[0]).is_dir()):
        names += [PurePosixPath(*where.parts[k:]).as_posix() for k in range(1, len(parts) + 1)]
    return tuple((name, len(where.parts) == 1) for name in dict.fromkeys(names))
