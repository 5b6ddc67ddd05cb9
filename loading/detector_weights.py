"""Weights for a `YoloDetector`: checkpoints of this project, Ultralytics files, state dicts; no code is run.

What a file is, its content says and not its suffix.
"""

from __future__ import annotations

import pickle
import shutil
import tempfile
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from loading.state_dict_file import NESTS, is_safetensors, read_content, without_prefixes
from models.detector_yolo import YoloDetector, read_ultralytics
from utils.checkpoint import (
    SAVE_ALONE,
    CheckpointError,
    load_network,
    refuse_hostile,
    refuse_other_files,
    refused_type,
)

SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors")
# Without model., which is part of the names that Ultralytics gives (model.0.conv.weight, ...).
PREFIXES = ("module.", "_orig_mod.", "net.")


@dataclass(frozen=True)
class StoredWeights:
    """What a weight file holds: tensors by name, and where known the network and its classes; with `own` checkpoints,
    those of this project, the configured network and classes must agree."""

    tensors: dict[str, Tensor]
    yaml: dict | None = None
    names: list[str] | None = None
    own: bool = False


def load_detector(
    model: str | dict, weights: str | Path | None = None, names: list[str] | tuple[str, ...] | None = None
) -> tuple[YoloDetector, str]:
    """Detector with weights, and a sentence for the log that says what was taken.

    Args:
        model: as `YoloDetector`, or a weight file that says which network it holds, and brings the weights too.
        weights: detector checkpoint of this project (network and class names must agree), Ultralytics file, or a plain
            state dict; of the last two every tensor of equal name and shape is taken. None keeps random weights.
        names: class names; None takes those of the file.

    Raises:
        CheckpointError: missing or damaged file, a pickle with code, another network, or no tensor fits.
        ValueError: unknown model, or no class names given or found.
    """
    source = None
    if isinstance(model, str) and model.endswith(SUFFIXES):
        source = read_weights(model)
        if source.yaml is None:
            raise CheckpointError(
                f"{model}: a plain state dict names no network and no classes; give it as detector.weights, and a YAML "
                "name as detector.model"
            )
        model, weights = source.yaml, weights or model
    if weights is None:
        return YoloDetector(model, names or ()), "random weights"
    stored = read_weights(weights)
    detector = YoloDetector(model, names or stored.names or ())
    own = detector.net.state_dict()
    if stored.own:
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
    """Read a weight file of any suffix; nothing in it is executed.

    Raises:
        CheckpointError: missing or damaged file, one without named tensors, or a pickle with code in it.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file; stage1_pretrain_yolo.py writes yolo_pretrained_hr.pth, Ultralytics' own .pt files "
            "are at https://github.com/ultralytics/assets/releases (nothing is downloaded here)"
        )
    refuse_other_files(path)
    content = read_content(path)[0] if is_safetensors(path) else _read_torch(path)
    if "checksum" in content:
        payload = load_network(path, kind="detector")
        return StoredWeights(
            _bare(payload["weights"]), payload["args"]["model"], list(payload["args"]["names"]), own=True
        )
    parts = [content[key] for key in ("ema", *NESTS) if isinstance(content.get(key), dict | nn.Module)]
    module = next((part for part in parts if part != {}), content)
    if isinstance(module, nn.Module):
        names = module.names if isinstance(module.names, dict) else dict(enumerate(module.names))
        refuse_hostile(path, module.state_dict())
        return StoredWeights(module.state_dict(), deepcopy(module.yaml), [str(names[k]) for k in sorted(names)])
    tensors = {k: v for k, v in module.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if not tensors:
        keys = ", ".join(map(repr, list(content)[:8]))
        raise CheckpointError(
            f"{path}: holds neither an Ultralytics model nor named tensors (its keys are {keys or 'none'}); save the "
            "network's state dict alone"
        )
    return StoredWeights(_bare(tensors))


def _bare(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by the names that Ultralytics gives, whatever wrapped them (`module.`, a further `model.`)."""
    while True:
        tensors, taken = without_prefixes(tensors, PREFIXES)
        if all(name.startswith("model.model.") for name in tensors):
            tensors, taken = {name.removeprefix("model."): value for name, value in tensors.items()}, ["model."]
        if not taken or not tensors:
            return tensors


def _read_ultralytics(path: Path) -> dict:
    """`read_ultralytics`, which opens files of the suffix .pt only."""
    if path.suffix == ".pt":
        return read_ultralytics(path)
    with tempfile.TemporaryDirectory() as folder:
        return read_ultralytics(shutil.copyfile(path, Path(folder) / "weights.pt"))


def _read_torch(path: Path) -> dict:
    kind = ""
    try:
        try:
            with path.open("rb") as file:  # from the path PyTorch would judge by the suffix
                content = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:  # not plain tensors: an Ultralytics file
            kind = refused_type(error)
            content = _read_ultralytics(path)
    except Exception as error:
        if kind and not kind.startswith(("ultralytics.", "torch.")):
            raise CheckpointError(
                f"{path}: holds pickled objects, such as a whole network ({kind}); nothing was executed: {SAVE_ALONE}"
            ) from error
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        raise CheckpointError(
            f"{path}: cannot be read safely ({reason}); it is damaged or truncated, or holds code, which is never run: "
            "get the file anew from its source"
        ) from error
    refuse_hostile(path, content)
    return content if isinstance(content, dict) else {"model": content}
