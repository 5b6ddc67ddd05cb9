"""Networks from checkpoint files; every refusal names the file, what is wrong, and the remedy."""

from __future__ import annotations

import inspect
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn

from configs.schema import DetectorConfig, NetworkConfig, Stage3Config
from loading.published_weights import check_finite, check_scale, describe, load_community_sr
from loading.shipped_weights import SHIPPED, shipped_specs
from loading.state_dict_file import is_community_file
from models import SR_NETWORKS, build_sr
from models.arbitrary_scale import takes_size
from models.conditional_sr import ConditionalSR
from models.masker import Masker
from models.system import ConditionalSRDetector, HRImages, build_front, shared_stem
from models.tiling.plan import choose_halo, choose_patch
from utils.checkpoint import CheckpointError, load_network
from utils.errors import UserError

if TYPE_CHECKING:  # at run time only where there is a detector: SR alone loads no Ultralytics
    from models.detector_yolo import YoloDetector


def load_system(path: str | Path) -> ConditionalSRDetector:
    """Front end and detector of stage 3, on the CPU, in evaluation mode.

    Raises:
        CheckpointError: missing, damaged, or not a stage-3 checkpoint.
    """
    payload = load_network(path, kind="system")
    return _filled(path, lambda: ConditionalSRDetector.from_spec(payload["args"]), payload["weights"])


def set_halo(path: str | Path, front: ConditionalSR, halo: int | Literal["exact"] | None) -> None:
    """Execute a system with another halo than its checkpoint names.

    Args:
        path: the checkpoint, for messages.
        front: its front end.
        halo: LR pixels of neighbours around patches, exact: the receptive field; None changes nothing.

    Raises:
        ValueError: below 0, or the system was trained on tiles with a halo of their own.
    """
    if halo is None:
        return
    if halo != "exact" and halo < 0:
        raise UserError(f"halo is {halo}; give LR pixels, 0 or more, or exact")
    wanted = None if halo == "exact" else halo
    if front.train_tiles and wanted != front.halo:
        raise UserError(
            f"halo: {path} was trained on tiles with a halo of {front.halo} and runs with that; leave it out"
        )
    front.halo = wanted


def load_detector_checkpoint(path: str | Path) -> YoloDetector:
    """Detector of stage 1, on the CPU, in evaluation mode.

    Raises:
        CheckpointError: missing, damaged, or not a stage-1 checkpoint.
    """
    from models.detector_yolo import YoloDetector

    payload = load_network(path, kind="detector")
    return _filled(path, lambda: YoloDetector(**payload["args"]), payload["weights"])


def load_any_detector(path: str | Path) -> tuple[YoloDetector, ConditionalSRDetector | None]:
    """Detector of stage 1, or that of stage 3 and the system that it belongs to; on the CPU, in evaluation mode.

    Raises:
        CheckpointError: missing, damaged, or of another stage.
    """
    if load_network(path)["kind"] != "system":
        return load_detector_checkpoint(path), None
    system = load_system(path)
    return system.detector, system


def load_sr(path: str | Path, scale: float | None = None) -> nn.Module:
    """SR network of stage 2 or of a published weight file (says what it holds), on the CPU, in evaluation mode.

    Args:
        path: .pth of stage 2, or of a stage 3 with a single SR network in front of the detector, or weights published
            by others (.pth, .pt, .ckpt, .safetensors), see loading/published_weights.py.
        scale: the one that is wanted; published files of several scales need it.

    Raises:
        CheckpointError: missing, damaged, of no known architecture, or with keys missing or unknown.
        ValueError: it is for another scale.
    """
    if is_community_file(path):
        network, found = load_community_sr(path, scale)
        print(f"{path}: {found}")
        return network
    network = _load_sr_of_stage3(path) if load_network(path)["kind"] == "system" else _load_stage2(path)
    check_scale(path, network.scale, network.scale if scale is None or takes_size(network) else scale)
    return network


def _load_stage2(path: str | Path) -> nn.Module:
    """SR network of stage 2. Raises CheckpointError."""
    payload = load_network(path, kind="sr")
    args = dict(payload["args"])
    return _filled(path, lambda: build_sr(payload["name"], args.pop("scale"), args), payload["weights"])


def _load_sr_of_stage3(path: str | Path) -> nn.Module:
    """The single SR network in front of the detector of stage 3. Raises CheckpointError, also where there are two."""
    payload = load_network(path, kind="system")
    spec = payload["args"].get("front", {})
    if spec.get("name") not in SR_NETWORKS:
        raise CheckpointError(f"{path}: its front end is no single SR network; for a whole front end there is `start`")
    weights = {key.removeprefix("front."): x for key, x in payload["weights"].items() if key.startswith("front.")}
    return _filled(path, lambda: build_front(spec), weights)


