"""Embedded detection data set: drawn Landolt rings, whose class is the direction of the gap, on photographs.

The standard Landolt ring (ISO 8596) has a stroke and a gap of one fifth of its diameter, so telling the class needs
exactly the detail that a low resolution destroys. Nothing is downloaded: the photographs ship inside scikit-image.
Mirroring an image changes the classes, so training on this data set needs `flip_lr: 0` and `flip_ud: 0`.

    python -m data.demo --out runs/demo/data
"""

from __future__ import annotations

import argparse
import io
import json
import os
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from utils.errors import UserError

DIRECTIONS = {
    4: ("right", "down", "left", "up"),
    8: ("right", "down_right", "down", "down_left", "left", "up_left", "up", "up_right"),
}
PHOTOS = {  # disjoint, so that no background of one split was seen in another
    "train": (
        "astronaut.png", "brick.png", "camera.png", "coins.png", "grass.png",
        "hubble_deep_field.jpg", "motorcycle_left.png", "motorcycle_right.png", "retina.jpg",
    ),
    "val": ("chelsea.png", "gravel.png", "rocket.jpg"),
    "test": ("coffee.png", "ihc.png", "moon.png"),
}  # fmt: skip
SPLITS = ("train", "val", "test")
SR_SPLITS = {"sr_train": "train", "sr_val": "val"}
DISTRACTORS = ("closed", "disc", "square")
MANIFEST = "demo.json"
DRAWING = 1  # goes up when the same parameters give other pictures
SUPERSAMPLING = 5


class DemoError(UserError):
    """Faulty parameters, or an output folder that holds something else."""


@dataclass(frozen=True)
class DemoSpec:
    """Parameters of the data set; the same parameters give the same bytes.

    Args:
        images: number of train, val and test images.
        sr_images: number of training and validation images for super-resolution; every second one without rings.
        side: side of the (square) HR images in pixels.
        directions: number of gap directions, hence classes: 4 or 8.
        rings: fewest and most rings of an image.
        distractors: fewest and most unlabelled look-alikes of an image (closed rings, discs, squares).
        diameter: smallest and largest ring diameter in HR pixels, drawn log-uniformly.
        groups: fewest and most places of an image around which its objects gather.
        faint: share of objects with little contrast.
        seed: seed of all random choices.

    Raises:
        DemoError: a value out of its range.
    """

    images: tuple[int, int, int] = (480, 96, 48)
    sr_images: tuple[int, int] = (96, 8)
    side: int = 320
    directions: int = 4
    rings: tuple[int, int] = (8, 16)
    distractors: tuple[int, int] = (3, 8)
    diameter: tuple[float, float] = (8.0, 40.0)
    groups: tuple[int, int] = (2, 4)
    faint: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("images", "sr_images", "rings", "distractors", "groups"):
            if min(getattr(self, name)) < 0:
                raise DemoError(f"{name}: {getattr(self, name)} holds a negative number")
        for name in ("rings", "distractors", "diameter", "groups"):
            low, high = getattr(self, name)
            if low > high:
                raise DemoError(f"{name}: the smaller number comes first, not {low} {high}")
        if self.directions not in DIRECTIONS:
            raise DemoError(f"directions: {self.directions} is not one of {sorted(DIRECTIONS)}")
        if self.groups[0] < 1:
            raise DemoError("groups: at least 1 is needed")
        if self.diameter[0] < 5 or self.side < 2 * self.diameter[1]:
            raise DemoError(
                f"diameter {self.diameter} does not fit side {self.side}: at least 5, at most half the side (pixels)"
            )
        if not 0 <= self.faint <= 1:
            raise DemoError(f"faint: {self.faint} is not a share from 0 to 1")
        if self.seed < 0:
            raise DemoError(f"seed: {self.seed} is negative")


@dataclass(frozen=True)
class Scene:
    """One image with its labels: `image` uint8 (side, side, 3) RGB, `classes` int64 (n,), `boxes` float64 (n, 4)
    normalised cxcywh."""

    image: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray


def class_names(directions: int) -> tuple[str, ...]:
    """Names of the classes: gap direction as seen in the image, clockwise from the right."""
    return DIRECTIONS[directions]


@cache
def _photo(name: str) -> Image.Image:
    """A bundled photograph as RGB. Raises DemoError if this installation of scikit-image lacks it."""
    import skimage

    path = Path(skimage.__file__).parent / "data" / name
    if not path.is_file():
        raise DemoError(f"{path}: photograph missing from scikit-image; reinstall scikit-image >= 0.22")
    with Image.open(path) as image:
        return image.convert("RGB")


