"""Ultralytics data-set YAMLs: which images a split has, whether they and their labels can be used."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from configs.schema import DetectionDataConfig
from data.data_yaml import DataSetError, class_names, keypoint_columns, read_data_yaml
from data.image_files import IMAGE_SUFFIXES, UNREAD_SUFFIXES, ImageError, list_images, unread_images, unread_note
from data.images import inspect_image
from data.labels import LabelError, label_path, parse_label_file
from data.pages import first_page_note

SPLITS = ("train", "val", "test")
LARGEST_LOSS = 0.1
EXAMPLES = 3


@dataclass(frozen=True)
class DataSpec:
    """A data set as its YAML describes it.

    Args:
        yaml: the file.
        names: class names by class id.
        splits: image files of each split that was found (they need not exist or be readable).
        missing: why each other split that the YAML mentions cannot be used.
        unread: image files of each split in formats that nothing here reads; they are left out.
        keypoints: numbers that follow the box on each line of pose labels (`kpt_shape`), 0 elsewhere.
    """

    yaml: Path
    names: tuple[str, ...]
    splits: dict[str, tuple[Path, ...]]
    missing: dict[str, str] = field(default_factory=dict)
    unread: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    keypoints: int = 0

    def images(self, split: str) -> tuple[Path, ...]:
        """Image files of a split. Raises DataSetError where it is absent, missing or empty."""
        if split in self.missing:
            raise DataSetError(self.missing[split])
        if split not in self.splits:
            has = ", ".join(self.splits)
            raise DataSetError(f"{self.yaml}: no split `{split}`; it has {has}: add the key or choose one of these")
        return self.splits[split]


@dataclass(frozen=True)
class Record:
    """One usable image: file, label file, size in pixels (EXIF upright), classes int64 (n,), boxes float32 (n, 4)
    normalised cx, cy, w, h; `labelled` is false where the labels are withheld, see data/label_share.py; `common` is
    that of `data.images.ImageInfo`."""

    image: Path
    label: Path
    height: int
    width: int
    classes: np.ndarray
    boxes: np.ndarray
    labelled: bool = True
    common: str | None = ""


@dataclass
class ScanReport:
    """What a scan found: images listed, used, without objects, without a label file; boxes; for each cause how many
    images were left out, with the messages of the first few; images in formats that nothing here reads; and files that
    hold several images."""

    split: str
    listed: int
    used: int = 0
    boxes: int = 0
    backgrounds: int = 0
    unlabelled: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    unread: tuple[Path, ...] = ()
    paged: list[Path] = field(default_factory=list)

    def summary(self) -> str:
        """One line for the console."""
        text = f"{self.split}: {self.used} images, {self.boxes} boxes, {self.backgrounds} without objects"
        if self.unlabelled:
            text += f" ({self.unlabelled} have no label file)"
        for cause, count in self.dropped.items():
            more = f" and {count - len(self.examples[cause])} more" if count > len(self.examples[cause]) else ""
            text += f"; {count} skipped for a {cause}: {' | '.join(self.examples[cause])}{more}"
        if self.unread:
            text += f"; {unread_note(self.unread)}"
        if self.paged:
            text += f"; WARNING: {first_page_note(self.paged)}"
        if self.used and self.unlabelled == self.used:
            text += "; WARNING: no label file at all was found, expected labels/ beside images/"
        return text


# ---------------------------------------------------------------------- the YAML


def load_data_spec(yaml_file: str | os.PathLike) -> DataSpec:
    """Read an Ultralytics data-set YAML (path, train, val, test, names, nc), unmodified. Nothing is downloaded.

    `path` may be absolute, relative to the YAML's folder or to the working directory; absent, it is the YAML's folder.
    A split is a folder (searched recursively), a .txt list of images, one image, or a list of these.

    Raises:
        DataSetError: no such file, not such a YAML, names and nc disagree, or none of its splits exists.
    """
    file = Path(yaml_file)
    content = read_data_yaml(file)
    names = class_names(file, content)
    entries = {split: content[split] for split in SPLITS if split in content}
    if not entries:
        raise DataSetError(f"{file}: none of the keys train, val, test; add at least one")
    if not isinstance(content.get("path", "."), str):
        raise DataSetError(f"{file}: `path` must be one folder; correct it")
    for split, entry in entries.items():
        if not all(isinstance(item, str) for item in _as_list(entry)):
            raise DataSetError(f"{file}: `{split}` must be a path or a list of paths; correct it")
    root = _root(file, content, entries)
    splits, missing, unread = {}, {}, {}
    for split, entry in entries.items():
        try:
            images, unread[split] = _split_images(root, entry)
        except FileNotFoundError as error:
            missing[split] = f"{file}: `{split}: {entry}` not found, looked for {error}; {_remedy(content, entry)}"
        except UnicodeDecodeError:
            missing[split] = f"{file}: `{split}: {entry}` is no folder and no .txt list of images; correct the entry"
        else:
            if images:
                splits[split] = images
            else:
                found = f"{unread_note(unread[split])}, and no other is there" if unread[split] else "add images"
                missing[split] = f"{file}: `{split}: {entry}` holds no image ({', '.join(IMAGE_SUFFIXES)}); {found}"
    if not splits:
        raise DataSetError(next(iter(missing.values())))
    return DataSpec(file, names, splits, missing, unread, keypoint_columns(file, content))


def _remedy(content: dict, entry: str | list[str]) -> str:
    fetch = " (nothing is downloaded here: fetch the data set first)" if "download" in content else ""
    windows = os.sep == "/" and "\\" in f"{content.get('path', '')}{entry}".replace("\\\\", "\\")
    hint = "; \\ separates folders on Windows only, write /" if windows else ""
    return f"correct `path` or the entry in the YAML, or put the data there{fetch}{hint}"


def _root(file: Path, content: dict, entries: dict) -> Path:
    """The folder that split entries are relative to: the first candidate in which train, else val, exists."""
    candidates = [file.parent]
    if "path" in content:
        paths = map(Path, _spellings(content["path"]))
        candidates = [folder / path for path in paths for folder in (file.parent, Path.cwd())]
    for split in ("train", "val", "test"):
        for candidate in candidates:
            entry = entries.get(split, [])
            if entry and all(_located(candidate, item) for item in _as_list(entry)):
                return candidate
    return candidates[0]


def _as_list(entry: str | list[str]) -> list[str]:
    return entry if isinstance(entry, list) else [entry]


def _spellings(text: str) -> list[str]:
    """A path as it is written, and with / for the backslashes of Windows."""
    return list(dict.fromkeys((text, text.replace("\\", "/") if os.sep == "/" else text)))


def _located(root: Path, item: str) -> Path | None:
    """The file or folder that an entry means; `../` may also mean `./`, as in Ultralytics' older YAMLs."""
    spellings = [text for way in _spellings(item) for text in ([way, way[3:]] if way.startswith("../") else [way])]
    return next((path for path in (root / text for text in spellings) if path.exists()), None)