def build_or_load_sr(config: NetworkConfig, scale: int) -> nn.Module:
    """SR network as configured: with fresh weights, or with those of a checkpoint.

    A stage-2 checkpoint must hold the configured network. A weight file published by others says by its keys which
    network it holds; that one is taken, and said so where the configuration names another. `init` names the same
    network for another scale, of which all that fits is taken over; `weights: shipped` are those of the project.

    Raises:
        ValueError: unknown network or argument, the checkpoint holds another network or scale, or both are named.
        CheckpointError: see `load_sr`.
    """
    network = build_sr(config.name, scale, config.args)
    if config.init is not None:
        if config.weights is not None:
            raise UserError(f"{config.name}: weights and init are both given; weights already sets every tensor")
        return _started_from(config.init, network)
    if config.weights is None:
        return network
    if config.weights == SHIPPED:
        return load_sr(shipped_file(network.spec), scale)
    stored = load_sr(config.weights, scale)
    if complete(stored.spec) != complete(network.spec):
        if is_community_file(config.weights):
            print(f"{config.weights}: taken as it is; the configuration's {describe(network.spec)} does not apply")
            return stored
        raise UserError(
            f"{config.weights}: holds {describe(stored.spec)}, but the configuration asks for {describe(network.spec)};"
            " make name and args agree with the checkpoint, or train stage 2 with them"
        )
    return stored


def build_or_load_detector(config: DetectorConfig, names: tuple[str, ...]) -> YoloDetector:
    """Detector as configured, for these classes; prints what was taken from the weight file.

    Raises:
        ValueError, CheckpointError: see `load_detector`.
    """
    from loading.detector_weights import load_detector

    detector, taken = load_detector(config.model, config.weights, names)
    print(f"detector {config.model}: {taken}")
    return detector