def _background(rng: np.random.Generator, names: tuple[str, ...], side: int, plain: bool) -> np.ndarray:
    """A random zoom, crop and mirror image of a random photograph, float32 (side, side, 3) in [0, 255]."""
    photo = _photo(names[rng.integers(len(names))])
    widest = min(photo.size)
    crop = rng.uniform(min(0.75 * side, widest), min(2.0 * side, widest))
    left, top = rng.uniform(0, photo.width - crop), rng.uniform(0, photo.height - crop)
    box = (left, top, left + crop, top + crop)
    pixels = np.asarray(photo.resize((side, side), Image.Resampling.BICUBIC, box=box), dtype=np.float32)
    pixels = np.rot90(pixels, rng.integers(4))
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    if plain:
        return np.ascontiguousarray(pixels)
    mean = pixels.mean(axis=(0, 1))
    contrast, shift = rng.uniform(0.4, 1.0), rng.uniform(-25, 25)
    return np.clip(mean + contrast * (pixels - mean) + shift, 0, 255)


def _coverage(kind: str, diameter: float, x: float, y: float, angle: float, size: int) -> np.ndarray:
    """Antialiased coverage of a shape, float32 (size, size) in [0, 1]; centre (x, y) in pixels, gap at `angle`."""
    fine = (np.arange(size * SUPERSAMPLING, dtype=np.float32) + 0.5) / SUPERSAMPLING
    dx, dy = (fine - x)[None, :], (fine - y)[:, None]
    along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    outer, stroke = diameter / 2, diameter / 5
    if kind == "square":
        distance = np.maximum(abs(along), abs(across))
        outer *= 0.9
    else:
        distance = np.hypot(dx, dy)
    inside = distance <= outer
    if kind != "disc":
        inside &= distance >= outer - stroke
    if kind == "ring":
        inside &= (abs(across) > stroke / 2) | (along < 0)
    return inside.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING).mean(axis=(1, 3), dtype=np.float32)


def _places(rng: np.random.Generator, spec: DemoSpec, diameters: np.ndarray) -> list[tuple[float, float, float]]:
    """Centres for objects that gather in groups and do not touch: (x, y, diameter); what finds no room is left out."""
    count = rng.integers(spec.groups[0], spec.groups[1] + 1)
    centres = rng.uniform(0.12 * spec.side, 0.88 * spec.side, (count, 2))
    spread = rng.uniform(0.04, 0.09, count) * spec.side
    placed: list[tuple[float, float, float]] = []
    for diameter in diameters:
        margin = diameter / 2 + 1
        for attempt in range(40):
            group = rng.integers(count)
            x, y = rng.normal(centres[group], spread[group] * (1 + attempt / 20))
            inside = margin <= min(x, y) and max(x, y) <= spec.side - margin
            if inside and all(np.hypot(x - u, y - v) > 0.58 * (diameter + d) + 1 for u, v, d in placed):
                placed.append((float(x), float(y), float(diameter)))
                break
    return placed


def _ink(rng: np.random.Generator, ground: np.ndarray, faint: float) -> np.ndarray:
    """A colour darker or lighter than the ground (pixels, 3), float32 (3,) in [0, 255]."""
    mean = ground.reshape(-1, 3).mean(axis=0)
    grey = float(mean.mean())
    sign = 1.0 if rng.random() < (255 - grey) / 255 else -1.0
    room = 255 - grey if sign > 0 else grey
    if room < 60:
        sign, room = -sign, 255 - room
    contrast = rng.uniform(28, 50) if rng.random() < faint else rng.uniform(70, 150)
    return np.clip(mean + sign * min(contrast, room) + rng.uniform(-12, 12, 3), 0, 255).astype(np.float32)


def _draw(rng: np.random.Generator, canvas: np.ndarray, kind: str, place: tuple, angle: float, faint: float) -> None:
    """Draw one shape into `canvas` (side, side, 3) in place."""
    x, y, diameter = place
    left, top = max(int(x - diameter / 2) - 1, 0), max(int(y - diameter / 2) - 1, 0)
    size = int(np.ceil(diameter)) + 3
    ground = canvas[top : top + size, left : left + size]
    cover = _coverage(kind, diameter, x - left, y - top, angle, size)[: ground.shape[0], : ground.shape[1], None]
    ground += cover * (_ink(rng, ground, faint) - ground)


def draw_scene(spec: DemoSpec, split: str, index: int) -> Scene:
    """Image `index` of a split, a pure function of its arguments.

    Args:
        spec: parameters of the data set.
        split: train, val, test, sr_train or sr_val.
        index: number of the image, from 0.

    Returns:
        The scene; images of the SR splits with an even index are plain crops of photographs without rings.
    """
    stream = (*SPLITS, *SR_SPLITS).index(split)
    rng = np.random.default_rng([spec.seed, stream, index])
    plain = split in SR_SPLITS and index % 2 == 0
    canvas = _background(rng, PHOTOS[SR_SPLITS.get(split, split)], spec.side, plain)
    classes: list[int] = []
    boxes: list[tuple[float, float, float, float]] = []
    if not plain:
        n_rings = rng.integers(spec.rings[0], spec.rings[1] + 1)
        n_others = rng.integers(spec.distractors[0], spec.distractors[1] + 1)
        diameters = np.exp(rng.uniform(*np.log(spec.diameter), n_rings + n_others))
        is_ring = rng.permutation(n_rings + n_others) < n_rings
        order = np.argsort(-diameters, kind="stable")  # large ones first: they need the room
        ring_of = dict(zip(diameters[order].tolist(), is_ring[order].tolist()))
        for place in _places(rng, spec, diameters[order]):
            direction = int(rng.integers(spec.directions))
            angle = 2 * np.pi * direction / spec.directions + rng.uniform(-0.1, 0.1)
            kind = "ring" if ring_of[place[2]] else DISTRACTORS[rng.integers(len(DISTRACTORS))]
            _draw(rng, canvas, kind, place, angle, spec.faint)
            if kind == "ring":
                x, y, diameter = (value / spec.side for value in place)
                classes.append(direction)
                boxes.append((x, y, diameter, diameter))
    image = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return Scene(image, np.array(classes, dtype=np.int64), np.array(boxes, dtype=np.float64).reshape(-1, 4))


