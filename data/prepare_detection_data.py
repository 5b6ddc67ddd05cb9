"""Converts Pascal VOC XML or COCO JSON to a YOLO data set, and makes LR copies of images.

The source is only read, and what exists is never overwritten. Files that cannot be converted are named and left out,
and the exit status is then 1.
"""

from __future__ import annotations

import argparse
import inspect
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

if not __package__:
    # Run by its path instead of `python -m data.prepare_detection_data`.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import yaml
from PIL import Image

from data.annotations import Annotated, AnnotationError, normalise, read_coco, read_voc, voc_files
from data.data_spec import DataSetError, load_data_spec
from data.image_files import ImageError, list_images
from data.images import check_image, read_rgb

EXAMPLE = """examples:
  python -m data.prepare_detection_data voc --images VOC/JPEGImages --annotations VOC/Annotations \\
      --lists VOC/ImageSets/Main --out voc_yolo
  python -m data.prepare_detection_data coco --split train train.json train2017 \\
      --split val val.json val2017 --out coco_yolo
  python -m data.prepare_detection_data lr --data voc_yolo/data.yaml --scale 4 --out voc_yolo/images_lr_x4
"""
LR_COPIES = "Antialiased bicubic copies (MATLAB's imresize) as PNG files, in a folder that mirrors images/."


class Conversion:
    """Counts of one run: images and boxes by split, and the messages of files that could not be used."""

    def __init__(self):
        self.images, self.boxes, self.bad = Counter(), Counter(), []

    def fail(self, error: Exception | str) -> None:
        self.bad.append(str(error))
        print(f"left out: {error}", file=sys.stderr)

    def close(self, out: Path, notes: Iterable[str] = ()) -> int:
        """Print the summary; returns the exit status."""
        for split, count in self.images.items():
            print(f"{split}: {count} images, {self.boxes[split]} boxes")
        for note in notes:
            print(note)
        print(f"{out}: {sum(self.images.values())} images written, {len(self.bad)} files left out")
        return 1 if self.bad else 0


def main(argv: list[str] | None = None) -> int:
    """Command line; returns 0, 1 if files were left out, 2 if nothing could be done."""
    parser, commands = _parser()
    options = parser.parse_args(argv)
    try:
        return {"voc": convert_voc, "coco": convert_coco, "lr": make_lr}[options.command](options)
    except (AnnotationError, DataSetError, ImageError) as error:
        commands[options.command].error(str(error))


def convert_voc(options: argparse.Namespace) -> int:
    """Sub-command `voc`."""
    conversion = Conversion()
    items = []
    for split, files in voc_files(options.annotations, options.lists, options.splits).items():
        for file in files:
            try:
                items.append(read_voc(file, split, options.annotations, options.one_based, not options.drop_difficult))
            except AnnotationError as error:
                conversion.fail(error)
    found = {name for item in items for name, _ in item.objects} - set(options.drop)
    names = options.classes or sorted(found)
    folders = {item.split: options.images for item in items}
    return _write_data_set(options, conversion, names, items, folders)


def convert_coco(options: argparse.Namespace) -> int:
    """Sub-command `coco`."""
    conversion = Conversion()
    names, items, folders, crowds = None, [], {}, 0
    for split, file, images in options.split:
        categories, entries, dropped = read_coco(Path(file), split)
        if names is not None and categories != names:
            raise AnnotationError(f"{file}: its categories differ from those of {options.split[0][1]}; make them agree")
        if split in folders:
            raise AnnotationError(f"--split {split} stands twice; name each split once")
        names, folders[split], crowds = categories, Path(images), crowds + dropped
        for entry in entries:
            if isinstance(entry, AnnotationError):
                conversion.fail(entry)
            else:
                items.append(entry)
    names = options.classes or [name for name in names if name not in options.drop]
    notes = [f"{crowds} crowd regions left out, they are no single objects"] if crowds else []
    return _write_data_set(options, conversion, names, items, folders, notes)


def make_lr(options: argparse.Namespace) -> int:
    """Sub-command `lr`: LR copies of an existing YOLO data set."""
    spec, conversion = load_data_spec(options.data), Conversion()
    jobs = [(split, image) for split in options.splits or spec.splits for image in dict.fromkeys(spec.images(split))]
    taken: dict[str, Path] = {}
    partial = _claim(options.out, [image.parent for _, image in jobs])
    for split, image in jobs:
        stem = _mirror_stem(image)
        if taken.setdefault(stem, image) == image:
            try:
                _write_lr(read_rgb(image, options.max_pixels), partial / f"{stem}.png", options.scale)
                conversion.images[split] += 1
            except ImageError as error:
                conversion.fail(error)
        else:
            conversion.fail(f"{image}: its LR copy would be that of {taken[stem]}; rename one of them")
    return _finish(options.out, partial, conversion)