def build_system(config: Stage3Config, names: tuple[str, ...]) -> ConditionalSRDetector:
    """Front end and detector as a stage-3 configuration describes them, with the weights of stages 1 and 2.

    Args:
        config: networks, their weights, scale and masker.
        names: class names of the data set.

    Raises:
        ValueError, CheckpointError: see `build_or_load_sr` and `build_or_load_detector`.
    """
    scale, masker = config.data.scale, config.masker
    if config.start is not None:
        config = replace(config, sr_fast=replace(config.sr_fast, weights=None, init=None))
        config = replace(config, sr_quality=replace(config.sr_quality, weights=None, init=None))
    if config.sr == "conditional":
        sides = config.data.imgsz if isinstance(config.data.imgsz, list) else [config.data.imgsz] * 2
        patch = choose_patch(*(side // scale for side in sides)) if masker.patch == "auto" else masker.patch
        sr_fast = build_or_load_sr(config.sr_fast, scale)
        front = ConditionalSR(
            Masker(patch, masker.channels, masker.bias, shared_stem(sr_fast) if masker.shared_stem else None),
            sr_fast,
            build_or_load_sr(config.sr_quality, scale),
            halo=choose_halo(patch) if masker.halo == "auto" else masker.halo,
        )
        front.train_tiles = masker.train == "tiles"
    elif config.sr == "bicubic":
        front = build_sr("bicubic", scale, {"upscale": config.upscale} if config.upscale > 1 else {})
    elif config.sr == "hr":
        front = HRImages()
    else:
        front = build_or_load_sr(getattr(config, config.sr), scale)
    if config.start is not None:
        take_front(config.start, front, config.sr)
    return ConditionalSRDetector(front, build_or_load_detector(config.detector, names))


def take_front(path: str | Path, front: nn.Module, sr: str) -> None:
    """Give a front end the weights of that of a stage-3 checkpoint.

    Args:
        path: checkpoint.
        front: ConditionalSR, or one SR network.
        sr: which part of a ConditionalSR in the checkpoint a single network takes: sr_fast or sr_quality.

    Raises:
        CheckpointError: see `load_system`.
        ValueError: the checkpoint holds another front end.
    """
    stored = load_system(path).front
    if isinstance(stored, ConditionalSR) and not isinstance(front, ConditionalSR):
        stored = getattr(stored, sr)
    both = isinstance(front, ConditionalSR)
    if isinstance(stored, HRImages) or both != isinstance(stored, ConditionalSR):
        raise UserError(f"start: {path} was trained with another `sr`; name a checkpoint of sr conditional")
    if both:
        masks = [(network.masker.patch, network.masker.channels) for network in (front, stored)]
        if masks[0] != masks[1]:
            raise UserError(f"start: {path} has masker.patch and channels {masks[1]}, the configuration {masks[0]}")
        if front.masker.shares_stem != stored.masker.shares_stem:
            raise UserError(f"start: masker.shared_stem of {path} is another than that of the configuration")
    pairs = {"": (front, stored)}
    if both:
        pairs = {name: (getattr(front, name), getattr(stored, name)) for name in ("sr_fast", "sr_quality")}
    for name, (own, other) in pairs.items():
        if complete(own.spec) != complete(other.spec):
            raise UserError(
                f"start: {path} holds {describe(other.spec)}, but {name or sr} is {describe(own.spec)}; make name, "
                "args and data.scale agree"
            )
    front.load_state_dict(stored.state_dict())
    print(f"{path}: {'masker and SR networks' if both else sr} taken as start")


def build_teacher(config: Stage3Config, detector: YoloDetector) -> YoloDetector:
    """The frozen detector that distillation takes as its target.

    Args:
        config: `losses.teacher`, and the mode.
        detector: the one to be trained, as it is before its training; frozen already in the mode frozen_detector.

    Returns:
        The teacher of `losses.teacher`; without one the detector itself where it stays as it is, else a copy.

    Raises:
        CheckpointError: see `load_any_detector`.
        ValueError: the teacher knows other classes, or other images than HR ones.
    """
    path = config.losses.teacher
    if path is not None:
        teacher, system = load_any_detector(path)
        if system is not None and not system.sees_hr:
            raise UserError(f"losses.teacher: {path} saw LR images; name a stage 1, or a stage 3 with sr hr")
        check_classes(path, teacher.names, detector.names)
    else:
        teacher = detector if detector.frozen else deepcopy(detector)
    teacher.freeze()
    return teacher


def check_classes(path: str | Path, stored: tuple[str, ...] | list[str], wanted: tuple[str, ...] | list[str]) -> None:
    """Raises ValueError where a detector was trained for other classes than the data set has."""
    if list(stored) != list(wanted):
        raise UserError(
            f"{path}: its classes are {list(stored)}, the data set's are {list(wanted)}; use the data-set YAML"
            " that it was trained with, or train on this one"
        )


def complete(spec: dict) -> dict:
    """Spec of an SR network with the arguments that were left at their defaults written out."""
    parameters = inspect.signature(SR_NETWORKS[spec["name"]]).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return {"name": spec["name"], "args": defaults | spec["args"]}


def shipped_file(spec: dict) -> Path:
    """The weight file of this very network that comes with the project.

    Raises:
        ValueError: there is none; the message lists what there is.
    """
    shipped = shipped_specs()
    for path, held in shipped.items():
        if complete(held) == complete(spec):
            return path
    raise UserError(
        f"weights: {SHIPPED}: there are none for {describe(spec)}; shipped are "
        f"{', '.join(describe(held) for held in shipped.values())}. Train stage 2 and name its checkpoint"
    )


def _started_from(path: str | Path, network: nn.Module) -> nn.Module:
    """The network with those tensors of a checkpoint that agree in name and shape; prints how many."""
    stored = load_sr(path)
    if _without_scale(stored.spec) != _without_scale(network.spec):
        raise UserError(
            f"{path}: init needs {describe(network.spec)} at any scale, but this holds {describe(stored.spec)};"
            " make name and args agree with the checkpoint"
        )
    own = network.state_dict()
    fits = {key: x for key, x in stored.state_dict().items() if key in own and own[key].shape == x.shape}
    network.load_state_dict(fits, strict=False)
    fresh = f"; fresh: {', '.join(sorted(own.keys() - fits.keys()))}" if len(fits) < len(own) else ""
    print(f"{path}: {len(fits)} of {len(own)} tensors taken over{fresh}")
    return network


def _without_scale(spec: dict) -> dict:
    """Spec of an SR network for any scale."""
    spec = complete(spec)
    return {"name": spec["name"], "args": {key: value for key, value in spec["args"].items() if key != "scale"}}


def _filled(path: str | Path, build, weights: dict[str, Tensor]):
    """Network from `build()` with these weights."""
    try:
        network = build()
        check_finite(path, weights)
        network.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        first = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{path}: cannot be rebuilt from what it says of itself ({type(error).__name__}: {first}); it was written"
            " by another version of this project: train the stage again"
        ) from error
    return network.eval()
