"""Converts Pascal VOC XML or COCO JSON to a YOLO data set, and makes LR copies of images.

The source is only read, and what exists is never overwritten. Files that cannot be converted are named, counted by
cause and left out, and the exit status is then 1. Objects without a usable box are left out and counted by cause.
Where nothing is left of a split, nothing is written.
"""

from __future__ import annotations

import argparse
import inspect
import os
import sys
from pathlib import Path

if not __package__:
    # Run by its path instead of `python -m data.prepare_detection_data`.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from data.annotations import AnnotationError
from data.coco import class_names, load_coco, read_images
from data.conversion import Conversion, claim, write_lr
from data.data_spec import DataSetError, load_data_spec
from data.image_files import ImageError, unread_note
from data.images import read_rgb
from data.voc import read_voc, voc_files
from data.yolo_writer import write_data_set

EXAMPLE = """examples:
  python -m data.prepare_detection_data voc --images VOC/JPEGImages --annotations VOC/Annotations \\
      --lists VOC/ImageSets/Main --out voc_yolo
  python -m data.prepare_detection_data coco --split train train.json train2017 \\
      --split val val.json val2017 --out coco_yolo
  python -m data.prepare_detection_data lr --data voc_yolo/data.yaml --scale 4 --out voc_yolo/images_lr_x4
"""
LR_COPIES = "Antialiased bicubic copies (MATLAB's imresize) as PNG files, in a folder that mirrors images/."


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
    conversion, items = Conversion(), []
    for split, files in voc_files(options.annotations, options.lists, options.splits).items():
        for file in files:
            conversion.listed[split] += 1
            try:
                items.append(read_voc(file, split, options.annotations, options.one_based, not options.drop_difficult))
            except AnnotationError as error:
                conversion.leave_out(error)
    found = {name for item in items for name, _ in item.objects} - set(options.drop)
    folders = {item.split: options.images for item in items}
    sources = [options.images, options.annotations]
    return write_data_set(options, conversion, options.classes or sorted(found), items, folders, sources)


def convert_coco(options: argparse.Namespace) -> int:
    """Sub-command `coco`."""
    conversion, items, folders = Conversion(), [], {}
    for split, _, images in options.split:
        if split in folders:
            raise AnnotationError(f"--split {split} stands twice; name each split once")
        folders[split] = Path(images)
    files = [load_coco(Path(file), split) for split, file, _ in options.split]
    project = files[0].project()
    if project is not None and any(file.project() != project for file in files):
        project = None
    names = class_names(files[0], project)
    for file in files[1:]:
        if class_names(file, project) != names:
            raise AnnotationError(f"{file.path}: its categories differ from those of {files[0].path}; make them agree")
    if project is not None:
        conversion.notes.append(
            f"category `{project.name}` (id {project.number}) is the group of all others and has no objects: no class"
        )
    for file in files:
        conversion.listed[file.split] = 0
        for entry in read_images(file, folders[file.split], options.keep_crowd):
            conversion.listed[file.split] += 1
            if isinstance(entry, AnnotationError):
                conversion.leave_out(entry)
            else:
                items.append(entry)
    names = options.classes or [name for name in names if name not in options.drop]
    return write_data_set(options, conversion, names, items, folders, list(folders.values()))


def make_lr(options: argparse.Namespace) -> int:
    """Sub-command `lr`: LR copies of an existing YOLO data set."""
    spec, conversion = load_data_spec(options.data), Conversion()
    jobs = [(split, image) for split in options.splits or spec.splits for image in dict.fromkeys(spec.images(split))]
    taken: dict[str, Path] = {}
    partial = claim(options.out, [image.parent for _, image in jobs])
    for split, image in jobs:
        stem = _mirror_stem(image)
        conversion.listed[split] += 1
        if taken.setdefault(stem, image) == image:
            try:
                write_lr(read_rgb(image, options.max_pixels), partial / f"{stem}.png", options.scale)
                conversion.images[split] += 1
            except ImageError as error:
                conversion.leave_out(error)
        else:
            message = f"{image}: its LR copy would be that of {taken[stem]}; rename one of them"
            conversion.leave_out(AnnotationError(message, "LR copy of the same name"))
    conversion.notes += [note for note in map(unread_note, spec.unread.values()) if note]
    return conversion.finish(options.out, partial)


def _mirror_stem(image: Path) -> str:
    """Where the LR copy lies below the LR folder, without suffix (see `data/lr_folder.py`)."""
    _, marker, tail = str(image).rpartition(f"{os.sep}images{os.sep}")
    return str(Path(tail).with_suffix("")) if marker else str(Path(image.parent.name, image.stem))


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
    coco = sub.add_parser(
        "coco", help="COCO JSON -> YOLO", description="Objects without bbox: box of the polygon.", **shape
    )
    coco.add_argument("--split", nargs=3, action="append", required=True, metavar=("NAME", "JSON", "IMAGES"),
                      help="name of the split, its JSON file and its image folder; once for each split")  # fmt: skip
    coco.add_argument("--keep-crowd", action="store_true", help="crowd regions are objects (else they are left out)")
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
