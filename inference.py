"""Detect objects in low-resolution images, folders, globs or videos; with --sr-only super-resolve them.

    python inference.py --weights conditional_sr_yolo_jointly_tuned.pth --source images/ --policy budget=0.25 --save-txt
    python inference.py --detector yolo11n.pt --sr shipped --scale 4 --source images/
    python inference.py --sr-only --source images/ --out upscaled

Options may also be written as for `yolo predict`: conf=0.3 save_txt=True. Put a glob in quotes. Boxes are in pixels of
the original images. Exit status: 0 all files read, 1 some skipped or results not saved, 2 bad arguments or weights.
"""

from __future__ import annotations

import signal
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from configs.inference_schema import InferenceConfig
from utils.config import parse_config
from utils.errors import UserError

if TYPE_CHECKING:
    from prediction.run_folder import Run


def translate(argv: list[str]) -> list[str]:
    """`conf=0.3`, as users of `yolo predict` write it -> `--conf=0.3`; the value that follows an option stays."""
    kinds = {field.name: field.type for field in fields(InferenceConfig)}
    result: list[str] = []
    for token in argv:
        key, equals, _ = token.partition("=")
        before = result[-1] if result else ""
        # With postponed annotations a field's type is its text.
        takes_value = before.startswith("--") and "=" not in before and kinds.get(_plain(before[2:])) != "bool"
        result.append(f"--{token}" if equals and _plain(key) in kinds and not takes_value else token)
    return result


def _plain(option: str) -> str:
    return option.replace("-", "_")


def check_options(config: InferenceConfig) -> None:
    """Options that must be given.

    Raises:
        ValueError: naming the option, its value and the remedy.
    """
    if config.detector is None:
        if not config.weights and not config.sr_only:
            raise UserError(
                "no weights given; name a checkpoint of stage 3 with --weights, or a detector with --detector"
            )
        if config.sr != InferenceConfig.sr or config.detector_model is not None:
            raise UserError("sr and detector_model belong to --detector: add it, or leave them out")
        if not config.sr_only and config.scale is not None:
            raise UserError("scale belongs to --sr-only and --detector: add one of them, or leave it out")
    elif config.weights or config.sr_only:
        raise UserError("detector stands instead of weights, and detects; leave out it, or --weights and --sr-only")
    if not config.sr_only and (config.self_ensemble or config.tile or config.cmsr):
        raise UserError("self_ensemble, tile and cmsr belong to --sr-only: add it, or leave them out")
    if config.sr_only and config.halo is not None:
        raise UserError("halo belongs to systems with a masker; with --sr-only it is --tile_halo")
    found = config.policy != InferenceConfig.policy or config.save_txt or config.save_json or config.save_mask
    if config.sr_only and (found or config.profile):
        raise UserError(
            "policy, profile, save_txt, save_json and save_mask belong to detection; leave out either them or --sr-only"
        )
    if config.cmsr and config.tile:
        raise UserError("cmsr and tile exclude each other: CMSR renders whole images; leave one of them out")
    if not Path(config.out).name:
        raise UserError(f"out is {config.out!r}; name a new folder")


def prepare_detection(config: InferenceConfig) -> Run:
    """Everything that can go wrong before the first image.

    Raises:
        UserError, OSError: arguments or weights that cannot be used.
    """
    from data.sources import list_sources, read_frames
    from models.mask_policy import parse_policy
    from prediction.api import ConditionalYOLO
    from prediction.prediction_writer import PredictionWriter
    from prediction.predictor import PredictOptions
    from prediction.run_folder import Run, new_run_folder
    from prediction.stage_times import StageTimes

    if config.policy is not None:
        parse_policy(config.policy)  # a wrong one is told before anything is loaded
    files = list_sources(config.source)
    deployed = {"detector": config.detector, "sr": config.sr, "detector_model": config.detector_model}
    model = ConditionalYOLO(
        config.weights or None, config.device, config.half, scale=config.scale, halo=config.halo,
        profile=config.profile, memory_mb=config.memory_mb, seed=config.seed, **deployed if config.detector else {},
    )  # fmt: skip
    predictor = model.predictor
    policy = model.checked_policy(config.policy or ("learned" if model.has_masker else None))
    options = PredictOptions(policy, config.conf, config.iou, config.max_det)
    if config.save_mask and not model.conditional:
        raise UserError(f"{model.weights}: this system has no masker; leave out --save_mask")
    print(model.how)
    times, folder = StageTimes(predictor.device), new_run_folder(config.out)
    predictions = predictor.stream(read_frames(files, config.max_pixels), options, config.batch, times)
    writer = PredictionWriter(folder, files, config, model.scale, predictor.system.detector.names)
    return Run(files, predictions, writer, folder, times)


def prepare_sr(config: InferenceConfig) -> Run:
    """The same for `--sr-only`."""
    from data.sources import list_sources, read_frames
    from prediction.run_folder import Run, new_run_folder
    from prediction.sr_writer import SRWriter
    from prediction.stage_times import StageTimes
    from prediction.super_resolver import SHIPPED, SuperResolver

    files = list_sources(config.source)
    resolver = SuperResolver(
        config.weights or SHIPPED, config.scale, config.device, config.half,
        config.tile, config.tile_halo, config.self_ensemble, config.cmsr, config.seed, config.memory_mb,
    )  # fmt: skip
    times, folder = StageTimes(resolver.inference.device), new_run_folder(config.out)
    images = resolver.stream(read_frames(files, config.max_pixels), times)
    return Run(files, images, SRWriter(folder, files), folder, times)


def main(argv: list[str] | None = None) -> int:
    config = parse_config(InferenceConfig, __doc__, translate(sys.argv[1:] if argv is None else argv))
    from utils.device import set_threads

    try:
        check_options(config)
        set_threads(config.threads)
        run = prepare_sr(config) if config.sr_only else prepare_detection(config)
    except (UserError, OSError) as error:
        print(f"inference.py: error: {error}", file=sys.stderr)
        return 2
    try:
        skipped = run.save()
    except OSError as error:
        print(f"inference.py: error: {error}; what was saved until here is in {run.folder}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"inference.py: stopped; what was saved until here is in {run.folder}", file=sys.stderr)
        return 130
    for file, reason in skipped.items():
        print(f"skipped {file.label}: {reason}", file=sys.stderr)
    return 1 if skipped else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was found is saved
    sys.exit(main())
