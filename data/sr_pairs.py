"""LR-HR pairs: random patches for training and whole images for benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from data.degradation import degrade_bicubic
from data.images import ImageError, check_image, list_images, read_rgb

PairFiles = tuple[Path, Path | None]


@dataclass(frozen=True)
class SRBatch:
    """Training patches.

    Args:
        lr: (B, 3, p, p), uint8, or float32 in [0, 1] after `to`.
        hr: (B, 3, s*p, s*p), the same kind.
        files: HR file of each row.
    """

    lr: Tensor
    hr: Tensor
    files: list[str]

    def to(self, device: torch.device | str) -> SRBatch:
        """Move to a device and convert uint8 to float32 in [0, 1] there."""
        lr, hr = (x.to(device, non_blocking=True) for x in (self.lr, self.hr))
        lr, hr = (x.float() / 255 if x.dtype == torch.uint8 else x for x in (lr, hr))
        return SRBatch(lr, hr, self.files)

    def pin_memory(self) -> SRBatch:
        """Called by the DataLoader to make copies to CUDA faster."""
        return SRBatch(self.lr.pin_memory(), self.hr.pin_memory(), self.files)


def collate_pairs(samples: Sequence[dict]) -> SRBatch:
    """Stack samples of `SRPairDataset`."""
    lr, hr = (torch.stack([sample[key] for sample in samples]) for key in ("lr", "hr"))
    return SRBatch(lr, hr, [sample["file"] for sample in samples])


class SRPairDataset(Dataset):
    """Random LR-HR patches; image, position and symmetry are a pure function of (seed, epoch, index).

    Every file is checked by its header when the data set is made, so that a bad one is found before training. Images
    that are smaller than a patch are left out and listed in `too_small`.

    Args:
        hr_folders: folders of HR images, searched recursively; where HR/ and LR_bicubic/ are inside, only HR/ is taken.
        lr_folders: one folder of LR images per HR folder, the same relative names (`x{scale}` may follow); empty makes
            LR from the whole HR image by bicubic.
        scale: super-resolution factor.
        patch: side of the LR patch in pixels.
        samples_per_epoch: length of the data set.
        seed: seed of the run.
        cache: keep decoded images (8 bit, HR and LR) in memory; see `preload`.
        max_pixels: images with more pixels than this are refused before decoding.

    Raises:
        ValueError: no folder, or not one LR folder per HR folder.
        ImageError: an empty folder, an unreadable image, nothing but too small ones, an LR image that is missing or of
            another scale.
    """

    def __init__(
        self,
        hr_folders: Sequence[str | Path],
        lr_folders: Sequence[str | Path],
        scale: int,
        patch: int,
        samples_per_epoch: int,
        seed: int,
        cache: bool,
        max_pixels: int,
    ):
        if not hr_folders:
            raise ValueError("data.train is empty: name at least one folder of HR images")
        if lr_folders and len(lr_folders) != len(hr_folders):
            counts = f"data.lr_train names {len(lr_folders)} folders, but data.train {len(hr_folders)}"
            raise ValueError(f"{counts}: give one LR folder per HR folder, or none at all")
        self.scale, self.patch, self.samples_per_epoch = scale, patch, samples_per_epoch
        self.seed, self.cache, self.max_pixels = seed, cache, max_pixels
        self.files: list[PairFiles] = []
        for number, folder in enumerate(hr_folders):
            self.files += _find_pairs(_hr_folder(folder), lr_folders[number] if lr_folders else None, scale)
        large = [self._is_large_enough(hr_file, lr_file) for hr_file, lr_file in self.files]
        self.too_small = [pair[0] for pair, fits in zip(self.files, large) if not fits]
        self.files = [pair for pair, fits in zip(self.files, large) if fits]
        if not self.files:
            side = scale * patch
            reason = f"this and all other images have fewer pixels than the HR patch of {side}x{side}"
            raise ImageError(self.too_small[0], reason, "lower data.patch or give larger images")
        self._images: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return self.samples_per_epoch

    def __getitem__(self, key: tuple[int, int]) -> dict:
        """One pair.

        Args:
            key: (epoch, index).

        Returns:
            {"lr": uint8 (3, p, p), "hr": uint8 (3, s*p, s*p), "file": HR file}.
        """
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        chosen = int(rng.integers(len(self.files)))
        lr, hr = self.pair(chosen)
        y, x = (int(rng.integers(size - self.patch + 1)) for size in lr.shape[:2])
        symmetry = int(rng.integers(8))
        s, p = self.scale, self.patch
        lr = dihedral(lr[y : y + p, x : x + p], symmetry)
        hr = dihedral(hr[s * y : s * (y + p), s * x : s * (x + p)], symmetry)
        lr, hr = (torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))) for image in (lr, hr))
        return {"lr": lr, "hr": hr, "file": str(self.files[chosen][0])}

    def pair(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Whole images of pair `number`: LR uint8 (h, w, 3) and HR uint8 (s*h, s*w, 3)."""
        if number in self._images:
            return self._images[number]
        pair = read_pair(*self.files[number], self.scale, self.max_pixels)
        if self.cache:
            self._images[number] = pair
        return pair

    def preload(self) -> None:
        """Read all images into the cache; called before data-loading processes start, they share its memory."""
        self.cache = True
        numbers = range(len(self.files))
        with ThreadPoolExecutor() as pool:
            loaded = pool.map(self.pair, numbers)
            list(tqdm(loaded, "reading images", len(numbers), leave=False, unit="image", disable=None))

    def _is_large_enough(self, hr_file: Path, lr_file: Path | None) -> bool:
        height, width = check_image(hr_file, self.max_pixels)
        if lr_file is not None:
            _check_scale(lr_file, check_image(lr_file, self.max_pixels), (height, width), self.scale)
        return min(height, width) // self.scale >= self.patch


