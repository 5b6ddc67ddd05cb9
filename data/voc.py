"""Reading Pascal VOC XML."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path, PurePosixPath

from data.annotations import NO_BOX, Annotated, AnnotationError, Box, around
from data.image_files import IMAGE_SUFFIXES

DECLARED = re.compile(rb"""^<\?xml[^>]*?encoding=["']([A-Za-z0-9._-]+)["'][^>]*\?>""")
OCCURS = ("1", "0", "-1")  # lists of one class say after the name whether the class occurs


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
        found = splits or [name for name in ("train", "val", "test") if (lists / f"{name}.txt").is_file()]
        files = {split: _listed(annotations, lists / f"{split}.txt") for split in found}
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


def _listed(annotations: Path, file: Path) -> list[Path]:
    """XML files that a split list names; names may hold spaces, and a suffix."""
    if not file.is_file():
        raise AnnotationError(f"{file}: no such list; check --splits")
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise AnnotationError(f"{file}: not UTF-8 text; save the list as UTF-8") from None
    found = []
    for line in filter(None, lines):
        head, _, last = line.replace("\t", " ").rpartition(" ")
        names = [line, head.strip()] if last in OCCURS and head else [line]
        names += [Path(name).with_suffix("").as_posix() for name in names
                  if Path(name).suffix.lower() in (*IMAGE_SUFFIXES, ".xml")]  # fmt: skip
        files = [annotations / f"{name}.xml" for name in names]
        # A line that names nothing is reported by its name alone, without what may follow it.
        expected = files[1] if last in OCCURS and head else files[0]
        found.append(next((path for path in files if path.is_file()), expected))
    return found


def read_voc(file: Path, split: str, annotations: Path, one_based: bool, keep_difficult: bool) -> Annotated:
    """One Pascal VOC file.

    `xmin, ymin, xmax, ymax` are taken as the edges of the box, which is what LabelImg and most data sets mean. The
    original VOC means the first and the last pixel, counted from 1: `one_based` (--one-based) takes xmin - 1 and xmax
    as edges, and the same for y.

    Objects without bndbox get the box around their polygon or rotated box (roLabelImg); those with neither are left
    out and counted.

    Raises:
        AnnotationError: not readable as such.
    """
    root = _parsed(file)
    try:
        size = root.find("size")
        height, width = (int(float(size.findtext(k, "0"))) if size is not None else 0 for k in ("height", "width"))
        objects, dropped = [], []
        for number, item in enumerate(root.iter("object"), start=1):
            if not keep_difficult and item.findtext("difficult", "0").strip() == "1":
                continue
            name = item.findtext("name", "").strip()
            if not name:
                raise AnnotationError(f"{file}: object {number} has no name; correct the file")
            box = _edges(item, one_based)
            if box is None:
                dropped.append(NO_BOX)
            else:
                objects.append((name, box))
    except (ValueError, OverflowError) as error:
        if isinstance(error, AnnotationError):
            raise
        raise AnnotationError(f"{file}: not a Pascal VOC annotation ({error}); correct the file") from None
    size = (height, width) if height > 0 and width > 0 else None
    below = file.relative_to(annotations).with_suffix("")
    stem = below.relative_to(split) if below.parts[0] == split and len(below.parts) > 1 else below
    names = _names(below, root.findtext("filename", "").strip())
    return Annotated(file, split, stem.as_posix(), names, size, tuple(objects), tuple(dropped))


def _parsed(file: Path) -> ElementTree.Element:
    """The XML tree; encodings that Python's parser does not know (GB2312, Big5, ...) are decoded here."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise AnnotationError(
            f"{file}: no such annotation; correct the list or add the file", "no such annotation"
        ) from None
    except OSError as error:
        raise AnnotationError(f"{file}: cannot be read ({error.strerror}); check its permissions") from error
    declared = DECLARED.match(content.lstrip())
    encoding = declared[1].decode().lower() if declared else "utf-8"
    try:
        if encoding in ("utf-8", "utf-16", "us-ascii", "iso-8859-1"):
            return ElementTree.fromstring(content)
        # GB18030 is what GB2312 and GBK files hold in practice: a superset of both.
        text = content.decode("gb18030" if encoding in ("gb2312", "gbk") else encoding)
        return ElementTree.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", text))
    except LookupError:
        raise AnnotationError(f"{file}: unknown encoding {encoding}; save the file as UTF-8") from None
    except (ElementTree.ParseError, ValueError) as error:
        wrong = "" if _is_text(content, encoding) else f", and no {encoding}: save it as UTF-8"
        raise AnnotationError(f"{file}: not a Pascal VOC annotation ({error}{wrong}); correct the file") from None


def _is_text(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        return False
    return True


def _edges(item: ElementTree.Element, one_based: bool) -> Box | None:
    """Edges of an object's box, or of the box around its polygon; None where it has neither."""
    box, turned, polygon = (item.find(kind) for kind in ("bndbox", "robndbox", "polygon"))
    if box is not None:
        x1, y1, x2, y2 = (float(box.findtext(key, "nan")) for key in ("xmin", "ymin", "xmax", "ymax"))
        if not all(map(math.isfinite, (x1, y1, x2, y2))):
            raise ValueError(f"box {x1:g}, {y1:g}, {x2:g}, {y2:g} is not complete")
        return (x1 - 1, y1 - 1, x2, y2) if one_based else (x1, y1, x2, y2)
    if turned is not None:
        cx, cy, width, height, angle = (float(turned.findtext(key, "nan")) for key in ("cx", "cy", "w", "h", "angle"))
        sine, cosine = abs(math.sin(angle)), abs(math.cos(angle))
        half_x, half_y = (width * cosine + height * sine) / 2, (width * sine + height * cosine) / 2
        edges = (cx - half_x, cy - half_y, cx + half_x, cy + half_y)
        return edges if all(map(math.isfinite, edges)) else None
    if polygon is None:
        return None
    # <x1/><y1/><x2/>..., or <pt><x/><y/></pt>... as LabelMe writes it.
    numbers = [float(part.text) for part in polygon.iter() if re.fullmatch(r"[xy]\d*", part.tag) and part.text]
    try:
        edges = around(numbers)
    except ValueError:
        return None
    return edges if all(map(math.isfinite, edges)) else None


def _names(below: Path, filename: str) -> tuple[tuple[str, bool], ...]:
    """Where the image may lie: as its XML file does, with the suffix that this tells; by the name in it alone."""
    stated = PurePosixPath(filename.replace("\\", "/")).name
    suffix = PurePosixPath(stated).suffix
    anywhere = len(below.parts) == 1
    names = [f"{path}{suffix}" for path in (below.as_posix(), below.name)] + [stated]
    return tuple(dict.fromkeys((name, anywhere) for name in names if name))
