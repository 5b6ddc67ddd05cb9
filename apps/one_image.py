"""One uploaded image through the API: pictures, boxes and milliseconds for the page, as files that it can show."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

from data.image_files import IMAGE_SUFFIXES
from prediction.api import ConditionalYOLO
from prediction.image_input import one_image
from prediction.results import ConditionalResults
from prediction.stage_times import StageTimes
from prediction.super_resolver import SuperResolver
from utils.errors import UserError
from utils.overlay import READABLE_HEIGHT, draw_boxes, enlarge, shade_mask


@dataclass(frozen=True)
class Limits:
    """What is taken from a visitor.

    Args:
        pixels: largest height x width of an image; its SR image has scale^2 times as many.
        upload_mb: largest file.
    """

    pixels: int
    upload_mb: int


@dataclass(frozen=True)
class Shown:
    """What the page shows of one image: PNG files of equal shape, boxes as JSON, milliseconds of the parts."""

    pictures: dict[str, Path]
    boxes: Path | None
    parts: dict[str, float]
    line: str


def policy_of(model: ConditionalYOLO, share: float) -> str | None:
    """Policy of a share of patches: the masker's choice, or by edges where no masker was trained; None: no patches."""
    if not model.conditional:
        return None
    if share in (0, 1):
        return "all_quality" if share else "all_fast"
    return f"{'budget' if model.has_masker else 'edge'}={share:g}"


def detect(model: ConditionalYOLO, image: Path, policy: str | None, conf: float, limits: Limits, out: Path) -> Shown:
    """Find objects in one image file.

    Args:
        model: system with a detector.
        image: file.
        policy: where SR_Quality runs; see `ConditionalYOLO.checked_policy`.
        conf: lowest score.
        out: folder for what is shown.

    Raises:
        UserError: no image, or too large; its text names the file without its folder.
    """
    times = StageTimes(model.predictor.device)
    with named_without_folder(image):
        check_suffix(image)
        found = model.predict(image, policy, conf, stream=True, max_pixels=limits.pixels, times=times)
        with times.of_calls(timed_alone(model)):
            result = next(iter(found))
    with times.measure("pictures"):
        pictures = saved(pictures_of(result, dict(model.names)), out)
    boxes = new_file(out, "boxes.json")
    boxes.write_text(json.dumps(boxes_of(result), indent=1) + "\n", encoding="utf-8")
    height, width = result.orig_shape
    kept = "" if result.kept_share is None else f", SR_Quality on {result.kept_share:.0%} of the patches"
    line = f"{len(result)} objects in {width}x{height} pixels{kept}"
    return Shown(pictures, boxes, parts_of(times), line)


def timed_alone(model: ConditionalYOLO) -> dict[str, nn.Module]:
    """Masker and SR_Fast of a system that has both, by the names of their parts; on a GPU they are part of a graph."""
    if not model.conditional or model.predictor.device.type != "cpu":
        return {}
    networks = model.predictor.system.front.networks
    return {"masker": networks["masker"], "SR_Fast": networks["sr_fast"]}


def parts_of(times: StageTimes) -> dict[str, float]:
    """Milliseconds of the parts; what SR_Fast leaves of SR is SR_Quality's, with putting its patches in."""
    name = {"SR": "SR_Quality"} if "SR_Fast" in times.seconds else {}
    return {name.get(part, part): 1e3 * seconds for part, seconds in times.seconds.items()}


def super_resolve(resolver: SuperResolver, image: Path, limits: Limits, out: Path) -> Shown:
    """Super-resolve one image file without detecting; arguments and errors as `detect`."""
    times = StageTimes(resolver.inference.device)
    with named_without_folder(image):
        check_suffix(image)
        with times.measure("reading"):
            lr = one_image(image, None, limits.pixels)
        with times.measure("SR"):
            sr = resolver.image(lr)
    with times.measure("pictures"):
        pictures = saved({"LR": lr, "SR": sr}, out)
    line = f"{lr.shape[1]}x{lr.shape[0]} pixels to {sr.shape[1]}x{sr.shape[0]}"
    return Shown(pictures, None, {part: 1e3 * seconds for part, seconds in times.seconds.items()}, line)


def pictures_of(result: ConditionalResults, names: Mapping[int, str]) -> dict[str, np.ndarray]:
    """LR, mask (where there is one), SR and boxes, uint8 (H, W, 3) RGB."""
    lr = np.ascontiguousarray(result.orig_img[..., ::-1])
    pictures = {"LR": lr}
    if result.patch_mask is not None and result.patch is not None:
        large, factor = enlarge(lr, READABLE_HEIGHT)
        pictures["mask"] = shade_mask(large, result.patch_mask, result.patch * factor)
    large, factor = enlarge(result.sr, 2 * READABLE_HEIGHT)  # names of classes stand in it
    grown = factor * result.sr.shape[0] / lr.shape[0]
    boxes = result.boxes.data.numpy()[:, :6] * np.array([grown] * 4 + [1, 1], np.float32)
    return pictures | {"SR": result.sr, "boxes": draw_boxes(large, boxes, [names[label] for label in sorted(names)])}


def boxes_of(result: ConditionalResults) -> dict:
    """What predictions.json of inference.py says of an image, without its file."""
    height, width = result.orig_shape
    kept = None if result.kept_share is None else round(result.kept_share, 6)
    detections = [
        {"class": int(label), "name": result.names[int(label)], "score": round(score, 5)}
        | {"box": [round(value, 3) for value in box]}
        for *box, score, label in result.boxes.data.tolist()
    ]
    return {"width": width, "height": height, "kept_share": kept, "detections": detections}


def new_file(folder: Path, name: str) -> Path:
    """Path in a new folder whose name nobody can guess."""
    path = folder / secrets.token_hex(16) / name
    path.parent.mkdir(parents=True)
    return path


def saved(pictures: Mapping[str, np.ndarray], out: Path) -> dict[str, Path]:
    """Write PNG files, quickly rather than small."""
    paths = {}
    for name, picture in pictures.items():
        paths[name] = new_file(out, f"{name}.png")
        Image.fromarray(picture).save(paths[name], compress_level=1)
    return paths


def check_suffix(image: Path) -> None:
    """Raises UserError unless a file is an image by its name: a video would be read frame by frame."""
    if image.suffix.lower() not in IMAGE_SUFFIXES:
        raise UserError(f"{image}: no image by its name; give one of {' '.join(IMAGE_SUFFIXES)}")


@contextmanager
def named_without_folder(image: Path):
    """Errors about a file name it as the visitor does, not where this machine keeps it."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(str(image), image.name)) from None
