"""A deployed detector from whatever file it is in: a stage-1 checkpoint, an Ultralytics .pt, a plain state dict.

A plain state dict says neither its network nor its classes. Both are in its shapes: the head tells the number of
classes, and the model YAMLs that Ultralytics ships are tried until one has just these tensors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from torch import Tensor

from loading.bounded_build import at_most
from loading.checkpoints import checkpoint_kind
from loading.detector_weights import read_weights
from loading.published_weights import check_finite
from models.detector_yolo import SHIPPED, YoloDetector, model_yaml
from utils.checkpoint import CheckpointError
from utils.errors import UserError

HEADS = ("Detect", "v10Detect")
Tensors = dict[str, Tensor]


def holds_detector(path: str | Path) -> bool:
    """Whether a file, which is no system, holds a detector."""
    if not Path(path).is_file() or checkpoint_kind(path) == "sr":
        return False
    if checkpoint_kind(path) == "detector":
        return True
    try:
        stored = read_weights(path)
    except CheckpointError:
        return False
    return stored.yaml is not None or any(key.startswith("model.") and ".cv3." in key for key in stored.tensors)


def load_deployed_detector(
    path: str | Path, model: str | None = None, names: Sequence[str] | None = None
) -> YoloDetector:
    """Detector with all of its weights, on the CPU, in evaluation mode; nothing in the file is executed.

    Args:
        path: stage-1 checkpoint, Ultralytics .pt, or state dict, of any suffix.
        model: model YAML of a plain state dict; None recognises it.
        names: class names for a file that holds none; None takes COCO's for 80 classes, else class_0, class_1, ...

    Raises:
        CheckpointError: missing or damaged file, a pickle with code, tensors missing or of another shape, or a plain
            state dict that is none of the known models.
        UserError: unknown model, or another number of names than of classes.
    """
    stored = read_weights(path)
    description: str | dict | None = stored.yaml
    if stored.yaml is None:
        count = class_count(path, stored.tensors)
        names = _names(path, count, names)
        description = recognised_model(path, stored.tensors, names) if model is None else model
    elif model is not None:
        raise UserError(f"{path}: says itself which network it holds; leave out the model")
    with at_most(path, stored.tensors):
        detector = YoloDetector(description, stored.names or names)
    own, called = detector.net.state_dict(), detector.net.yaml.get("yaml_file", "its network")
    missing = differences(own, stored.tensors)
    if stored.yaml is None:
        print(f"{path}: a state dict of {called} with {len(detector.names)} classes")
    if missing:
        raise CheckpointError(
            f"{path}: {len(missing)} of the {len(own)} tensors of {called} are missing or of another shape (first: "
            f"{missing[0]}); give the YAML of its model, or the file as it was trained, not fused or exported"
        )
    check_finite(path, stored.tensors)
    detector.net.load_state_dict({key: stored.tensors.get(key, value) for key, value in own.items()})
    return detector.eval()


def differences(own: Tensors, given: Tensors) -> list[str]:
    """Tensors of a network that others lack, or have in another shape; counters of BatchNorm do not matter."""
    needed = {key: value.shape for key, value in own.items() if not key.endswith("num_batches_tracked")}
    return [key for key, shape in needed.items() if key not in given or given[key].shape != shape]


# ----------------------------------------------------------------------------------------------- what a state dict is


def class_count(path: str | Path, tensors: Tensors) -> int:
    """Number of classes, which the last layers of the head's class branches have as output channels.

    Raises:
        CheckpointError: there is no such head.
    """
    layers = [int(found[1]) for key in tensors if (found := re.match(r"model\.(\d+)\.", key))]
    last = max(layers, default=-1)
    found = sorted(key for key in tensors if re.fullmatch(rf"model\.{last}\.cv3\.0\.\d+\.weight", key))
    if not found:
        first = next((key for key in tensors if key.startswith(f"model.{last}.")), next(iter(tensors)))
        raise CheckpointError(
            f"{path}: a plain state dict without the head of an Ultralytics detector, Detect or v10Detect (its last "
            f"layer has {first}); give the weights of a box detector, older anchor-based YOLOv5 ones are none"
        )
    return tensors[found[-1]].shape[0]


def recognised_model(path: str | Path, tensors: Tensors, names: Sequence[str]) -> str:
    """YAML name of the Ultralytics model whose tensors these are, by name and shape.

    Raises:
        CheckpointError: none of them.
    """
    layers = 1 + max(int(found[1]) for key in tensors if (found := re.match(r"model\.(\d+)\.", key)))
    first = tensors.get("model.0.conv.weight")
    width = 0 if first is None else first.shape[0]
    for name, description in candidates(layers, width):
        own = YoloDetector(description, list(names)).net.state_dict()
        if own.keys() >= tensors.keys() and not differences(own, tensors):
            return name
    raise CheckpointError(
        f"{path}: a plain state dict of none of the models that Ultralytics ships ({layers} layers, {len(names)} "
        "classes); give the YAML of its model"
    )


def candidates(layers: int, width: int) -> Iterator[tuple[str, dict]]:
    """(YAML name, description) of every shipped detection model with so many layers, whose first one is so wide; the
    plain ones first."""
    files = {file.stem: file for file in sorted((SHIPPED / "models").rglob("*.yaml"))}
    for stem in sorted(files, key=lambda stem: (len(stem), stem)):
        content = yaml.safe_load(files[stem].read_text(encoding="utf-8"))
        head = content.get("head", [])
        if not head or head[-1][2] not in HEADS or len(content["backbone"]) + len(head) != layers:
            continue
        sizes = content.get("scales", {"": (1.0, 1.0, math.inf)})
        for size, (_, share, most) in sizes.items():
            if 8 * math.ceil(min(content["backbone"][0][3][0], most) * share / 8) == width:
                of_one_size = len(sizes) == 1  # its name says so already
                name = stem if of_one_size else re.sub(r"^(yolov?\d+)", rf"\g<1>{size}", stem)
                yield name + ".yaml", model_yaml(name + ".yaml")


def _names(path: str | Path, count: int, names: Sequence[str] | None) -> list[str]:
    if names is None:
        coco = yaml.safe_load((SHIPPED / "datasets" / "coco.yaml").read_text(encoding="utf-8"))["names"]
        return [coco[k] for k in sorted(coco)] if count == len(coco) else [f"class_{k}" for k in range(count)]
    if len(names) != count:
        raise UserError(f"{path}: has {count} classes, but there are {len(names)} names; use the data set it is for")
    return list(names)
