"""Folders on which SR networks are compared, at their scales.

What is given says of which kind a folder is: HR and LR images of the same names (LRHR_paired), HR images alone, whose
LR is made by bicubic interpolation (HR_downsampled), or LR images alone (LR_only), which can be looked at, not judged.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from configs.sr_schema import EvaluateSRConfig
from data.image_files import ImageError, list_images
from data.sr_pairs import benchmark_files
from evaluation.fid import LEAST_IMAGES
from evaluation.sr_candidates import as_list
from evaluation.sr_eval import border_of, dataset_names
from utils.errors import UserError

SRFiles = tuple[Path | None, Path | None]  # HR, None without; LR, None where it is made from HR


@dataclass(frozen=True)
class Benchmark:
    """One folder at one scale."""

    dataset: str
    scale: float
    border: int
    files: list[SRFiles]

    @property
    def kind(self) -> str:
        """LRHR_paired, HR_downsampled or LR_only."""
        hr_file, lr_file = self.files[0]
        return "LR_only" if hr_file is None else "HR_downsampled" if lr_file is None else "LRHR_paired"

    @property
    def lr_protocol(self) -> str:
        return "bicubic" if self.files[0][1] is None else "folder"

    @property
    def names(self) -> list[str]:
        """One name per image: its path below the folder that all share, without suffix where that is enough."""
        shown = [hr_file or lr_file for hr_file, lr_file in self.files]
        top = os.path.commonpath([file.parent for file in shown])
        paths = [file.relative_to(top) for file in shown]
        plain = [path.with_suffix("").as_posix() for path in paths]
        return plain if len(set(plain)) == len(plain) else [path.as_posix() for path in paths]


def list_benchmarks(config: EvaluateSRConfig) -> list[Benchmark]:
    """Every folder at every scale.

    LR images inside a folder (Set5 style) are used where there are some for the scale; else LR is made by bicubic.

    Raises:
        ValueError: no folder, one twice, not one LR folder per HR folder, one scale's LR images at several, or
            an FID of a single image.
        ImageError: an empty folder, or an LR image that is missing.
    """
    hr = [folder for folder in as_list(config.hr) if folder]
    lr = [] if config.lr is None else as_list(config.lr)
    if not hr and not lr:
        raise UserError("no images given; name a folder of HR images with --hr, or of LR images alone with --lr")
    if hr and lr and len(lr) != len(hr):
        raise UserError(f"lr names {len(lr)} folders, but hr {len(hr)}; give one LR folder per HR folder")
    if hr and lr and len(as_list(config.scale)) > 1:
        raise UserError("lr holds the images of one scale; give one scale with it")
    names = dataset_names(hr or lr)
    found = []
    for scale in as_list(config.scale):
        border = border_of(scale) if config.border is None else config.border
        for number, name in enumerate(names):
            files = paired_files(hr[number], lr[number] if lr else None, scale) if hr else lone_files(lr[number])
            found.append(Benchmark(name, scale, border, files[: config.limit or None]))
            if config.fid and hr and len(found[-1].files) < LEAST_IMAGES:
                raise UserError(f"fid: {name} has one image, which has no covariance; give {LEAST_IMAGES} or more")
    return found


def paired_files(hr_folder: str, lr_folder: str | None, scale: float) -> list[SRFiles]:
    """Files of one folder with HR images. Raises ImageError: see `benchmark_files`."""
    folder = Path(hr_folder)
    inside = folder / "LR_bicubic" / f"X{scale:g}"
    if lr_folder is None and (folder / "HR").is_dir() and not inside.is_dir():
        folder = folder / "HR"
    return list(benchmark_files(folder, scale, lr_folder))


def lone_files(lr_folder: str) -> list[SRFiles]:
    """Files of a folder of LR images without HR. Raises ImageError where it is empty."""
    files = list_images(lr_folder)
    if not files:
        raise ImageError(Path(lr_folder), "no images in this folder", "check the path, or the file names' endings")
    return [(None, file) for file in files]
