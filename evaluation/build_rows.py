"""The rows that an evaluation's configuration asks for, built from its checkpoints."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from configs.evaluate_schema import EvaluateConfig
from deployment.latency_profile import architecture_fingerprint, load_profile, with_profile
from evaluation.oracle_mask import OracleMask
from evaluation.row_key import STOCK, RowKey
from evaluation.rows import LEARNED, Row
from evaluation.sahi_method import SahiMethod
from loading.assembled_system import shipped_pair
from loading.deployed_detector import load_deployed_detector
from loading.load_sr import load_sr, shipped_file
from loading.published_weights import check_scale
from loading.shipped_weights import SHIPPED
from loading.systems import (
    check_classes,
    load_any_detector,
    load_system,
    network_spec,
    split_upscale,
    with_halo,
)
from models.build_front import build_front
from models.detector_yolo import YoloDetector
from models.mask_policy import MaskPolicy
from models.method import DetectorAlone
from models.single_sr import SingleSR
from models.sliced_detection import SlicedDetector, Slicer
from models.sr_network import SRNetwork
from models.system import ConditionalSRDetector
from utils.checkpoint import CheckpointError
from utils.errors import UserError

STAGE3_FILE = "conditional_sr_yolo_jointly_tuned.pth"
EITHER_STAGE = f"stage1_pretrain_yolo.py (yolo_pretrained_hr.pth) or stage3_finetune_joint.py ({STAGE3_FILE}) writes it"
WRITTEN_BY = {
    "detector": "give an Ultralytics .pt, a state dict, or what stage1_pretrain_yolo.py writes",
    "detectors": EITHER_STAGE,
    "sr_fast": "stage2_pretrain_sr.py writes it (sr_fast_pretrained.pth)",
    "sr_quality": "stage2_pretrain_sr.py writes it (sr_quality_pretrained.pth)",
    "system": f"stage3_finetune_joint.py writes it ({STAGE3_FILE})",
    "systems": f"stage3_finetune_joint.py writes it ({STAGE3_FILE})",
    "sliced": EITHER_STAGE,
    "retrained": f"stage3_finetune_joint.py, run in another mode, writes it ({STAGE3_FILE})",
}
OWN_SYSTEM = RowKey("conditional")  # what `system` is called in the table
BICUBIC = ("bicubic", "bicubic_1.5x", "bicubic_2x")
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
    check_records(config)
    others = config.systems or config.detectors or config.sliced or config.detector
    system, rows = None, {}  # configuration key -> rows
    if config.system or not others:
        system = own_system(config, names)
    if config.detector:
        rows["detector"] = detector_rows(config, names, system)
    elif config.sr_fast or config.sr_quality:
        raise UserError("the rows sr_fast and sr_quality need `detector`: name its file, or leave them out")
    if system is not None:
        rows["system"] = conditional_rows(OWN_SYSTEM, system, config)
    for name, path in config.systems.items():
        key = f"systems.{name}"
        rows[key] = system_rows(key, row_key(name, config), _load_system(key, path, config, names), config)
    for name, path in config.detectors.items():
        rows[f"detectors.{name}"] = [hr_row(name, path, config, names)]
    for name, path in config.retrained.items():
        key = f"retrained.{name}"
        rows[key] = [plain_row(key, row_key(name, config), _load_system(key, path, config, names), config)]
    for name in config.sliced:
        rows[f"sliced.{name}"] = [sliced_row(name, config, names)]
    check_names(rows)
    built = [row for group in rows.values() for row in group]
    for row in built:
        row.method.eval()
    return built


def row_key(name: str, config: EvaluateConfig) -> RowKey:
    """The key of the row or system that the configuration calls so."""
    record = config.records.get(name)
    if record is None:
        return RowKey(name)
    return RowKey(record.system or name, record.family, record.recipe, record.upscale)


def check_records(config: EvaluateConfig) -> None:
    """Raises ValueError where `records` says something of a row that there is not."""
    known = [*config.systems, *config.detectors, *config.retrained, *config.sliced]
    for name in config.records:
        if name not in known:
            raise UserError(f"records.{name}: systems, detectors, retrained and sliced have no such row; remove it")


def own_system(config: EvaluateConfig, names: tuple[str, ...]) -> ConditionalSRDetector:
    """The system of `system`. Raises ValueError where it has no masker."""
    system = _load_system("system", config.system, config, names)
    if system.patch is None:
        raise UserError(
            f"system: {config.system} has {system.front.spec['name']} as front end and no masker; name it under "
            "`retrained`, and give as `system` a checkpoint that stage 3 trained with `sr: conditional`"
        )
    return system


def conditional_systems(rows: list[Row]) -> dict[RowKey, Row]:
    """The row with the learned policy of every system with a masker, by the key of the system as a whole."""
    return {row.key.base: row for row in rows if row.conditional and row.policy == LEARNED}


def detector_rows(config: EvaluateConfig, names: tuple[str, ...], system: ConditionalSRDetector | None) -> list[Row]:
    """hr, lr, bicubic, ..., sr_fast, sr_quality as far as `baselines` asks for them: the detector as it is deployed, on
    what each shows it."""
    scale = config.data.scale
    detector = _load(
        "detector", config.detector, partial(load_deployed_detector, model=config.detector_model, names=names)
    )
    check_classes(config.detector, detector.names, names)
    methods = {
        name: bicubic_before(detector, scale, STOCK[name].upscale) for name in BICUBIC if name in config.baselines
    }
    for role in (name for name in ("sr_fast", "sr_quality") if name in config.baselines):
        network = stock_network(role, config, system)
        if network is not None:
            methods[role] = ConditionalSRDetector(SingleSR(network), detector)
    rows = [] if config.data.lr == "native" else [on_hr_images(STOCK["hr"], detector)]
    rows += [Row(STOCK["lr"], DetectorAlone(detector, scale, sees_hr=False))]
    rows += [Row(STOCK[name], method) for name, method in methods.items()]
    wanted = {STOCK[name] for name in config.baselines}
    return [row for row in rows if row.key in wanted]


def bicubic_before(detector: YoloDetector, scale: int, upscale: float) -> ConditionalSRDetector:
    """Bicubic interpolation to `upscale` times the HR canvas, before the detector."""
    args, rest = split_upscale("bicubic", scale, upscale)
    return ConditionalSRDetector(build_front(network_spec("bicubic", scale, args)), detector, upscale=rest)


def stock_network(role: str, config: EvaluateConfig, system: ConditionalSRDetector | None) -> SRNetwork | None:
    """Network of the row sr_fast or sr_quality: of its weight file, else that of `system`, else the shipped one that
    stage 3 would start from; None where nothing is shipped for this scale, which is said.

    Raises:
        UserError, CheckpointError: a file of another scale, or see `load_sr`; `shipped`, and there is none.
    """
    path, scale = getattr(config, role), config.data.scale
    if path is None and system is not None:
        return system.front.networks[role]
    if path == SHIPPED and system is not None:
        path = str(shipped_file(system.front.networks[role]))
    elif path in (None, SHIPPED):
        try:
            path = str(shipped_pair(scale)[role == "sr_quality"])
        except UserError:
            if path == SHIPPED:
                raise
            print(f"{role}: nothing is shipped for x{scale}, so there is no such row; name a weight file")
            return None
    network = _load(role, path, partial(load_sr, scale=scale))
    check_scale(path, network.scale, scale)
    return network


def conditional_rows(key: RowKey, system: ConditionalSRDetector, config: EvaluateConfig) -> list[Row]:
    """One system under all mask policies and controls."""
    policies: list[MaskPolicy | OracleMask] = [LEARNED]
    for kind in ("budget", "random", "edge"):
        policies += [MaskPolicy(kind, share) for share in config.budgets]
    policies += [OracleMask(share) for share in config.budgets]
    if key == OWN_SYSTEM or (config.latencies and fits_profile(system, config)):
        policies += [MaskPolicy("latency_ms", ms) for ms in config.latencies]
    policies += [MaskPolicy(kind) for kind in ("all_fast", "all_quality")]
    return [Row(under(key, policy), system, policy) for policy in policies]


def under(key: RowKey, policy: MaskPolicy | OracleMask) -> RowKey:
    """The key of a system under a policy."""
    return key.under(policy.kind, policy.share if isinstance(policy, OracleMask) else policy.value)


def fits_profile(system: ConditionalSRDetector, config: EvaluateConfig) -> bool:
    """Whether the latency profile was measured for a system of this architecture."""
    return bool(config.profile) and load_profile(config.profile).system == architecture_fingerprint(system)


def with_profiles(rows: list[Row], config: EvaluateConfig, device, dtype) -> list[Row]:
    """The rows, whose systems have the latency profile where it was measured for them.

    Raises:
        UserError: it was not measured for `system`.
    """
    systems = {}
    for key, row in conditional_systems(rows).items():
        if key == OWN_SYSTEM or fits_profile(row.method, config):
            systems[id(row.method)] = with_profile(row.method, config.profile, device, dtype)
        elif config.latencies:
            print(f"{row.name}: {config.profile} is for another architecture, so there are no rows with latencies")
    return [replace(row, method=systems.get(id(row.method), row.method)) for row in rows]


def system_rows(place: str, key: RowKey, system: ConditionalSRDetector, config: EvaluateConfig) -> list[Row]:
    """All policies of a system with a masker, or the one row of another; `place` is its configuration key."""
    if system.patch is not None:
        return conditional_rows(key, system, config)
    return [plain_row(place, key, system, config)]


def plain_row(place: str, key: RowKey, system: ConditionalSRDetector, config: EvaluateConfig) -> Row:
    """One row for one system; a detector trained on HR images sees them.

    Raises:
        ValueError: it sees HR images, and there are none.
    """
    if not system.sees_hr:
        return Row(key, system)
    if config.data.lr == "native":
        raise UserError(f"{place}: sees HR images, but with data.lr native there are none; leave it out")
    return on_hr_images(key, system.detector)


def hr_row(name: str, path: str, config: EvaluateConfig, names: tuple[str, ...]) -> Row:
    """A detector of stage 1, or of stage 3 with `sr: hr`, on HR images."""
    key = f"detectors.{name}"
    detector, system = _load(key, path, partial(load_any_detector, names=names))
    check_classes(path, detector.names, names)
    if system is not None and not system.sees_hr:
        raise UserError(
            f"{key}: {path} was trained on images of its front end {system.spec['args']['front']['name']}; name it "
            "under `systems`, or give a checkpoint of stage 1, or of stage 3 with `sr: hr`"
        )
    if config.data.lr == "native":
        raise UserError(f"{key}: sees HR images, but with data.lr native there are none; leave it out")
    return on_hr_images(row_key(name, config), detector)


def on_hr_images(key: RowKey, detector: YoloDetector) -> Row:
    """The row of a detector that sees HR images as they are."""
    return Row(key, DetectorAlone(detector, factor=1, sees_hr=True))


def sliced_row(name: str, config: EvaluateConfig, names: tuple[str, ...]) -> Row:
    """Sliced inference with the detector of a checkpoint of stage 1 or 3."""
    options = config.sliced[name]
    detector, _ = _load(f"sliced.{name}", options.weights, partial(load_any_detector, names=names))
    check_classes(options.weights, detector.names, names)
    slicer = Slicer(config.data.scale, options.rows, options.columns, options.overlap, options.full)
    method = SlicedDetector if options.library is None else SahiMethod
    return Row(row_key(name, config), method(slicer, detector, options.match, options.match_threshold))


def check_names(rows: dict[str, list[Row]]) -> None:
    """Raises ValueError where a name cannot be that of a file, or two rows have the same one.

    Args:
        rows: by their configuration key.
    """
    taken: set[str] = set()
    for key, group in rows.items():
        is_file_name = all(ROW_NAME.fullmatch(row.key.base.name) for row in group)
        if not is_file_name and not key.startswith("retrained."):  # those have no pictures
            raise UserError(f"{key}: names are letters, digits, and _ + - . with / between parts")
        if any(row.name in taken for row in group):
            raise UserError(f"{key}: the table has a row of this name already; choose another name")
        for name in (row.name for row in group):
            if name in taken:  # of one system: under two policies that read the same
                raise UserError(f"budgets, latencies: two of them make a row {name}; leave one of them out")
            taken.add(name)


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
