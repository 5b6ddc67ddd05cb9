"""The image that an annotation means: its exact name first, and never a picture of another folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from data.annotations import AnnotationError
from data.image_files import IMAGE_SUFFIXES, UNREAD_SUFFIXES, list_images, unread_images

Name = tuple[str, bool]  # path below the folder, with a suffix or without; whether it may lie in any sub-folder


class ImageFinder:
    """Images of one folder by their names.

    Args:
        folder: searched with its sub-folders.

    Raises:
        ImageError: no such folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.paths: dict[str, list[Path]] = {}
        self.stems: dict[str, list[Path]] = {}
        self.anywhere: dict[str, list[Path]] = {}
        self.unread = {_stem(path.relative_to(folder).as_posix()): path for path in unread_images(folder)}
        for path in list_images(folder):
            below = path.relative_to(folder).as_posix()
            self.paths.setdefault(below.casefold(), []).append(path)
            self.stems.setdefault(_stem(below), []).append(path)
            for name in (path.name.casefold(), _stem(path.name)):
                self.anywhere.setdefault(name, []).append(path)

    def find(self, names: Sequence[Name], source: Path) -> Path:
        """The one image of the first of these names that any image has.

        A name in full counts before one without its suffix, and one in the same capitals before others.

        Raises:
            AnnotationError: no image, or several of them.
        """
        for name, anywhere in names:
            tables = [(self.paths, name.casefold()), (self.stems, _stem(name))]
            if anywhere:
                tables += [(self.anywhere, name.casefold()), (self.anywhere, _stem(name))]
            found = next((table[key] for table, key in tables if key in table), [])
            exact = [path for path in found if path.relative_to(self.folder).as_posix() == name]
            found = exact or found
            if len(found) == 1:
                return found[0]
            if found:
                some = ", ".join(str(path.relative_to(self.folder)) for path in found[:3])
                raise AnnotationError(
                    f"{source}: {len(found)} images match {self.folder / name} ({some}); expected exactly one",
                    "several images of the same name",
                )
        unread = next((self.unread[_stem(name)] for name, _ in names if _stem(name) in self.unread), None)
        if unread is not None:
            raise AnnotationError(
                f"{source}: nothing here reads {unread}; convert it to JPEG or PNG", "image of a kind that is not read"
            )
        wanted = names[0][0]
        missing = self.folder / PurePosixPath(wanted).parts[0]
        hint = f", and no folder {missing}" if "/" in wanted and not missing.is_dir() else ""
        any_suffix = "" if PurePosixPath(wanted).suffix.lower() in IMAGE_SUFFIXES else ".*"
        raise AnnotationError(
            f"{source}: no image {self.folder / wanted}{any_suffix}{hint}; expected exactly one", "no such image"
        )


def _stem(name: str) -> str:
    """A path in lower case, without its suffix where that is one of images."""
    path = PurePosixPath(name)
    known = path.suffix.lower() in IMAGE_SUFFIXES + UNREAD_SUFFIXES
    return (path.with_suffix("").as_posix() if known else name).casefold()
