"""From what the user names to the graph that is exported, and what its file says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from configs.export_schema import ExportConfig
from deployment.export.graphs import CallGraph, DetectorGraph, SRGraph
from deployment.export.traced import ExportOptions
from loading.assembled_system import assemble_system, ready_network
from loading.checkpoints import checkpoint_kind
from loading.deployed_detector import holds_detector, load_deployed_detector
from loading.systems import load_system, with_halo
from models.mask_policy import MaskPolicy, parse_policy
from models.system import ConditionalSRDetector
from utils.checkpoint import CheckpointError
from utils.errors import UserError

DETECTOR_SIDE = 640


@dataclass(frozen=True)
class Exported:
    """What is exported.

    Args:
        graph: of deployment/export/graphs.py, in evaluation mode.
        facts: what its files say of it: task, scale, stride, names and, with a masker, policy, patch and halo.
    """

    graph: SRGraph | DetectorGraph | CallGraph
    facts: dict


def exported_graph(config: ExportConfig) -> Exported:
    """The graph of what the configuration names.

    Raises:
        UserError: no such file, weights of no known kind, a network or a policy that makes no fixed graph, or options
            that these weights do not have.
    """
    if config.detector is not None:
        ready = assemble_system(config.detector, config.sr, config.scale, config.detector_model)
        return of_system(config, ready.system, ready.masker_trained)
    path = config.weights
    if checkpoint_kind(path) == "system":
        return of_system(config, load_system(path), True)
    if config.policy is not None or config.halo is not None:
        raise UserError(f"{path}: is no system with a masker; leave out policy and halo")
    if holds_detector(path):
        detector = load_deployed_detector(path, config.detector_model)
        names = dict(enumerate(detector.names))
        return Exported(DetectorGraph(detector).eval(), {"task": "detect", "stride": detector.stride, "names": names})
    if not Path(path).is_file() and (path.endswith((".pt", ".pth", ".ckpt")) or "/" in path):
        raise CheckpointError(f"{path}: no such file; give a weight file, or the name of a shipped network")
    network = ready_network(path, config.scale)
    facts = {"task": "super-resolution", "stride": 1, "scale": network.scale, "network": network.spec}
    return Exported(SRGraph(network).eval(), facts)


def of_system(config: ExportConfig, system: ConditionalSRDetector, masker_trained: bool) -> Exported:
    """The whole call."""
    named = str(config.weights or config.detector)
    if config.halo is not None:
        system = with_halo(named, system, config.halo)
    policy = policy_of(config, named, system, masker_trained)
    graph = CallGraph(system.eval(), policy).eval()
    facts = {"task": "detect", "stride": graph.unit, "names": dict(enumerate(system.detector.names))}
    facts |= {"scale": system.front.scale}
    if system.patch is not None:
        facts |= {"policy": str(policy), "patch": system.patch, "halo": getattr(graph.front, "halo", None)}
    return Exported(graph, facts)


def policy_of(config: ExportConfig, named: str, system: ConditionalSRDetector, masker_trained: bool) -> MaskPolicy:
    """The policy that becomes part of the graph. Raises UserError where it does not apply."""
    if system.patch is None:
        if config.policy is not None:
            raise UserError(f"{named}: this system has no masker; leave out policy")
        return MaskPolicy("all_fast")
    policy = parse_policy(config.policy or ("budget=0.25" if masker_trained else "all_fast"))
    if policy.needs_masker and not masker_trained:
        raise UserError(f"policy {policy} asks a masker, and none was trained; take all_fast or all_quality")
    return policy


def options_of(config: ExportConfig, what: Exported) -> ExportOptions:
    """Sizes and precision. Raises UserError for an imgsz that the graph cannot take."""
    side = DETECTOR_SIDE // what.facts.get("scale", 1)
    given = side if config.imgsz is None else config.imgsz
    sides = [given, given] if isinstance(given, int) else list(given)
    if len(sides) != 2:
        raise UserError(f"imgsz is {given}; give height and width, or one number for both")
    if any(side % what.graph.multiple for side in sides):
        raise UserError(f"imgsz is {given}, but this detector takes multiples of {what.graph.multiple}")
    return ExportOptions((sides[0], sides[1]), config.batch, config.dynamic, config.half)


def described(config: ExportConfig, what: Exported, options: ExportOptions) -> dict:
    """Metadata under the names of `yolo export`, and what only this project has."""
    named = Path(config.weights or config.detector or "").stem
    arguments = {"batch": options.batch, "dynamic": options.dynamic, "half": options.half, "int8": config.int8}
    return {
        "description": f"{named}, {what.facts['task']}, by conditional super-resolution for YOLO",
        "author": "conditional super-resolution for YOLO",
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "version": "1",
        "license": "AGPL-3.0 License (https://ultralytics.com/license)",
        "docs": "docs/export.md",
        "batch": options.batch,
        "imgsz": list(options.imgsz),
        "channels": 3,
        "end2end": False,
        "args": arguments,
    } | what.facts
