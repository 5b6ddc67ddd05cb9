"""Which files of HR and LR folders belong together, also where both lie in one folder."""

from __future__ import annotations

import re
from pathlib import Path

from data.image_files import ImageError, list_images, warn_of_unread

PairFiles = tuple[Path, Path | None]
# LR as a word of a name: img_LR.png, LR/a.png, LRx4/a.png, a_lr4.png.
LR_WORD = re.compile(r"(?<![a-z0-9])lr(?:[_-]?x?[0-9]+)?(?![a-z0-9])")
HR_WORD = re.compile(r"(?<![a-z0-9])(?:hr|gt)(?![a-z0-9])")
LR_ENDING = re.compile(r"x([2348])$")  # DIV2K: 0001x4.png is the LR image of 0001.png


def hr_folder_of(folder: str | Path) -> Path:
    """HR/ of a folder that also holds LR_bicubic/, else the folder itself."""
    folder = Path(folder)
    return folder / "HR" if (folder / "HR").is_dir() and (folder / "LR_bicubic").is_dir() else folder


def find_pairs(hr_folder: Path, lr_folder: str | Path | None, scale: float) -> list[PairFiles]:
    """HR files of a folder, each with its LR file, or None where there are no LR files.

    Where the folder holds LR files beside the HR files (img_HR.png and img_LR.png, HR/ and LR/, 0001.png and
    0001x4.png), these are the pairs, and nothing else in it is taken.

    Raises:
        ImageError: no such folder, none in it, or an HR or LR file that has no partner.
    """
    files = list_images(hr_folder)
    warn_of_unread(hr_folder)
    if not files:
        raise ImageError(hr_folder, "no images in this folder", "check the path, or the file names' endings")
    inside = _lr_inside(hr_folder, files, scale)
    if lr_folder is None:
        return [(file, None) for file in files] if inside is None else sorted(inside.items())
    lr_files = {file.relative_to(lr_folder).with_suffix(""): file for file in list_images(lr_folder)}
    warn_of_unread(lr_folder)
    pairs = []
    for file in files if inside is None else sorted(inside):
        name = file.relative_to(hr_folder).with_suffix("")
        lr_file = lr_files.get(name) or lr_files.get(name.with_name(f"{name.name}x{scale:g}"))
        if lr_file is None:
            reason = f"no LR image for {file}"
            raise ImageError(lr_folder, reason, f"add {name}.png or {name}x{scale:g}.png, or take the right folder")
        pairs.append((file, lr_file))
    return pairs


def _lr_inside(folder: Path, files: list[Path], scale: float) -> dict[Path, Path] | None:
    """{HR file: LR file} of a folder that holds both; None where no file looks like the LR image of another."""
    names = {file.relative_to(folder).with_suffix("").as_posix().casefold(): file for file in files}
    pairs: dict[Path, Path] = {}
    orphans, other_scales = [], set()
    for name, file in names.items():
        ending = LR_ENDING.search(name)
        is_lr = bool(LR_WORD.search(name))
        if not is_lr and not (ending and name[: ending.start()] in names):
            continue
        hr = next((names[other] for other in _hr_names(name) if other in names), None)
        if hr is None:
            orphans.append(file)
        elif ending and int(ending[1]) != scale:
            other_scales.add(int(ending[1]))
        else:
            pairs[hr] = file
    if not pairs and not other_scales:
        beside = [file for file in files if file not in orphans]
        if not any(LR_WORD.search(part.casefold()) for file in orphans for part in file.relative_to(folder).parts[:-1]):
            return None
        if not beside:
            return None
    alone = [file for name, file in names.items() if file not in pairs and (file in orphans or HR_WORD.search(name))]
    remedy = "give a folder that holds HR images only, or complete the pairs"
    if not pairs and other_scales:
        held = ", ".join(f"x{number}" for number in sorted(other_scales))
        raise ImageError(folder, f"holds HR images and their LR images for {held}, not for x{scale:g}", remedy)
    if alone:
        raise ImageError(folder, f"holds HR and LR images, but {alone[0].name} has no partner", remedy)
    return pairs


def _hr_names(name: str) -> list[str]:
    """Names, in lower case and without suffix, that the HR image of an LR file of this name may have."""
    found = []
    for stem in dict.fromkeys((LR_ENDING.sub("", name), name)):
        found += [LR_WORD.sub(word, stem) for word in ("hr", "gt")]
        found.append(re.sub(r"[ _.-]?(?<![a-z0-9])lr(?:[_-]?x?[0-9]+)?(?![a-z0-9])", "", stem).strip("/ _.-"))
    return [other for other in found if other != name]
