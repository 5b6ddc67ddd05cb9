"""Whole systems, front end and detector, from checkpoints and configurations."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Literal

from configs.schema import DetectorConfig
from configs.stage3_schema import Stage3Config
from loading.checkpoints import checkpoint_kind, load_front, rebuilt
from loading.deployed_detector import load_deployed_detector
from loading.detector_weights import load_detector
from loading.load_sr import build_or_load_sr, with_defaults
from loading.published_weights import spec_text
from models.build_front import build_front, fresh_network
from models.detector_yolo import YoloDetector
from models.front_end import FrontEnd
from models.masker import Masker
from models.single_sr import ROLE
from models.sr_network import SRNetwork
from models.system import ConditionalSRDetector
from models.tiling.tile_plan import auto_halo, choose_halo, choose_patch
from utils.checkpoint import load_network
from utils.errors import UserError

# ----------------------------------------------------------------------------------------------------- from checkpoints


def system_from_spec(args: dict) -> ConditionalSRDetector:
    """System with fresh weights from the "args" of its `spec`."""
    front, detector = build_front(args["front"]), YoloDetector(**args["detector"])
    return ConditionalSRDetector(front, detector, upscale=args.get("upscale", 1))


def load_system(path: str | Path) -> ConditionalSRDetector:
    """Front end and detector of stage 3, on the CPU, in evaluation mode.

    Raises:
        CheckpointError: missing, damaged, or not a stage-3 checkpoint.
    """
    payload = load_network(path, kind="system")
    return rebuilt(path, lambda: system_from_spec(payload["args"]), payload["weights"])


def with_halo(
    path: str | Path, system: ConditionalSRDetector, halo: int | Literal["exact"] | None
) -> ConditionalSRDetector:
    """The system, its weights shared, executed with another halo than its checkpoint names.

    Args:
        path: the checkpoint, for messages.
        system: what it holds.
        halo: LR pixels of neighbours around patches, exact: the receptive field; None changes nothing.

    Raises:
        UserError: below 0, there are no patches, or the system was trained on tiles with a halo of their own.
    """
    if halo is None:
        return system
    if halo != "exact" and (not isinstance(halo, Integral) or halo < 0):
        raise UserError(f"halo is {halo!r}; give LR pixels, 0 or more, or exact")
    if system.patch is None:
        raise UserError(f"{path}: this system has no masker; leave out --halo")
    wanted, trained = None if halo == "exact" else halo, system.front.execution
    if trained.train_tiles and wanted != trained.halo:
        raise UserError(
            f"halo: {path} was trained on tiles with a halo of {trained.halo} and runs with that; leave it out"
        )
    return system.with_execution(halo=wanted)


def load_detector_checkpoint(path: str | Path) -> YoloDetector:
    """Detector of stage 1, on the CPU, in evaluation mode.

    Raises:
        CheckpointError: missing, damaged, or not a stage-1 checkpoint.
    """
    payload = load_network(path, kind="detector")
    return rebuilt(path, lambda: YoloDetector(**payload["args"]), payload["weights"])


def load_any_detector(
    path: str | Path, names: Sequence[str] | None = None
) -> tuple[YoloDetector, ConditionalSRDetector | None]:
    """Detector of any file, or that of stage 3 and the system that it belongs to; on the CPU, in evaluation mode.

    Args:
        path: checkpoint of stage 1 or 3, Ultralytics .pt, or state dict.
        names: class names for a state dict, which holds none.

    Raises:
        UserError, CheckpointError: see `load_deployed_detector`.
    """
    if checkpoint_kind(path) == "system":
        system = load_system(path)
        return system.detector, system
    return load_deployed_detector(path, names=names), None


# -------------------------------------------------------------------------------------------------- from configurations


def build_or_load_detector(config: DetectorConfig, names: tuple[str, ...]) -> YoloDetector:
    """Detector as configured, for these classes; prints what was taken from the weight file.

    Raises:
        ValueError, CheckpointError: see `load_detector`.
    """
    detector, taken = load_detector(config.model, config.weights, names)
    print(f"detector {config.model}: {taken}")
    return detector


def spec_of_front(config: Stage3Config) -> dict:
    """What `build_front` takes, of the front end that a stage-3 configuration describes."""
    scale, masker = config.data.scale, config.masker
    if config.sr == "hr":
        return {"name": "hr"}
    if config.sr == "bicubic":
        return network_spec("bicubic", scale, split_upscale("bicubic", scale, config.upscale)[0])
    if config.sr != "conditional":
        network = getattr(config, config.sr)
        return network_spec(network.name, scale, network.args)
    sides = config.data.imgsz if isinstance(config.data.imgsz, list) else [config.data.imgsz] * 2
    patch = choose_patch(*(side // scale for side in sides)) if masker.patch == "auto" else masker.patch
    return {
        "name": "conditional",
        "args": {
            "masker": {"patch": patch, "channels": masker.channels, "bias": masker.bias},
            "shared_stem": masker.shared_stem,
            "sr_fast": network_spec(config.sr_fast.name, scale, config.sr_fast.args),
            "sr_quality": network_spec(config.sr_quality.name, scale, config.sr_quality.args),
            "halo": choose_halo(patch) if masker.halo == "auto" else masker.halo,
            "train_tiles": masker.train == "tiles",
        },
    }


def split_upscale(sr: str, scale: int, upscale: float) -> tuple[dict[str, int | float], float]:
    """Arguments of the SR network, and the factor by which its images are enlarged, that together make `upscale`: the
    bicubic one makes the larger image in one interpolation where the whole factor is whole."""
    if upscale == 1 or sr != "bicubic" or scale * upscale % 1:
        return {}, upscale
    return {"upscale": int(upscale) if upscale % 1 == 0 else upscale}, 1


def network_spec(name: str, scale: int, args: dict) -> dict:
    """Spec of an SR network."""
    return {"name": name, "args": {"scale": scale, **args}}


def build_system(config: Stage3Config, names: tuple[str, ...]) -> ConditionalSRDetector:
    """Front end and detector as a stage-3 configuration describes them, with the weights of stages 1 and 2.

    Args:
        config: networks, their weights, scale and masker.
        names: class names of the data set.

    Raises:
        UserError, CheckpointError: see `configured_front` and `build_or_load_detector`.
    """
    front = configured_front(config)
    _, upscale = split_upscale(config.sr, config.data.scale, config.upscale)
    return ConditionalSRDetector(front, build_or_load_detector(config.detector, names), upscale=upscale)


def configured_front(config: Stage3Config) -> FrontEnd:
    """Front end as a stage-3 configuration describes it, with the weights of stage 2 or of `start`.

    Raises:
        UserError, CheckpointError: see `build_or_load_sr`.
    """
    if config.start is not None:
        config = replace(config, sr_fast=replace(config.sr_fast, weights=None, init=None))
        config = replace(config, sr_quality=replace(config.sr_quality, weights=None, init=None))

    scale = config.data.scale

    def make(role: str, spec: dict) -> SRNetwork:
        """The network of a role as configured: with fresh weights, or with those of a file."""
        key = config.sr if role == ROLE else role
        return fresh_network(role, spec) if key == "bicubic" else build_or_load_sr(getattr(config, key), scale)

    front = build_front(spec_of_front(config), make)
    refuse_trained_integers(front, config)
    quality = front.networks.get("sr_quality")
    if quality is not None and quality.capabilities.blend:
        front = for_windows(front, quality, config)
    if config.start is not None:
        take_front(config.start, front, config.sr)
    return front


def refuse_trained_integers(front: FrontEnd, config: Stage3Config) -> None:
    """Raises UserError where a quantised network is to be trained."""
    for role, network in front.networks.items():
        key = config.sr if role == ROLE else role
        if role == "masker" or not network.capabilities.quantised:
            continue
        if key not in config.freeze and config.mode != "detector_only":
            raise UserError(
                f"{key} {network.spec['name']} is computed in integers and not trained: train with the edsr that it is "
                f"made of and quantise the system with `python -m tools.quantise_sr`, or add {key} to freeze"
            )


def for_windows(front: FrontEnd, quality: SRNetwork, config: Stage3Config) -> FrontEnd:
    """The front end whose SR_Quality runs in windows that fade into each other; `auto` is the halo that it asks for.

    Raises:
        UserError: it draws noise, and is not frozen.
    """
    if quality.capabilities.stochastic and "sr_quality" not in config.freeze and config.mode != "detector_only":
        raise UserError(
            f"sr_quality {config.sr_quality.name} draws noise, so it is not trained jointly: train it in stage 2, name "
            "its weights, and add sr_quality to freeze"
        )
    if config.masker.halo != "auto":
        return front
    return front.with_execution(halo=auto_halo(quality, front.patch))


def take_front(path: str | Path, front: FrontEnd, sr: str) -> None:
    """Give a front end the weights of that of a stage-3 checkpoint.

    Args:
        path: checkpoint.
        front: with a masker, or one SR network.
        sr: which network of a front end with a masker in the checkpoint a single network takes: sr_fast or sr_quality.

    Raises:
        CheckpointError: see `load_front`.
        UserError: the checkpoint holds another front end.
    """
    stored, masked = load_front(path), front.patch is not None
    theirs = stored.networks
    if stored.patch is not None and not masked:
        theirs = {ROLE: theirs[sr]}
    if theirs.keys() != front.networks.keys():
        raise UserError(f"start: {path} was trained with another `sr`; name a checkpoint of sr conditional")
    for role, own in front.networks.items():
        if role == "masker":
            check_same_masker(path, own, theirs[role])
        elif with_defaults(own.spec) != with_defaults(theirs[role].spec):
            raise UserError(
                f"start: {path} holds {spec_text(theirs[role].spec)}, but {role if masked else sr} is "
                f"{spec_text(own.spec)}; make name, args and data.scale agree"
            )
    for role, own in front.networks.items():
        own.load_state_dict(theirs[role].state_dict())
    print(f"{path}: {'masker and SR networks' if masked else sr} taken as start")


def check_same_masker(path: str | Path, own: Masker, stored: Masker) -> None:
    """Raises UserError where a stored masker is another than the configured one."""
    masks = [(masker.patch, masker.channels) for masker in (own, stored)]
    if masks[0] != masks[1]:
        raise UserError(f"start: {path} has masker.patch and channels {masks[1]}, the configuration {masks[0]}")
    if own.shares_stem != stored.shares_stem:
        raise UserError(f"start: masker.shared_stem of {path} is another than that of the configuration")


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
