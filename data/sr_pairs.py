"""LR-HR pairs: random patches for training and whole images for benchmarks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info
from tqdm import tqdm

from configs.sr_schema import SRDataConfig
from data.bad_images import BadImages
from data.image_cache import ImageCache
from data.image_files import ImageError
from data.images import inspect_image, read_rgb
from data.pages import first_page_note
from data.pair_files import PairFiles, find_pairs, hr_folder_of
from utils.errors import UserError
from utils.resize import resize

FLIPS = {1: 1, 2: 0, 3: -1}  # lowest two bits of a symmetry -> flip code of OpenCV


class SRPairDataset(Dataset):
    """Random LR-HR patches; image, position and symmetry are a pure function of (seed, epoch, index).

    With `scales` the factor of a micro-batch is one of (seed, epoch, index of its first sample); its HR patches have
    round(factor * patch) pixels a side and are shrunk to `patch` on their own (Chen et al. 2021, LIIF). With
    `data.hr_patch` they have that many pixels and are shrunk to floor(hr_patch / factor).

    Every file is checked by its header when the data set is made, so that a bad one is found before training. Images
    that are smaller than a patch are left out and listed in `too_small`, those that cannot be read, with
    `data.on_bad_image: skip`, in `bad`. An image that turns out damaged only when it is decoded then gives way to
    another one, which is a pure function of (seed, epoch, index) too.

    Args:
        data: `train`: folders of HR images, searched recursively; where HR/ and LR_bicubic/ are inside, only HR/ is
            taken. `lr_train`: one folder of LR images per HR folder, the same relative names (`x{scale}` may follow);
            empty makes LR from the whole HR image by bicubic.
        scale: super-resolution factor.
        seed: seed of the run.
        cache: where decoded images (8 bit, HR and LR) are kept; see `preload`.
        scales: (lowest, highest) factor of arbitrary-scale training; None takes `scale` alone.
        draw: (epoch, index) -> random numbers with which LR will be made later; None makes LR here, by bicubic.

    Raises:
        ValueError: no folder, not one LR folder per HR folder, LR folders together with `scales` or `draw`, or
            `data.hr_patch` without `scales`, with `draw`, or smaller than the largest factor.
        ImageError: an empty folder, an unreadable image or too many of them, nothing but too small ones, an LR image
            that is missing or of another scale.
    """

    def __init__(
        self,
        data: SRDataConfig,
        scale: int,
        seed: int,
        cache: ImageCache,
        scales: tuple[float, float] | None = None,
        draw: Callable[[int, int], dict[str, Tensor]] | None = None,
    ):
        if not data.train:
            raise UserError("data.train is empty: name at least one folder of HR images")
        if data.lr_train and len(data.lr_train) != len(data.train):
            counts = f"data.lr_train names {len(data.lr_train)} folders, but data.train {len(data.train)}"
            raise UserError(f"{counts}: give one LR folder per HR folder, or none at all")
        if data.lr_train and (scales or draw):
            what = "data.scales" if scales else "data.degradation.kind realesrgan"
            raise UserError(f"data.lr_train holds the LR images of one scale, but {what} makes its own; leave out one")
        if data.hr_patch and (not scales or draw or data.hr_patch < scales[1]):
            raise UserError(
                f"data.hr_patch is {data.hr_patch}: it needs data.scales up to it and data.degradation.kind bicubic; "
                "set it to 0 to have data.patch"
            )
        self.scale, self.patch, self.hr_patch = scale, data.patch, data.hr_patch
        self.samples_per_epoch = data.samples_per_epoch
        self.seed, self.cache, self.max_pixels = seed, cache, data.max_pixels
        self.scales, self.draw = scales, draw
        self.symmetries = 2 if data.symmetries == "mirror" else 8
        pairs: list[PairFiles] = []
        for number, folder in enumerate(data.train):
            found = find_pairs(hr_folder_of(folder), data.lr_train[number] if data.lr_train else None, scale)
            pairs += [(hr, None) for hr, _ in found] if scales or draw else found
        self.bad = BadImages(data.on_bad_image, len(set(pairs)))
        self.files: list[PairFiles] = []
        self.too_small: list[Path] = []
        self.paged: list[Path] = []
        for pair in pairs:
            sizes = self._sizes(pair)
            if sizes is not None:
                if self._is_large_enough(pair, *sizes):
                    self.files.append(pair)
                else:
                    self.too_small.append(pair[0])
        if not self.files and not self.too_small:
            raise next(iter(self.bad.found.values()))
        if not self.files:
            side = self.largest_side()
            reason = f"this and all other images have fewer pixels than the HR patch of {side}x{side}"
            key = "data.hr_patch" if self.hr_patch else "data.patch"
            raise ImageError(self.too_small[0], reason, f"lower {key} or give larger images")

    def __len__(self) -> int:
        return self.samples_per_epoch

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[dict]:
        """The samples of one micro-batch, which share a scale; the DataLoader calls this with its keys.

        Args:
            keys: (epoch, index) of each sample.

        Returns:
            {"lr": uint8 (3, p, p) or None, "hr": uint8 (3, s*p, s*p), "file": HR file, "key", "draws"} of each.
        """
        if get_worker_info() is not None:
            # Each loading process is one thread; more would only take the processor from each other.
            cv2.setNumThreads(0)
        sides = self.sides(self.batch_scale(keys[0]))
        return [self.sample(key, *sides) for key in keys]

    def __getitem__(self, key: tuple[int, int]) -> dict:
        """One sample, as a micro-batch of its own; see `__getitems__`."""
        return self.__getitems__([key])[0]

    def batch_scale(self, key: tuple[int, int]) -> float:
        """Factor of the micro-batch that begins with this key."""
        if self.scales is None:
            return self.scale
        return float(np.random.default_rng((self.seed, *key, 1)).uniform(*self.scales))

    def sides(self, scale: float) -> tuple[int, int]:
        """Pixels a side of the HR and LR patches of a micro-batch with this factor."""
        if self.hr_patch:
            return self.hr_patch, math.floor(self.hr_patch / scale)
        return round(scale * self.patch), self.patch

    def largest_side(self) -> int:
        """Of the HR patches, in pixels."""
        return self.sides(max(self.scales or (self.scale,)))[0]

    def sample(self, key: tuple[int, int], side: int, patch: int) -> dict:
        """One sample with an HR patch of `side` and an LR patch of `patch` pixels; see `__getitems__`."""
        rng = np.random.default_rng((self.seed, *key))
        chosen, lr, hr = self._chosen(rng)
        if lr is not None:
            y, x = (int(rng.integers(size - patch + 1)) for size in lr.shape[:2])
            lr, hr_y, hr_x = lr[y : y + patch, x : x + patch], self.scale * y, self.scale * x
        else:
            hr_y, hr_x = (int(rng.integers(size - side + 1)) for size in hr.shape[:2])
        hr = hr[hr_y : hr_y + side, hr_x : hr_x + side]
        symmetry = int(rng.integers(self.symmetries))
        if lr is None and self.draw is None:
            lr = resize(hr, patch, patch)
        lr, hr = (None if image is None else _planes(image, symmetry) for image in (lr, hr))
        draws = self.draw(*key) if self.draw else {}
        return {"lr": lr, "hr": hr, "file": str(self.files[chosen][0]), "key": key, "draws": draws}

    def hr(self, number: int) -> np.ndarray:
        """Whole HR image of pair `number`, uint8, cropped to a multiple of the scale."""
        file = self.files[number][0]
        return self.cache.get(file, f"hr x{self.scale}", lambda: read_hr(file, self.scale, self.max_pixels))

    def pair(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Whole images of pair `number`: LR uint8 (h, w, 3) and HR uint8 (s*h, s*w, 3)."""
        hr, (hr_file, lr_file) = self.hr(number), self.files[number]
        if lr_file is None:
            lr = self.cache.get(hr_file, f"lr x{self.scale}", lambda: shrink(hr, self.scale))
        else:
            height, width = (side // self.scale for side in hr.shape[:2])
            lr = self.cache.get(lr_file, "lr", lambda: read_rgb(lr_file, self.max_pixels))[:height, :width]
        return lr, hr

    def preload(self) -> None:
        """Read all images into the cache; called before data-loading processes start, they share its memory."""
        if self.cache.kind == "none":
            return
        numbers = range(len(self.files))
        with ThreadPoolExecutor() as pool:
            loaded = pool.map(self._load, numbers)
            for found in tqdm(loaded, "reading images", len(numbers), leave=False, unit="image", disable=None):
                if isinstance(found, ImageError):
                    self.bad.add(found)

    def notes(self) -> list[str]:
        """What was left out, a line each, for the console."""
        small = len(self.too_small)
        counts = f"{small} images are smaller than a patch and are left out" if small else ""
        return [note for note in (counts, self.bad.summary(), first_page_note(self.paged)) if note]

    def _chosen(self, rng: np.random.Generator) -> tuple[int, np.ndarray | None, np.ndarray]:
        """Number, whole LR image (None where LR is made from the patch) and whole HR image of a sample."""
        while True:  # ends, because `bad` refuses too many
            chosen = int(rng.integers(len(self.files)))
            found = self._load(chosen)
            if not isinstance(found, ImageError):
                return chosen, *found
            self.bad.add(found, warn=True)

    def _load(self, number: int) -> tuple[np.ndarray | None, np.ndarray] | ImageError:
        """Whole images of a sample, from the cache where they are kept, or why they cannot be read."""
        known = [self.bad.found[str(file)] for file in self.files[number] if str(file) in self.bad.found]
        if known:
            return known[0]
        try:
            return self.pair(number) if self.scales is None and self.draw is None else (None, self.hr(number))
        except ImageError as error:
            return error

    def _sizes(self, pair: PairFiles) -> list[tuple[int, int]] | None:
        """(height, width) of the HR and, where there is one, of the LR image by their headers; None if one is bad."""
        try:
            found = [(file, inspect_image(file, self.max_pixels)) for file in pair if file is not None]
        except ImageError as error:
            self.bad.add(error)
            return None
        self.paged += [file for file, info in found if info.pages > 1]
        return [(info.height, info.width) for _, info in found]

    def _is_large_enough(
        self, pair: PairFiles, hr_size: tuple[int, int], lr_size: tuple[int, int] | None = None
    ) -> bool:
        if lr_size is not None:
            _check_scale(pair[1], lr_size, hr_size, self.scale)
        if self.scales is None and self.draw is None:
            return min(hr_size) // self.scale >= self.patch
        # Cropping to a multiple of the scale takes up to scale - 1 pixels.
        return min(hr_size) // self.scale * self.scale >= self.largest_side()


def benchmark_pairs(
    folder: str | Path, scale: float, max_pixels: int = 100_000_000, lr_folder: str | Path | None = None
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Whole images for measuring SR.

    Args:
        folder: HR images, of which LR is made by bicubic; or HR/ and LR_bicubic/X{scale}/ inside (Set5 style); or both
            beside one another, see `data.pair_files.find_pairs`.
        scale: super-resolution factor; a fractional one always makes LR by bicubic, unless `lr_folder` is given.
        max_pixels: images with more pixels than this are refused before decoding.
        lr_folder: LR images of the same names, instead of those inside.

    Returns:
        (name, LR uint8 (h, w, 3), HR uint8 (round(s*h), round(s*w), 3)) by name; HR is cropped from the top left.

    Raises:
        ImageError: nothing found, an unreadable image, an LR image that is missing or of another scale.
    """
    files = benchmark_files(folder, scale, lr_folder)
    return [(hr_file.stem, *read_pair(hr_file, lr_file, scale, max_pixels)) for hr_file, lr_file in files]


def benchmark_files(folder: str | Path, scale: float, lr_folder: str | Path | None = None) -> list[PairFiles]:
    """HR and LR files (None: LR is made) of `benchmark_pairs`, with the same errors about folders."""
    folder = Path(folder)
    hr_folder = hr_folder_of(folder)
    if lr_folder is None and hr_folder != folder and float(scale).is_integer():
        lr_folder = folder / "LR_bicubic" / f"X{int(scale)}"
        if not lr_folder.is_dir():
            remedy = f"give {folder / 'HR'} to have LR made by bicubic, or choose another scale"
            raise ImageError(lr_folder, "no such folder", remedy)
    return find_pairs(hr_folder, lr_folder, scale)


def read_hr(file: Path, scale: float, max_pixels: int) -> np.ndarray:
    """Read HR, cropped from the top left to round(scale * h) x round(scale * w) for the largest whole h and w.

    Raises:
        ImageError: unreadable, or smaller than one LR pixel.
    """
    return crop_hr(file, read_rgb(file, max_pixels), scale)


def crop_hr(file: Path, hr: np.ndarray, scale: float) -> np.ndarray:
    """The part of an HR image that belongs to whole LR pixels; see `read_hr`."""
    height, width = (math.floor(side / scale + 1e-9) for side in hr.shape[:2])
    if height == 0 or width == 0:
        reason = f"{hr.shape[1]}x{hr.shape[0]} pixels give no LR pixel at x{scale:g}"
        raise ImageError(file, reason, "remove the image")
    return np.ascontiguousarray(hr[: round(height * scale), : round(width * scale)])


def shrink(hr: np.ndarray, scale: float) -> np.ndarray:
    """LR of a cropped HR image by antialiased bicubic interpolation; uint8 in and out."""
    return resize(hr, *(round(side / scale) for side in hr.shape[:2]))


def read_pair(
    hr_file: Path,
    lr_file: Path | None,
    scale: float,
    max_pixels: int,
    read: Callable[[Path, int], np.ndarray] = read_rgb,
) -> tuple[np.ndarray, np.ndarray]:
    """Read HR, cropped as by `read_hr`, and its LR image (None: made by bicubic).

    Args:
        hr_file, lr_file, scale, max_pixels: see `benchmark_pairs`.
        read: (file, max_pixels) -> uint8 (H, W, 3); another one than `read_rgb` may keep decoded images.

    Returns:
        LR uint8 (h, w, 3), HR uint8 (round(scale * h), round(scale * w), 3).

    Raises:
        ImageError: unreadable, of another scale, or smaller than one LR pixel.
    """
    hr = read(hr_file, max_pixels)
    cropped = crop_hr(hr_file, hr, scale)
    if lr_file is None:
        return shrink(cropped, scale), cropped
    lr = read(lr_file, max_pixels)
    _check_scale(lr_file, lr.shape[:2], hr.shape[:2], scale)
    height, width = (round(side / scale) for side in cropped.shape[:2])
    return np.ascontiguousarray(lr[:height, :width]), cropped


def _planes(image: np.ndarray, symmetry: int) -> Tensor:
    """One of the eight symmetries of the square, 0..7 (0 changes nothing), of uint8 (n, n, 3): mirrored in x, in y,
    then transposed, by the bits 1, 2 and 4; a tensor (3, n, n) with memory of its own."""
    # OpenCV's loops over packed pixels take a third of the time of NumPy's strided copy.
    image = np.asarray(image)
    if symmetry & 3:
        image = cv2.flip(image, FLIPS[symmetry & 3])
    if symmetry & 4:
        image = cv2.transpose(image)
    planes = torch.empty(3, *image.shape[:2], dtype=torch.uint8)
    cv2.split(image, list(planes.numpy()))
    return planes


def _check_scale(lr_file: Path, lr_size: tuple[int, int], hr_size: tuple[int, int], scale: float) -> None:
    """LR must be HR / scale, rounded down or up (some sets made LR before the last HR rows were cut off)."""
    if all(lr in (hr // scale, -(-hr // scale)) for lr, hr in zip(lr_size, hr_size, strict=True)):
        return
    reason = f"{lr_size[1]}x{lr_size[0]} pixels, but HR has {hr_size[1]}x{hr_size[0]}, which is not x{scale:g}"
    raise ImageError(lr_file, reason, "wrong scale or wrong LR folder?")
