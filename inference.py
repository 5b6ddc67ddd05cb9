"""Detect objects in low-resolution images, folders, globs, videos or streams; with --sr-only super-resolve them.

    python inference.py --weights conditional_sr_yolo_jointly_tuned.pth --source images/ --policy budget=0.25 --save-txt
    python inference.py --detector yolo11n.pt --sr shipped --scale 4 --source images/
    python inference.py --sr-only --source images/ --out upscaled

Options may also be written as for `yolo predict`: conf=0.3 save_txt=True classes=0,2. Put a glob in quotes. Boxes are
in pixels of the original images. Exit status: 0 all files read, 1 some skipped or results not saved, 2 bad arguments
or weights.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

from configs.inference_schema import InferenceConfig
from prediction.command_line import check_options, out_folder, translate
from utils.config import parse_config
from utils.errors import UserError

if TYPE_CHECKING:
    from prediction.run_folder import Run


def prepare_detection(config: InferenceConfig) -> Run:
    """Everything that can go wrong before the first image.

    Raises:
        UserError, OSError: arguments or weights that cannot be used.
    """
    from data.sources import list_sources, read_frames
    from models.mask_policy import parse_policy
    from models.patch_reuse import ReuseOptions
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
        profile=config.profile, memory_mb=config.memory_mb, seed=config.seed, backend=config.backend,
        **deployed if config.detector else {},
    )  # fmt: skip
    predictor = model.predictor
    policy = model.checked_policy(config.policy or ("learned" if model.has_masker else None))
    kept = model.checked_classes(config.classes)
    options = PredictOptions(policy, config.conf, config.iou, config.max_det, kept, config.agnostic_nms)
    memory = predictor.reuse(ReuseOptions(config.reuse_threshold, config.reuse_refresh)) if config.reuse else None
    if config.save_mask and not model.conditional:
        raise UserError(f"{model.weights}: this system has no masker; leave out --save_mask")
    print(model.how)
    times, folder = StageTimes(predictor.device), new_run_folder(out_folder(config))
    frames = read_frames(files, config.max_pixels, config.vid_stride)
    predictions = predictor.stream(frames, options, config.batch, times, memory)
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
    times, folder = StageTimes(resolver.inference.device), new_run_folder(out_folder(config))
    images = resolver.stream(read_frames(files, config.max_pixels, config.vid_stride), times)
    return Run(files, images, SRWriter(folder, files), folder, times)


def main(argv: list[str] | None = None) -> int:
    try:
        argv = translate(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        print(f"inference.py: error: {error}", file=sys.stderr)
        return 2
    config = parse_config(InferenceConfig, __doc__, argv)
    from utils.device import set_threads

    try:
        check_options(config)
        set_threads(config.threads)
        run = prepare_sr(config) if config.sr_only else prepare_detection(config)
    except (UserError, OSError) as error:
        print(f"inference.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("inference.py: stopped before the first image", file=sys.stderr)
        return 130
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