def benchmark_pairs(
    folder: str | Path, scale: int, max_pixels: int = 100_000_000
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Whole images for measuring SR.

    Args:
        folder: HR images, of which LR is made by bicubic; or HR/ and LR_bicubic/X{scale}/ inside (Set5 style).
        scale: super-resolution factor.
        max_pixels: images with more pixels than this are refused before decoding.

    Returns:
        (name, LR uint8 (h, w, 3), HR uint8 (s*h, s*w, 3)) sorted by name; HR is cropped from the top left.

    Raises:
        ImageError: nothing found, an unreadable image, an LR image that is missing or of another scale.
    """
    folder = Path(folder)
    lr_folder = None
    if _hr_folder(folder) != folder:
        lr_folder = folder / "LR_bicubic" / f"X{scale}"
        if not lr_folder.is_dir():
            remedy = f"give {folder / 'HR'} to have LR made by bicubic, or choose another scale"
            raise ImageError(lr_folder, "no such folder", remedy)
    pairs = _find_pairs(_hr_folder(folder), lr_folder, scale)
    return [(hr_file.stem, *read_pair(hr_file, lr_file, scale, max_pixels)) for hr_file, lr_file in pairs]


def read_pair(hr_file: Path, lr_file: Path | None, scale: int, max_pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Read HR, cropped from the top left to a multiple of `scale`, and its LR image (None: made by bicubic).

    Returns:
        LR uint8 (h, w, 3), HR uint8 (scale * h, scale * w, 3).

    Raises:
        ImageError: unreadable, of another scale, or smaller than one LR pixel.
    """
    hr = read_rgb(hr_file, max_pixels)
    height, width = hr.shape[0] // scale, hr.shape[1] // scale
    if height == 0 or width == 0:
        reason = f"{hr.shape[1]}x{hr.shape[0]} pixels give no LR pixel at x{scale}"
        raise ImageError(hr_file, reason, "remove the image")
    cropped = np.ascontiguousarray(hr[: height * scale, : width * scale])
    if lr_file is None:
        return degrade_bicubic(cropped, scale), cropped
    lr = read_rgb(lr_file, max_pixels)
    _check_scale(lr_file, lr.shape[:2], hr.shape[:2], scale)
    return np.ascontiguousarray(lr[:height, :width]), cropped


def dihedral(image: np.ndarray, symmetry: int) -> np.ndarray:
    """One of the eight symmetries of the square, 0..7 (0 changes nothing), of a square image (n, n, C); a view."""
    if symmetry & 1:
        image = image[:, ::-1]
    if symmetry & 2:
        image = image[::-1]
    return image.transpose(1, 0, 2) if symmetry & 4 else image


def _hr_folder(folder: str | Path) -> Path:
    """HR/ of a folder that also holds LR_bicubic/, else the folder itself."""
    folder = Path(folder)
    return folder / "HR" if (folder / "HR").is_dir() and (folder / "LR_bicubic").is_dir() else folder


def _find_pairs(hr_folder: Path, lr_folder: str | Path | None, scale: int) -> list[PairFiles]:
    """HR files of a folder, each with its LR file or None."""
    hr_files = list_images(hr_folder)
    if not hr_files:
        raise ImageError(hr_folder, "no images in this folder", "check the path, or the file names' endings")
    if lr_folder is None:
        return [(file, None) for file in hr_files]
    lr_files = {file.relative_to(lr_folder).with_suffix(""): file for file in list_images(lr_folder)}
    pairs = []
    for file in hr_files:
        name = file.relative_to(hr_folder).with_suffix("")
        lr_file = lr_files.get(name) or lr_files.get(name.with_name(f"{name.name}x{scale}"))
        if lr_file is None:
            reason = f"no LR image for {file}"
            raise ImageError(lr_folder, reason, f"add {name}.png or {name}x{scale}.png, or take the right folder")
        pairs.append((file, lr_file))
    return pairs


def _check_scale(lr_file: Path, lr_size: tuple[int, int], hr_size: tuple[int, int], scale: int) -> None:
    """LR must be HR / scale, rounded down or up (some sets made LR before the last HR rows were cut off)."""
    if all(lr in (hr // scale, -(-hr // scale)) for lr, hr in zip(lr_size, hr_size, strict=True)):
        return
    reason = f"{lr_size[1]}x{lr_size[0]} pixels, but HR has {hr_size[1]}x{hr_size[0]}, which is not x{scale}"
    raise ImageError(lr_file, reason, "wrong scale or wrong LR folder?")
