"""Writes annotated images as a YOLO data set: images, labels, data.yaml, and LR copies where asked for."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

import yaml

from data.annotations import Annotated, AnnotationError, fault, normalise
from data.conversion import Conversion, claim, write_lr
from data.image_files import ImageError, unread_images, unread_note
from data.image_finder import ImageFinder
from data.images import check_image, read_rgb

DROPPED_CLASS = "class of --drop"


def write_data_set(
    options: argparse.Namespace,
    conversion: Conversion,
    names: list[str],
    items: list[Annotated],
    folders: dict[str, Path],
    sources: list[Path],
) -> int:
    """Write `options.out`; returns the exit status.

    Args:
        options: out, drop, link, lr, max_pixels.
        conversion: what was read and left out so far.
        names: class names by id.
        items: annotated images.
        folders: image folder of each split.
        sources: folders that `options.out` must not lie in.

    Raises:
        AnnotationError: no class, no image or no object is left, or `options.out` is taken.
    """
    if not names:
        if conversion.files or any(item.dropped for item in items):
            for item in items:
                for cause in item.dropped:
                    conversion.drop(cause, str(item.source))
            raise AnnotationError(f"no object is left, so no class names ({conversion.why()}); nothing was written")
        raise AnnotationError("no objects found, so no class names; name them by --classes")
    finders = {folder: ImageFinder(folder) for folder in set(folders.values())}
    partial = claim(options.out, sources)
    taken: dict[tuple[str, str], Path] = {}
    used: dict[str, set[str]] = {}
    for item in items:
        try:
            image = finders[folders[item.split]].find(item.names, item.source)
            stem = _free_stem(item, image, taken)
            rows, dropped = _rows(item, image, names, options)
            lr = read_rgb(image, options.max_pixels) if options.lr else None
        except (AnnotationError, ImageError) as error:
            conversion.leave_out(error)
            continue
        taken[item.split, stem.casefold()] = image
        used.setdefault(os.path.realpath(image), set()).add(item.split)
        for cause in dropped:
            conversion.drop(cause, item.stem)
        _write(partial, item.split, stem, image, rows, options.link)
        if lr is not None:
            write_lr(lr, partial / f"images_lr_x{options.lr}" / item.split / f"{stem}.png", options.lr)
        conversion.images[item.split] += 1
        conversion.boxes[item.split] += len(rows)
    conversion.notes += _notes(used, finders)
    # No `path` key: Ultralytics then takes the folder of the YAML, wherever it is moved to.
    content = {split: f"images/{split}" for split in conversion.images} | {"names": dict(enumerate(names))}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    (partial / "data.yaml").write_text(text, encoding="utf-8")
    return conversion.finish(options.out, partial)


def _write(partial: Path, split: str, stem: str, image: Path, rows: list[str], link: bool) -> None:
    target = partial / "images" / split / f"{stem}{image.suffix.lower()}"
    label = partial / "labels" / split / f"{stem}.txt"
    for path in (target, label):
        path.parent.mkdir(parents=True, exist_ok=True)
    if link:
        target.symlink_to(os.path.abspath(image))
    else:
        shutil.copyfile(image, target)
    label.write_text("".join(rows), encoding="utf-8")


def _free_stem(item: Annotated, image: Path, taken: dict[tuple[str, str], Path]) -> str:
    """Name of image and label file: as annotated, with the suffix where 001.jpg and 001.png are both there."""
    for stem in (item.stem, f"{item.stem}_{image.suffix[1:].lower()}"):
        other = taken.get((item.split, stem.casefold()))
        if other is None:
            return stem
        if other == image:
            break
    raise AnnotationError(
        f"{item.source}: {item.split}/{item.stem} stands twice; merge the entries, or rename one of the images",
        "image that stands twice",
    )


def _rows(item: Annotated, image: Path, names: list[str], options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Label lines of one image, and why each other object is left out."""
    height, width = check_image(image, options.max_pixels)
    if item.size not in (None, (height, width)):
        stated = f"{item.size[1]}x{item.size[0]}"
        raise AnnotationError(
            f"{item.source}: is for a {stated} image, {image} is {width}x{height}; correct it", "image of another size"
        )
    rows, dropped = [], list(item.dropped)
    for name, box in item.objects:
        if name in options.drop:
            dropped.append(DROPPED_CLASS)
            continue
        if name not in names:
            raise AnnotationError(
                f"{item.source}: class `{name}` is not in --classes; add it, or --drop it", "class not in --classes"
            )
        wrong = fault(box, height, width)
        if wrong:
            dropped.append(wrong)
            continue
        try:
            values = normalise(box, height, width)
        except ValueError as error:
            raise AnnotationError(f"{item.source}: {item.stem}: {name}: {error}; correct it") from None
        rows.append(f"{names.index(name)} " + " ".join(f"{value:.8f}" for value in values) + "\n")
    faults = [cause for cause in dropped if cause != DROPPED_CLASS and "crowd" not in cause]
    if faults and not rows:
        # As an image without objects it would teach the detector to overlook them.
        raise AnnotationError(
            f"{item.source}: {item.stem}: none of its objects can be used ({', '.join(dict.fromkeys(faults))})",
            f"image with no usable object ({faults[0]})",
        )
    return rows, dropped


def _notes(used: dict[str, set[str]], finders: dict[Path, ImageFinder]) -> list[str]:
    """What the user should know: pictures in several splits, and files that nothing here reads."""
    notes = []
    several = {path: splits for path, splits in used.items() if len(splits) > 1}
    if several:
        path, splits = next(iter(several.items()))
        names = " and ".join(sorted(splits))
        notes.append(
            f"WARNING: {len(several)} pictures stand in several splits ({path} in {names}, ...): what is measured on "
            "them has been trained on; check --split and the file names"
        )
    unread = (unread_note(unread_images(folder)) for folder in finders)
    return notes + [f"{folder}: {note}" for folder, note in zip(finders, unread, strict=True) if note]