def _write(path: Path, content: bytes) -> None:
    """Write a file so that it is either whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    partial.write_bytes(content)
    os.replace(partial, path)


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _claim(out: Path, manifest: str) -> None:
    """Make `out` the folder of this data set. Raises DemoError if it holds anything else."""
    file = out / MANIFEST
    if file.is_file():
        if file.read_text() != manifest:
            raise DemoError(
                f"{out}: holds a data set with other parameters ({file}); choose another folder or delete this one"
            )
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DemoError(f"{out}: exists and is not a data set of this command; choose another folder")
    _write(file, manifest.encode())


def build_demo(out: Path | str, spec: DemoSpec) -> Path:
    """Write the data set: images/, labels/, data.yaml, sr_train/, sr_val/.

    An interrupted build is continued by the same call, a complete one is left as it is.

    Args:
        out: folder of the data set.
        spec: parameters.

    Returns:
        Path of data.yaml (Ultralytics data-set YAML).

    Raises:
        DemoError: `out` holds a data set with other parameters, or other files.
    """
    out = Path(out)
    _claim(out, json.dumps({"drawing": DRAWING, **asdict(spec)}, indent=1) + "\n")
    for split, count in zip(SPLITS, spec.images):
        (out / "images" / split).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            picture = out / "images" / split / f"{index:06d}.png"
            if picture.is_file():
                continue
            scene = draw_scene(spec, split, index)
            rows = zip(scene.classes, scene.boxes)
            lines = [f"{label} " + " ".join(f"{value:.6f}" for value in box) + "\n" for label, box in rows]
            _write(out / "labels" / split / f"{index:06d}.txt", "".join(lines).encode())
            _write(picture, _png(scene.image))  # last: an image that exists has its labels
    for split, count in zip(SR_SPLITS, spec.sr_images):
        for index in range(count):
            picture = out / split / f"{index:06d}.png"
            if not picture.is_file():
                _write(picture, _png(draw_scene(spec, split, index).image))
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(class_names(spec.directions)))
    # No `path:` key: Ultralytics then takes the folder of the YAML, wherever the data set was moved to.
    header = "# Landolt rings; the class is the direction of the gap: train with fliplr 0 and flipud 0.\n"
    splits = "".join(f"{split}: images/{split}\n" for split in SPLITS)
    if not (out / "data.yaml").is_file():
        _write(out / "data.yaml", f"{header}{splits}names:\n{names}".encode())
    return out / "data.yaml"


def main(argv: list[str] | None = None) -> None:
    """Command line of `python -m data.demo`."""
    default = DemoSpec()
    parser = argparse.ArgumentParser(
        prog="python -m data.demo",
        description="Write the embedded data set of Landolt rings. Train on it with flip_lr 0 and flip_ud 0.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the data set; one with the same parameters is left as it is")
    add("--images", type=int, nargs=3, metavar=("TRAIN", "VAL", "TEST"), default=default.images, help="images by split")
    add("--sr-images", type=int, nargs=2, metavar=("TRAIN", "VAL"), default=default.sr_images, help="images for SR")
    add("--side", type=int, default=default.side, help="side of the HR images in pixels")
    add("--directions", type=int, choices=sorted(DIRECTIONS), default=default.directions, help="number of classes")
    add("--rings", type=int, nargs=2, metavar=("LOW", "HIGH"), default=default.rings, help="rings of an image")
    add("--distractors", type=int, nargs=2, metavar=("LOW", "HIGH"), default=default.distractors,
        help="unlabelled look-alikes of an image")  # fmt: skip
    add("--diameter", type=float, nargs=2, metavar=("LOW", "HIGH"), default=default.diameter,
        help="ring diameter in HR pixels")  # fmt: skip
    add("--groups", type=int, nargs=2, metavar=("LOW", "HIGH"), default=default.groups,
        help="places around which the objects of an image gather")  # fmt: skip
    add("--faint", type=float, default=default.faint, help="share of objects with little contrast")
    add("--seed", type=int, default=default.seed, help="seed of all random choices")
    options = vars(parser.parse_args(argv))
    out = options.pop("out")
    try:
        spec = DemoSpec(**{key: tuple(value) if isinstance(value, list) else value for key, value in options.items()})
        print(build_demo(out, spec))
    except DemoError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