# ---------------------------------------------------------------------- writing


def _write_data_set(
    options: argparse.Namespace,
    conversion: Conversion,
    names: list[str],
    items: list[Annotated],
    folders: dict[str, Path],
    notes: Iterable[str] = (),
) -> int:
    """Images, labels and data.yaml from annotated images."""
    if not names:
        raise AnnotationError("no objects found, so no class names; name them by --classes")
    found = {folder: _image_index(folder) for folder in set(folders.values())}
    partial = _claim(options.out, [*folders.values(), *_sources(options)])
    taken: set[tuple[str, str]] = set()
    for item in items:
        try:
            if (item.split, item.stem) in taken:
                raise AnnotationError(f"{item.source}: {item.split}/{item.stem} stands twice; rename one of the images")
            image = _find_image(item, folders[item.split], found[folders[item.split]])
            rows = _rows(item, image, names, options)
            lr = read_rgb(image, options.max_pixels) if options.lr else None
        except (AnnotationError, ImageError) as error:
            conversion.fail(error)
            continue
        taken.add((item.split, item.stem))
        target = partial / "images" / item.split / f"{item.stem}{image.suffix.lower()}"
        label = partial / "labels" / item.split / f"{item.stem}.txt"
        for path in (target, label):
            path.parent.mkdir(parents=True, exist_ok=True)
        if options.link:
            target.symlink_to(os.path.abspath(image))
        else:
            shutil.copyfile(image, target)
        label.write_text("".join(rows), encoding="utf-8")
        if lr is not None:
            _write_lr(lr, partial / f"images_lr_x{options.lr}" / item.split / f"{item.stem}.png", options.lr)
        conversion.images[item.split] += 1
        conversion.boxes[item.split] += len(rows)
    # No `path` key: Ultralytics then takes the folder of the YAML, wherever it is moved to.
    content = {split: f"images/{split}" for split in conversion.images} | {"names": dict(enumerate(names))}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    (partial / "data.yaml").write_text(text, encoding="utf-8")
    return _finish(options.out, partial, conversion, notes)


def _rows(item: Annotated, image: Path, names: list[str], options: argparse.Namespace) -> list[str]:
    """Label lines of one image."""
    height, width = check_image(image, options.max_pixels)
    if item.size not in (None, (height, width)):
        stated = f"{item.size[1]}x{item.size[0]}"
        raise AnnotationError(f"{item.source}: is for a {stated} image, {image} is {width}x{height}; correct it")
    rows = []
    for name, box in item.objects:
        if name in options.drop:
            continue
        if name not in names:
            raise AnnotationError(f"{item.source}: class `{name}` is not in --classes; add it, or --drop it")
        try:
            values = normalise(box, height, width)
        except ValueError as error:
            raise AnnotationError(f"{item.source}: {item.stem}: {name}: {error}; correct it") from None
        rows.append(f"{names.index(name)} " + " ".join(f"{value:.8f}" for value in values) + "\n")
    return rows


def _image_index(folder: Path) -> dict[str, list[Path]]:
    """Images of a folder by their path without suffix, and by their bare name."""
    index: dict[str, list[Path]] = {}
    for path in list_images(folder):
        for key in {path.relative_to(folder).with_suffix("").as_posix(), path.stem}:
            index.setdefault(key, []).append(path)
    return index


def _find_image(item: Annotated, folder: Path, index: dict[str, list[Path]]) -> Path:
    matches = next((index[name] for name in item.names if name in index), [])
    if len(matches) != 1:
        found = f"{len(matches)} images match" if matches else "no image"
        raise AnnotationError(f"{item.source}: {found} {folder / item.names[0]}.*; expected exactly one")
    return matches[0]


def _write_lr(hr: np.ndarray, path: Path, scale: int) -> None:
    # Here and not above: it brings SciPy, which --help need not wait for.
    from data.degradation import degrade_bicubic

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(degrade_bicubic(hr, scale)).save(path)


