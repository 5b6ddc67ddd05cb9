"""Weights for a `YoloDetector`: checkpoints of this project, Ultralytics .pt files, state dicts; no code is run."""

from __future__ import annotations

import pickle
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from models.detector_yolo import YoloDetector, read_ultralytics
from utils.checkpoint import CheckpointError, load_network


@dataclass(frozen=True)
class StoredWeights:
    """What a weight file holds: tensors by name, and where known the network and its classes."""

    tensors: dict[str, Tensor]
    yaml: dict | None = None
    names: list[str] | None = None


def load_detector(
    model: str | dict, weights: str | Path | None = None, names: list[str] | tuple[str, ...] | None = None
) -> tuple[YoloDetector, str]:
    """Detector with weights, and a sentence for the log that says what was taken.

    Args:
        model: as `YoloDetector`, or an Ultralytics .pt file, which brings network and weights.
        weights: detector checkpoint of this project (.pth; network and class names must agree), Ultralytics .pt, or a
            plain state dict; of the last two every tensor of equal name and shape is taken. None keeps random weights.
        names: class names; None takes those of the file.

    Raises:
        CheckpointError: missing or damaged file, a pickle with code, another network, or no tensor fits.
        ValueError: unknown model, or no class names given or found.
    """
    source = None
    if isinstance(model, str) and model.endswith(".pt"):
        source = read_weights(model)
        if source.yaml is None:
            raise CheckpointError(
                f"{model}: a plain state dict names no network; give it as detector.weights, and a YAML name as "
                "detector.model"
            )
        model, weights = source.yaml, weights or model
    if weights is None:
        return YoloDetector(model, names or ()), "random weights"
    stored = read_weights(weights)
    detector = YoloDetector(model, names or stored.names or ())
    own = detector.net.state_dict()
    if Path(weights).suffix == ".pth":
        _check_same(weights, detector, stored)
    taken = {k: v for k, v in stored.tensors.items() if k in own and v.shape == own[k].shape}
    if not taken:
        first = next(iter(stored.tensors), None)
        raise CheckpointError(
            f"{weights}: none of its {len(stored.tensors)} tensors fits {detector.net.yaml.get('yaml_file')} by name "
            f"and shape (first: {first!r}); check detector.model"
        )
    detector.net.load_state_dict(taken, strict=False)  # copies into the network's own fp32 tensors
    return detector, f"{len(taken)} of {len(own)} tensors taken from {weights} ({len(stored.tensors)} there)"


def _check_same(path: str | Path, detector: YoloDetector, stored: StoredWeights) -> None:
    if list(detector.names) != stored.names:
        raise CheckpointError(
            f"{path}: its classes are {stored.names}, the data set's are {list(detector.names)}; train stage 1 on this "
            "data set, or correct the names in the data-set YAML"
        )
    mine, theirs = ({k: v for k, v in d.items() if k != "yaml_file"} for d in (detector.net.yaml, stored.yaml))
    if mine != theirs:
        held, wanted = stored.yaml.get("yaml_file"), detector.net.yaml.get("yaml_file")
        raise CheckpointError(f"{path}: holds {held}, not {wanted}; set detector.model to {held}")


def read_weights(path: str | Path) -> StoredWeights:
    """Read a .pth of this project or a .pt; nothing in the file is executed.

    Raises:
        CheckpointError: missing, damaged or unknown file, or a pickle with code in it.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file; stage1_pretrain_yolo.py writes yolo_pretrained_hr.pth, Ultralytics' own .pt files "
            "are at https://github.com/ultralytics/assets/releases (nothing is downloaded here)"
        )
    if path.suffix == ".pth":
        payload = load_network(path, kind="detector")
        tensors = {k.removeprefix("net."): v for k, v in payload["weights"].items()}
        return StoredWeights(tensors, payload["args"]["model"], list(payload["args"]["names"]))
    if path.suffix != ".pt":
        raise CheckpointError(f"{path}: weights must be a .pth of this project or a .pt file")
    content = _read_pt(path)
    module = content.get("ema") or content.get("model") or content.get("state_dict") or content
    if isinstance(module, nn.Module):
        names = module.names if isinstance(module.names, dict) else dict(enumerate(module.names))
        return StoredWeights(module.state_dict(), deepcopy(module.yaml), [str(names[k]) for k in sorted(names)])
    tensors = {k: v for k, v in module.items() if isinstance(v, Tensor)} if isinstance(module, dict) else {}
    if not tensors:
        raise CheckpointError(f"{path}: holds neither an Ultralytics model nor a state dict")
    return StoredWeights(tensors)


def _read_pt(path: Path) -> dict:
    try:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:  # not plain tensors: an Ultralytics file
            content = read_ultralytics(path)
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        raise CheckpointError(
            f"{path}: cannot be read safely ({reason}); it is damaged, or holds code, which is never run: get the file "
            "anew from its source"
        ) from error
    return content if isinstance(content, dict) else {"model": content}
