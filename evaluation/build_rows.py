"""The rows that an evaluation's configuration asks for, built from its checkpoints."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from configs.evaluate_schema import EvaluateConfig
from deployment.latency_profile import fingerprint, load_profile, with_profile
from evaluation.oracle_mask import OracleMask
from evaluation.rows import LEARNED, Row
from loading.published_weights import check_scale
from loading.shipped_weights import SHIPPED
from loading.sr_networks import load_sr, shipped_file
from loading.systems import check_classes, load_any_detector, load_detector_checkpoint, load_system, with_halo
from models import build_sr
from models.mask_policy import MaskPolicy
from models.single_sr import SingleSR
from models.sliced_detection import SlicedDetector, Slicer
from models.system import ConditionalSRDetector
from utils.checkpoint import CheckpointError
from utils.errors import UserError

STAGE3_FILE = "conditional_sr_yolo_jointly_tuned.pth"
EITHER_STAGE = f"stage1_pretrain_yolo.py (yolo_pretrained_hr.pth) or stage3_finetune_joint.py ({STAGE3_FILE}) writes it"
WRITTEN_BY = {
    "detector": "stage1_pretrain_yolo.py writes it (yolo_pretrained_hr.pth)",
    "detectors": EITHER_STAGE,
    "sr_fast": "stage2_pretrain_sr.py writes it (sr_fast_pretrained.pth)",
    "sr_quality": "stage2_pretrain_sr.py writes it (sr_quality_pretrained.pth)",
    "system": f"stage3_finetune_joint.py writes it ({STAGE3_FILE})",
    "systems": f"stage3_finetune_joint.py writes it ({STAGE3_FILE})",
    "sliced": EITHER_STAGE,
    "retrained": f"stage3_finetune_joint.py, run in another mode, writes it ({STAGE3_FILE})",
}
OWN_SYSTEM = "conditional"  # the name of `system` in the table
ROW_NAME = re.compile(r"[\w+-][\w.+-]*(/[\w+-][\w.+-]*)*")


def build_rows(config: EvaluateConfig, names: tuple[str, ...]) -> list[Row]:
    """All rows of the configuration, in the order of the table, on the CPU.

    Args:
        config: checkpoints, budgets, scale and LR protocol.
        names: class names of the data set.

    Raises:
        ValueError: a checkpoint is not given, is for another scale or other classes, or a name stands twice.
        CheckpointError: a checkpoint is missing, damaged or of another kind.
    """
    others = config.systems or config.detectors or config.sliced
    system, rows = None, []
    if config.system or not others:
        system = _load_system("system", config.system, config, names)
        if system.patch is None:
            raise UserError(
                f"system: {config.system} has {system.front.spec['name']} as front end and no masker; name it under "
                "`retrained`, and give as `system` a checkpoint that stage 3 trained with `sr: conditional`"
            )
    if config.detector or not others:
        rows += detector_rows(config, names, system)
    elif config.sr_fast or config.sr_quality:
        raise UserError("the rows sr_fast and sr_quality need `detector`: name a stage-1 checkpoint, or leave them out")
    if system is not None:
        rows += conditional_rows(OWN_SYSTEM, system, config)
    for name, path in config.systems.items():
        other = _load_system(f"systems.{name}", path, config, names)
        rows += system_rows("systems", name, other, config)
    for name, path in config.detectors.items():
        rows.append(hr_row(name, path, config, names))
    for name, path in config.retrained.items():
        other = _load_system(f"retrained.{name}", path, config, names)
        rows.append(plain_row("retrained", name, other, config))
    for name in config.sliced:
        rows.append(sliced_row(name, config, names))
    check_names(config, rows)
    for row in rows:
        (row.system or row.sliced or row.detector).eval()
    return rows


def conditional_systems(rows: list[Row]) -> dict[str, ConditionalSRDetector]:
    """Systems with a masker by the name of their row with the learned policy."""
    return {row.name: row.system for row in rows if row.conditional and row.policy == LEARNED}


def detector_rows(config: EvaluateConfig, names: tuple[str, ...], system: ConditionalSRDetector | None) -> list[Row]:
    """hr, lr, bicubic, bicubic_2x, sr_fast, sr_quality: the detector of stage 1 as it is, on what each shows it."""
    scale = config.data.scale
    detector = _load("detector", config.detector, load_detector_checkpoint)
    check_classes(config.detector, detector.names, names)
    fronts = {"bicubic": SingleSR(build_sr("bicubic", scale))}
    fronts["bicubic_2x"] = SingleSR(build_sr("bicubic", scale, {"upscale": 2}), zoom=2)
    for role in ("sr_fast", "sr_quality"):
        path = getattr(config, role)
        if path == SHIPPED:
            if system is None:
                raise UserError(
                    f"{role}: {SHIPPED} means the network of `system`, which is not given; name a weight file"
                )
            path = str(shipped_file(system.front.networks[role].spec))
        if path is not None:
            network = _load(role, path, partial(load_sr, scale=scale))
            check_scale(path, network.scale, scale)
            fronts[role] = SingleSR(network)
        elif system is not None:
            fronts[role] = SingleSR(system.front.networks[role])
    rows = [] if config.data.lr == "native" else [Row("hr", detector, sees_hr=True)]
    rows += [Row("lr", detector)]
    return rows + [Row(name, detector, ConditionalSRDetector(front, detector)) for name, front in fronts.items()]


def conditional_rows(name: str, system: ConditionalSRDetector, config: EvaluateConfig) -> list[Row]:
    """NAME_learned, NAME_budget_R, ... : one system under all mask policies and controls."""
    policies: dict[str, MaskPolicy | OracleMask] = {"learned": LEARNED}
    for kind in ("budget", "random", "edge"):
        policies |= {f"{kind}_{share:g}": MaskPolicy(kind, share) for share in config.budgets}
    policies |= {f"oracle_{share:g}": OracleMask(share) for share in config.budgets}
    if name == OWN_SYSTEM or (config.latencies and fits_profile(system, config)):
        policies |= {f"latency_{ms:g}": MaskPolicy("latency_ms", ms) for ms in config.latencies}
    policies |= {kind: MaskPolicy(kind) for kind in ("all_fast", "all_quality")}
    return [Row(f"{name}_{key}", system.detector, system, policy) for key, policy in policies.items()]


def fits_profile(system: ConditionalSRDetector, config: EvaluateConfig) -> bool:
    """Whether the latency profile was measured for a system of this architecture."""
    return bool(config.profile) and load_profile(config.profile).system == fingerprint(system)


def with_profiles(rows: list[Row], config: EvaluateConfig, device, dtype) -> list[Row]:
    """The rows whose systems have the latency profile, where it was measured for them.

    Raises:
        UserError: it was not measured for `system`.
    """
    systems = {}
    for name, system in conditional_systems(rows).items():
        if name == f"{OWN_SYSTEM}_learned" or fits_profile(system, config):
            systems[id(system)] = with_profile(system, config.profile, device, dtype)
        elif config.latencies:
            print(f"{name}: {config.profile} is for another architecture, so there are no rows with latencies")
    return [replace(row, system=systems.get(id(row.system), row.system)) for row in rows]


def system_rows(key: str, name: str, system: ConditionalSRDetector, config: EvaluateConfig) -> list[Row]:
    """All policies of a system with a masker, or the one row of another."""
    if system.patch is not None:
        return conditional_rows(name, system, config)
    return [plain_row(key, name, system, config)]


def plain_row(key: str, name: str, system: ConditionalSRDetector, config: EvaluateConfig) -> Row:
    """One row for one system; a detector trained on HR images sees them.

    Raises:
        ValueError: it sees HR images, and there are none.
    """
    if not system.sees_hr:
        return Row(name, system.detector, system)
    if config.data.lr == "native":
        raise UserError(f"{key}.{name}: sees HR images, but with data.lr native there are none; leave it out")
    return Row(name, system.detector, sees_hr=True)


def hr_row(name: str, path: str, config: EvaluateConfig, names: tuple[str, ...]) -> Row:
    """A detector of stage 1, or of stage 3 with `sr: hr`, on HR images."""
    key = f"detectors.{name}"
    detector, system = _load(key, path, load_any_detector)
    check_classes(path, detector.names, names)
    if system is not None and not system.sees_hr:
        raise UserError(
            f"{key}: {path} was trained on images of its front end {system.spec['args']['front']['name']}; name it "
            "under `systems`, or give a checkpoint of stage 1, or of stage 3 with `sr: hr`"
        )
    if config.data.lr == "native":
        raise UserError(f"{key}: sees HR images, but with data.lr native there are none; leave it out")
    return Row(name, detector, sees_hr=True)


def sliced_row(name: str, config: EvaluateConfig, names: tuple[str, ...]) -> Row:
    """Sliced inference with the detector of a checkpoint of stage 1 or 3."""
    options = config.sliced[name]
    detector, _ = _load(f"sliced.{name}", options.weights, load_any_detector)
    check_classes(options.weights, detector.names, names)
    slicer = Slicer(config.data.scale, options.rows, options.columns, options.overlap, options.full)
    return Row(name, detector, sliced=SlicedDetector(slicer, detector, options.match, options.match_threshold))


def check_names(config: EvaluateConfig, rows: list[Row]) -> None:
    """Raises ValueError where a name cannot be that of a file, or two rows have the same one."""
    for key in ("systems", "detectors", "sliced"):
        for name in getattr(config, key):
            if not ROW_NAME.fullmatch(name):
                raise UserError(f"{key}.{name}: names are letters, digits, and _ + - . with / between parts")
    taken = [row.name for row in rows]
    for key in ("retrained", "systems", "detectors", "sliced"):
        for name in getattr(config, key):
            if taken.count(name) > 1 or taken.count(f"{name}_learned") > 1:
                raise UserError(f"{key}.{name}: the table has a row of this name already; choose another name")


def _load_system(key: str, path: str, config: EvaluateConfig, names: tuple[str, ...]) -> ConditionalSRDetector:
    system = _load(key, path, load_system)
    if not system.sees_hr:
        check_scale(path, system.scale, config.data.scale)
    check_classes(path, system.detector.names, names)
    return system if system.patch is None else with_halo(path, system, config.halo)


def _load(key: str, path: str, loader: Callable):
    """Load a checkpoint; a missing one is named with its configuration key and the script that makes it."""
    written_by = WRITTEN_BY[key.partition(".")[0]]
    if not path:
        raise UserError(f"{key}: no checkpoint is given; {written_by}")
    if not Path(path).is_file():
        raise CheckpointError(f"{key}: {path} does not exist; {written_by}")
    return loader(path)