def _mirror_stem(image: Path) -> str:
    """Where the LR copy lies below the LR folder, without suffix (see `data/lr_folder.py`)."""
    _, marker, tail = str(image).rpartition(f"{os.sep}images{os.sep}")
    return str(Path(tail).with_suffix("")) if marker else str(Path(image.parent.name, image.stem))


def _sources(options: argparse.Namespace) -> list[Path]:
    return [options.annotations] if options.command == "voc" else []


def _claim(out: Path, sources: list[Path]) -> Path:
    """A new folder beside `out` that becomes `out` when all is written. Raises AnnotationError if `out` is taken."""
    if out.exists() or out.is_symlink():
        raise AnnotationError(f"{out}: exists already and is never overwritten; choose another --out")
    for source in {Path(os.path.realpath(source)) for source in sources}:
        if Path(os.path.realpath(out)).is_relative_to(source):
            raise AnnotationError(f"{out}: lies inside the source {source}; choose --out elsewhere")
    partial = out.with_name(f"{out.name}.partial")
    try:
        partial.mkdir(parents=True)
    except FileExistsError:
        raise AnnotationError(f"{partial}: left by an interrupted run, or another is at work; delete it") from None
    return partial


def _finish(out: Path, partial: Path, conversion: Conversion, notes: Iterable[str] = ()) -> int:
    if not conversion.images:
        shutil.rmtree(partial)
        raise AnnotationError(f"none of the {len(conversion.bad)} files could be used; nothing was written")
    partial.rename(out)
    return conversion.close(out, notes)


# ---------------------------------------------------------------------- command line


def _scale(text: str) -> int:
    if text not in ("2", "3", "4"):
        raise argparse.ArgumentTypeError(f"{text} is not 2, 3 or 4")
    return int(text)


def _parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser and those of its sub-commands."""
    shape = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    prog = "python -m data.prepare_detection_data"
    parser = argparse.ArgumentParser(prog=prog, description=__doc__, epilog=EXAMPLE, **shape)
    sub = parser.add_subparsers(dest="command", required=True)
    edges = inspect.getdoc(read_voc).split("\n\n")[1]
    voc = sub.add_parser("voc", help="Pascal VOC XML -> YOLO", description=edges, **shape)
    voc.add_argument("--images", type=Path, required=True, help="folder of the images, searched recursively")
    voc.add_argument("--annotations", type=Path, required=True, help="folder of the XML files; sub-folders are splits")
    voc.add_argument("--lists", type=Path, help="folder of split lists (ImageSets/Main)")
    voc.add_argument("--splits", nargs="+", metavar="NAME", help="which splits (default: all there are)")
    voc.add_argument("--one-based", action="store_true", help="coordinates are first and last pixel, counted from 1")
    voc.add_argument("--drop-difficult", action="store_true", help="leave out objects marked difficult")
    coco = sub.add_parser("coco", help="COCO JSON -> YOLO", description="Crowd regions are left out.", **shape)
    coco.add_argument("--split", nargs=3, action="append", required=True, metavar=("NAME", "JSON", "IMAGES"),
                      help="name of the split, its JSON file and its image folder; once for each split")  # fmt: skip
    for command in (voc, coco):
        command.add_argument("--out", type=Path, required=True, help="folder of the new data set; must not exist")
        command.add_argument("--classes", nargs="+", metavar="NAME", help="class names by id (default: all found)")
        command.add_argument("--drop", nargs="+", default=[], metavar="NAME", help="classes to leave out")
        command.add_argument("--lr", type=_scale, metavar="SCALE", help="also write LR copies to images_lr_x{SCALE}/")
        command.add_argument("--link", action="store_true", help="link to the images instead of copying them")
    lr = sub.add_parser("lr", help="LR copies of a YOLO data set", description=LR_COPIES, **shape)
    lr.add_argument("--data", type=Path, required=True, help="data-set YAML")
    lr.add_argument("--scale", type=_scale, required=True, help="reduction factor: 2, 3 or 4")
    lr.add_argument("--out", type=Path, required=True, help="LR folder, to be given as data.lr_folder; must not exist")
    lr.add_argument("--splits", nargs="+", metavar="NAME", help="which splits (default: all)")
    for command in (voc, coco, lr):
        command.add_argument("--max-pixels", type=int, default=100_000_000, help="larger images are left out")
    return parser, {"voc": voc, "coco": coco, "lr": lr}


if __name__ == "__main__":
    sys.exit(main())