def _split_images(root: Path, entry: str | list[str]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Image files of one entry, sorted, and those that nothing here reads; an image listed twice stays twice, which is
    how people give it more weight.

    Raises FileNotFoundError with the place that was looked at.
    """
    images: list[Path] = []
    for item in _as_list(entry):
        found = _located(root, item)
        if found is None:
            raise FileNotFoundError(root / item)
        if found.is_dir():
            # Links to folders are resolved before labels are looked for, as Ultralytics does.
            images += list_images(os.path.realpath(found)) + unread_images(os.path.realpath(found))
        elif found.suffix.lower() in IMAGE_SUFFIXES + UNREAD_SUFFIXES:
            images.append(Path(os.path.abspath(found)))
        else:
            lines = found.read_text(encoding="utf-8-sig").splitlines()
            images += [_listed(line.strip(), found.parent, root) for line in lines if line.strip()]
    unread = tuple(path for path in images if path.suffix.lower() in UNREAD_SUFFIXES)
    return tuple(sorted(path for path in images if path.suffix.lower() not in UNREAD_SUFFIXES)), unread


def _listed(line: str, folder: Path, root: Path) -> Path:
    """An image named in a .txt list: absolute, or relative to the list's folder, the data-set folder or the working
    directory."""
    candidates = [Path(os.path.abspath(base / way)) for way in _spellings(line) for base in (folder, root, Path.cwd())]
    return next((path for path in candidates if path.is_file()), candidates[0])


# ---------------------------------------------------------------------- the files


def scan_splits(
    spec: DataSpec, data: DetectionDataConfig, splits: Sequence[str], say: Callable[[str], None] = print
) -> dict[str, list[Record]]:
    """Usable images of some splits, as `data` wants them checked; what was found goes to `say`, one line a split.

    Raises:
        DataSetError, ImageError, LabelError: see `scan_split`.
    """
    records = {}
    for split in splits:
        records[split], report = scan_split(spec, split, data.on_bad_image, data.on_bad_label, data.max_pixels)
        say(report.summary())
    return records


def scan_split(
    spec: DataSpec,
    split: str,
    on_bad_image: Literal["skip", "error"] = "skip",
    on_bad_label: Literal["skip", "error"] = "error",
    max_pixels: int = 100_000_000,
    threads: int = 8,
) -> tuple[list[Record], ScanReport]:
    """Check the images of a split and read their labels.

    Where bad images are to be left out, all are decoded, since headers do not tell of damage behind them.

    Args:
        spec: data set.
        split: train, val or test.
        on_bad_image: leave unreadable images out, or raise.
        on_bad_label: leave images with a faulty label file out, or raise.
        max_pixels: images with more pixels than this count as unreadable.
        threads: files read at the same time.

    Returns:
        Records in the order of the image paths, and the report.

    Raises:
        DataSetError: the split is absent or empty, more than one and 10 % of its images are unusable, or all are.
        ImageError, LabelError: the first bad file, where that is asked for.
    """
    images = spec.images(split)
    report = ScanReport(split, len(images), unread=spec.unread.get(split, ()))
    records = []

    def inspect(image: Path) -> Record | ImageError | LabelError:
        label = label_path(image)
        try:
            info = inspect_image(image, max_pixels, decode=on_bad_image == "skip")
            objects = parse_label_file(label, len(spec.names), spec.keypoints)
            report.paged.extend([image] * (info.pages > 1))
            return Record(image, label, info.height, info.width, *objects, common=info.common)
        except (ImageError, LabelError) as error:
            return error

    with ThreadPoolExecutor(threads) as pool:
        for found in pool.map(inspect, images):
            if isinstance(found, Record):
                records.append(found)
                continue
            bad_image = isinstance(found, ImageError)
            cause, choice = ("bad image", on_bad_image) if bad_image else ("bad label", on_bad_label)
            if choice == "error":
                pool.shutdown(cancel_futures=True)
                setting = "data.on_bad_image" if bad_image else "data.on_bad_label"
                remedy = f"{found.remedy}, or leave such images out with {setting}: skip"
                where = (found.path,) if bad_image else (found.path, found.line)
                raise type(found)(*where, found.reason, remedy) from found
            report.dropped[cause] = report.dropped.get(cause, 0) + 1
            report.examples.setdefault(cause, [])
            if len(report.examples[cause]) < EXAMPLES:
                report.examples[cause].append(str(found))
        report.unlabelled = sum(not exists for exists in pool.map(os.path.exists, (r.label for r in records)))
    report.used, report.boxes = len(records), sum(len(record.classes) for record in records)
    report.backgrounds = sum(len(record.classes) == 0 for record in records)
    if not records or len(images) - len(records) > max(1, LARGEST_LOSS * len(images)):
        share = f"{len(images) - len(records)} of {len(images)} images cannot be used, more than {LARGEST_LOSS:.0%}"
        raise DataSetError(f"{spec.yaml}: {share}; repair or remove the files. {report.summary()}")
    return records, report
